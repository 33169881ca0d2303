//! Reserving and releasing: keys in the store that stand for what is taken.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use bytes::Bytes;
use minik8s_api::{
    kinds::{GroupKind, GroupResource},
    status::{FieldError, FieldPath, Status},
};
use minik8s_store::{self as store, Condition, KeyValue, Operation, Txn, TxnResponse};
use serde_json::{Value, json};

use super::{
    ServiceAllocators,
    families::{is_headless, may_have_node_ports, needs_cluster_ip, needs_health_check_port, needs_node_ports},
};
use crate::cache::object;

/// Keys of node ports: `{prefix}{port}`, the value is `namespace/name` of the Service that has it. They are no objects and
/// so not under the prefix of objects.
pub const PORTS_PREFIX: &str = "/allocations/nodeports/";
const ADDRESSES_PREFIX: &str = "/registry/networking.k8s.io/ipaddresses/";
/// How often a reservation is tried anew when someone else was faster.
const MAX_ATTEMPTS: usize = 64;

/// Keys that one Service holds, or is about to.
#[derive(Debug, Clone, Default)]
pub(super) struct Reservation {
    /// `namespace/name`.
    pub owner: String,
    pub keys: Vec<String>,
}

/// One number a Service asks for.
#[derive(Clone)]
struct Wish {
    what: What,
    /// 0: any.
    number: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Address,
    /// The node port of the port at this index.
    Port(usize),
    HealthCheckPort,
}

fn address_key(number: u32) -> String {
    format!("{ADDRESSES_PREFIX}{}", Ipv4Addr::from(number))
}

fn port_key(number: u32) -> String {
    format!("{PORTS_PREFIX}{number}")
}

fn owner(service: &Value) -> String {
    let text = |field: &str| service["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

fn address_of(service: &Value) -> Option<&str> {
    service["spec"]["clusterIPs"]
        .get(0)
        .and_then(Value::as_str)
        .or_else(|| service["spec"]["clusterIP"].as_str())
        .filter(|ip| !ip.is_empty())
}

fn number_at(value: &Value) -> u32 {
    value.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

impl ServiceAllocators {
    /// The keys of what a Service has.
    pub(super) fn holdings(&self, service: &Value) -> Reservation {
        let mut held = Reservation { owner: owner(service), keys: Vec::new() };
        if needs_cluster_ip(service)
            && !is_headless(service)
            && let Some(address) = address_of(service).and_then(|ip| ip.parse::<Ipv4Addr>().ok())
        {
            held.keys.push(address_key(address.into()));
        }
        // What a change of type leaves behind is no longer held: the strategy, which comes after, drops it or refuses it.
        let ports = service["spec"]["ports"].as_array().filter(|_| may_have_node_ports(service));
        let ports = ports.into_iter().flatten().map(|port| &port["nodePort"]);
        let health_check = Some(&service["spec"]["healthCheckNodePort"]).filter(|_| needs_health_check_port(service));
        for port in ports.chain(health_check).map(number_at).filter(|port| *port != 0) {
            let key = port_key(port);
            if !held.keys.contains(&key) {
                held.keys.push(key);
            }
        }
        held
    }

    /// Reserves in one transaction what the Service wishes and `old` does not hold, and writes the numbers into it. In a dry
    /// run numbers are found, but not taken.
    pub(super) async fn reserve(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Reservation, Status> {
        let held: BTreeSet<String> = old.map(|old| self.holdings(old).keys.into_iter().collect()).unwrap_or_default();
        let wishes = self.wishes(service)?;
        let mut taken_meanwhile = BTreeSet::new();
        for _ in 0..MAX_ATTEMPTS {
            let mut chosen = service.clone();
            let reservation = self.choose(&mut chosen, &wishes, &held, &taken_meanwhile).await?;
            if dry_run || reservation.keys.is_empty() {
                *service = chosen;
                return Ok(Reservation { keys: if dry_run { Vec::new() } else { reservation.keys }, ..reservation });
            }
            match self.store.commit(self.claim(&chosen, &reservation)).await.map_err(unavailable)? {
                TxnResponse::Committed { .. } => {
                    *service = chosen;
                    return Ok(reservation);
                }
                TxnResponse::Conflict { current, .. } => {
                    taken_meanwhile.extend(current.into_iter().flatten().map(|taken| taken.key.to_string()))
                }
            }
        }
        Err(Status::internal_error("failed to allocate a serviceIP: too many conflicts"))
    }

    /// What the Service asks for. Numbers that are no numbers are left to validation.
    fn wishes(&self, service: &Value) -> Result<Vec<Wish>, Status> {
        let mut wishes = Vec::new();
        if needs_cluster_ip(service) && !is_headless(service) {
            match address_of(service) {
                None => wishes.push(Wish { what: What::Address, number: 0 }),
                Some(ip) => {
                    if let Ok(ip) = ip.parse::<Ipv4Addr>() {
                        self.check_address(service, ip)?;
                        wishes.push(Wish { what: What::Address, number: ip.into() });
                    }
                }
            }
        }
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        for (index, port) in ports.enumerate() {
            let number = number_at(&port["nodePort"]);
            if number != 0 || needs_node_ports(service) {
                wishes.push(Wish { what: What::Port(index), number });
            }
        }
        if needs_health_check_port(service) {
            wishes
                .push(Wish { what: What::HealthCheckPort, number: number_at(&service["spec"]["healthCheckNodePort"]) });
        }
        Ok(wishes)
    }

    fn check_address(&self, service: &Value, ip: Ipv4Addr) -> Result<(), Status> {
        let number = u32::from(ip);
        if self.addresses.contains(number) {
            return Ok(());
        }
        // The two ends of the network are in it, but are nobody's.
        let edge = number.wrapping_add(1) == self.addresses.first || number == self.addresses.last + 1;
        let why = if edge {
            format!("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}", self.addresses)
        } else {
            "the provided network does not match the current range".to_owned()
        };
        Err(address_error(service, ip, &why))
    }

    async fn choose(
        &self,
        service: &mut Value,
        wishes: &[Wish],
        held: &BTreeSet<String>,
        taken: &BTreeSet<String>,
    ) -> Result<Reservation, Status> {
        let mut reservation = Reservation { owner: owner(service), keys: Vec::new() };
        // One number serves all protocols of the same port.
        let mut by_port: Vec<(Value, u32)> = Vec::new();
        for wish in wishes {
            let shared = if let What::Port(index) = wish.what { self.shared_port(service, index, &by_port) } else { 0 };
            let number = if wish.number != 0 { wish.number } else { shared };
            let key = |number| {
                if wish.what == What::Address { address_key(number) } else { port_key(number) }
            };
            let number = match number {
                0 => self.free(wish.what, taken, &reservation.keys).await?,
                number => {
                    let ours = held.contains(&key(number)) || reservation.keys.contains(&key(number));
                    if !ours {
                        self.check_requested(service, wish.what, number, taken).await?;
                    }
                    number
                }
            };
            match wish.what {
                What::Address => {
                    let ip = Ipv4Addr::from(number).to_string();
                    service["spec"]["clusterIP"] = json!(ip);
                    service["spec"]["clusterIPs"] = json!([ip]);
                }
                What::Port(index) => {
                    service["spec"]["ports"][index]["nodePort"] = json!(number);
                    by_port.push((service["spec"]["ports"][index]["port"].clone(), number));
                }
                What::HealthCheckPort => service["spec"]["healthCheckNodePort"] = json!(number),
            }
            if !held.contains(&key(number)) && !reservation.keys.contains(&key(number)) {
                reservation.keys.push(key(number));
            }
        }
        Ok(reservation)
    }

    /// The node port that another entry with the same port has or asks for.
    fn shared_port(&self, service: &Value, index: usize, by_port: &[(Value, u32)]) -> u32 {
        let ports = &service["spec"]["ports"];
        let port = &ports[index]["port"];
        let earlier = by_port.iter().find(|(own, _)| own == port).map(|(_, number)| *number);
        let later = || {
            ports
                .as_array()
                .into_iter()
                .flatten()
                .filter(|other| other["port"] == *port)
                .map(|other| number_at(&other["nodePort"]))
                .find(|number| *number != 0)
        };
        earlier.or_else(later).unwrap_or_default()
    }

    async fn is_taken(&self, what: What, number: u32) -> Result<bool, Status> {
        if what == What::Address {
            let addresses = GroupResource::new("networking.k8s.io", "ipaddresses");
            return Ok(self.objects.get(&addresses, "", &Ipv4Addr::from(number).to_string()).is_some());
        }
        Ok(self.store.get(&port_key(number)).await.map_err(unavailable)?.is_some())
    }

    async fn free(&self, what: What, taken: &BTreeSet<String>, chosen: &[String]) -> Result<u32, Status> {
        let (range, key): (_, fn(u32) -> String) =
            if what == What::Address { (&self.addresses, address_key) } else { (&self.ports, port_key) };
        for number in range.candidates(self.random.below(u64::MAX)) {
            let key = key(number);
            if !taken.contains(&key) && !chosen.contains(&key) && !self.is_taken(what, number).await? {
                return Ok(number);
            }
        }
        let what = if what == What::Address { "serviceIP" } else { "nodePort" };
        Err(Status::internal_error(format!("failed to allocate a {what}: range is full")))
    }

    async fn check_requested(
        &self,
        service: &Value,
        what: What,
        number: u32,
        taken: &BTreeSet<String>,
    ) -> Result<(), Status> {
        let spec = FieldPath::new("spec");
        let path = match what {
            What::Address => {
                let found = taken.contains(&address_key(number)) || self.is_taken(what, number).await?;
                return if found {
                    Err(address_error(service, Ipv4Addr::from(number), "provided IP is already allocated"))
                } else {
                    Ok(())
                };
            }
            What::Port(index) => spec.child("ports").index(index).child("nodePort"),
            What::HealthCheckPort => spec.child("healthCheckNodePort"),
        };
        let why = if !self.ports.contains(number) {
            format!("provided port is not in the valid range. The range of valid ports is {}", self.ports)
        } else if taken.contains(&port_key(number)) || self.is_taken(what, number).await? {
            "provided port is already allocated".to_owned()
        } else {
            return Ok(());
        };
        Err(invalid(service, FieldError::invalid(&path, number, why)))
    }

    /// All keys come into being together, or none does.
    fn claim(&self, service: &Value, reservation: &Reservation) -> Txn {
        let keys = || reservation.keys.iter().map(|key| Arc::<str>::from(key.as_str()));
        Txn {
            conditions: keys().map(|key| Condition::Absent { key }).collect(),
            operations: keys()
                .map(|key| {
                    let value = match key.strip_prefix(ADDRESSES_PREFIX) {
                        Some(ip) => self.address_object(ip, service),
                        None => Bytes::from(reservation.owner.clone()),
                    };
                    Operation::Put { key, value, lease: None }
                })
                .collect(),
        }
    }

    /// The IPAddress by which an IP is taken (`pkg/registry/core/service/ipallocator/ipallocator.go`).
    fn address_object(&self, ip: &str, service: &Value) -> Bytes {
        let object = json!({
            "metadata": {
                "name": ip,
                "uid": self.random.uuid(),
                "creationTimestamp": self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "generation": 1,
                "labels": { "ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io" },
            },
            "spec": { "parentRef": {
                "group": "", "resource": "services", "namespace": service["metadata"]["namespace"], "name": service["metadata"]["name"],
            } },
        });
        let kind = self.kinds.by_resource("networking.k8s.io", "v1", "ipaddresses");
        object::encode(kind.expect("IPAddress is a built-in kind"), &object)
    }

    /// Gives back what a Service holds. What it does not hold (any more) stays; what cannot be given back now is found by
    /// [`ServiceAllocators::repair`].
    pub(super) async fn release(&self, reservation: &Reservation) {
        for key in &reservation.keys {
            if let Err(error) = self.release_key(key, &reservation.owner).await {
                tracing::warn!(key, %error, "an allocation could not be released");
            }
        }
    }

    async fn release_key(&self, key: &str, owner: &str) -> store::Result<()> {
        match self.store.get(key).await? {
            Some(held) if holder(&held) == owner => {
                self.store.commit(Txn::delete(key, held.mod_revision)).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Makes allocations and Services agree, once at start: gives back what no Service has, takes what Services have.
    pub async fn repair(&self) -> store::Result<()> {
        let services: Vec<Value> = self
            .objects
            .list(&GroupResource::new("", "services"), None)
            .iter()
            .map(|service| service.value())
            .collect();
        let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
        for service in &services {
            let held = self.holdings(service);
            wanted.extend(held.keys.into_iter().map(|key| (key, held.owner.clone())));
        }
        for prefix in [ADDRESSES_PREFIX, PORTS_PREFIX] {
            for held in self.store.range(store::Range::prefix(prefix)).await?.key_values {
                let known = wanted.remove(&(held.key.to_string(), holder(&held)));
                if !known {
                    self.store.commit(Txn::delete(Arc::clone(&held.key), held.mod_revision)).await?;
                }
            }
        }
        for service in &services {
            let held = self.holdings(service);
            let keys =
                held.keys.into_iter().filter(|key| wanted.contains(&(key.clone(), held.owner.clone()))).collect();
            let missing = Reservation { keys, owner: held.owner };
            if !missing.keys.is_empty() {
                self.store.commit(self.claim(service, &missing)).await?;
            }
        }
        Ok(())
    }
}

/// `namespace/name` of the Service that a key is reserved for.
fn holder(held: &KeyValue) -> String {
    if !held.key.starts_with(ADDRESSES_PREFIX) {
        return String::from_utf8_lossy(&held.value).into_owned();
    }
    let address: Value = serde_json::from_slice(&held.value).unwrap_or_default();
    let text = |field: &str| address["spec"]["parentRef"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

fn unavailable(error: store::Error) -> Status {
    Status::internal_error(error)
}

fn invalid(service: &Value, error: FieldError) -> Status {
    Status::invalid(
        &GroupKind::new("", "Service"),
        service["metadata"]["name"].as_str().unwrap_or_default(),
        vec![error],
    )
}

fn address_error(service: &Value, ip: Ipv4Addr, why: &str) -> Status {
    let asked = service["spec"]["clusterIPs"].clone();
    invalid(
        service,
        FieldError::invalid(
            &FieldPath::new("spec").child("clusterIPs"),
            asked,
            format!("failed to allocate IP {ip}: {why}"),
        ),
    )
}
