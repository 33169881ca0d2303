//! ServiceCIDRs, the blocks that Services have their addresses from, are ready at once and go when no address of theirs is
//! left.
//!
//! Watches ServiceCIDRs and IPAddresses; writes a ServiceCIDR's finalizer and its condition `Ready`.
//! (Kubernetes: `pkg/controller/servicecidrs/servicecidrs_controller.go`.)

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use minik8s_client::{Client, Event, EventRecorder, EventType, Lister, WorkQueue, is_not_found, object_reference};
use serde_json::json;

use crate::manager::{Context, Reconciler};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGER: &str = "service-cidr-controller";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
const READY: &str = "Ready";
/// How long a block stays after it was deleted, so that every allocator has heard of it.
const GRACE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone)]
pub struct ServiceCidrController {
    client: Client,
    recorder: EventRecorder,
    cidrs: Lister<ServiceCIDR>,
    addresses: Lister<IPAddress>,
    queue: WorkQueue<String>,
}

impl ServiceCidrController {
    /// Asks for its informers.
    pub fn new(context: &Context) -> Self {
        let cidrs = context.informers.informer::<ServiceCIDR>();
        let addresses = context.informers.informer::<IPAddress>();
        let queue: WorkQueue<String> = WorkQueue::new(context.client.clock().clone());
        let (add, lister) = (queue.clone(), cidrs.lister());
        cidrs.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                add.add(event.object().metadata.name.clone().unwrap_or_default());
            }
            // A block may go once another one holds its addresses.
            for name in leaving(&lister) {
                add.add(name);
            }
        });
        let (add, lister) = (queue.clone(), cidrs.lister());
        addresses.on_event(move |event| {
            if matches!(event, Event::Deleted(_)) {
                for name in leaving(&lister) {
                    add.add(name);
                }
            }
        });
        Self {
            client: context.client.clone(),
            recorder: context.recorder(MANAGER),
            cidrs: cidrs.lister(),
            addresses: addresses.lister(),
            queue,
        }
    }

    /// Whether the addresses of a block are all in other blocks too.
    fn may_go(&self, cidr: &ServiceCIDR) -> bool {
        let (all, name) = (self.cidrs.list(), cidr.metadata.name.as_deref());
        let holders = |prefix: &Prefix| {
            let holds = |other: &ServiceCIDR| prefixes(other).any(|own| own.contains(prefix));
            let others = all.iter().filter(|other| other.metadata.name.as_deref() != name);
            others.filter(|other| holds(other)).count()
        };
        if prefixes(cidr).all(|prefix| holders(&prefix) > 0) {
            return true;
        }
        !self.addresses.list().iter().filter(|address| is_allocated(address)).any(|address| {
            let address = address.metadata.name.as_deref().and_then(|name| name.parse::<IpAddr>().ok());
            let address = address.map(Prefix::of_address);
            address.is_some_and(|address| prefixes(cidr).any(|own| own.contains(&address)) && holders(&address) == 0)
        })
    }

    async fn set_finalizer(&self, cidr: &ServiceCIDR, wanted: bool) -> Result<(), kube::Error> {
        let has = cidr.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        if has == wanted {
            return Ok(());
        }
        let name = cidr.metadata.name.as_deref().unwrap_or_default();
        let list = if wanted { "finalizers" } else { "$deleteFromPrimitiveList/finalizers" };
        let patch = Patch::Strategic(json!({ "metadata": { list: [FINALIZER] } }));
        match self.client.all::<ServiceCIDR>().patch(name, &PatchParams::default(), &patch).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn set_ready(&self, cidr: &ServiceCIDR, wanted: (&str, &str, &str)) -> Result<(), kube::Error> {
        let conditions = cidr.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let present = conditions.iter().find(|condition| condition.type_ == READY);
        if present.is_some_and(|present| said(present) == wanted) {
            return Ok(());
        }
        let (status, reason, message) = wanted;
        let name = cidr.metadata.name.as_deref().unwrap_or_default();
        let now = self.client.clock().now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition =
            json!({ "type": READY, "status": status, "reason": reason, "message": message, "lastTransitionTime": now });
        let body = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": name },
            "status": { "conditions": [condition] },
        });
        let parameters = PatchParams::apply(MANAGER).force();
        match self.client.all::<ServiceCIDR>().patch_status(name, &parameters, &Patch::Apply(body)).await {
            Err(error) if is_not_found(&error) => Ok(()),
            other => other.map(drop),
        }
    }
}

fn said(condition: &Condition) -> (&str, &str, &str) {
    (&condition.status, &condition.reason, &condition.message)
}

/// The names of the blocks that are being deleted.
fn leaving(cidrs: &Lister<ServiceCIDR>) -> Vec<String> {
    let all = cidrs.list();
    let leaving = all.iter().filter(|cidr| cidr.metadata.deletion_timestamp.is_some());
    leaving.map(|cidr| cidr.metadata.name.clone().unwrap_or_default()).collect()
}

/// Whether a Service got the address from an allocator.
fn is_allocated(address: &IPAddress) -> bool {
    let labels = address.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|manager| manager == ALLOCATOR)
}

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    v6: bool,
    /// The first address, from the highest bit on.
    bits: u128,
    length: u32,
}

impl Prefix {
    fn of_address(address: IpAddr) -> Prefix {
        match address {
            IpAddr::V4(address) => Prefix { v6: false, bits: u128::from(address.to_bits()) << 96, length: 32 },
            IpAddr::V6(address) => Prefix { v6: true, bits: address.to_bits(), length: 128 },
        }
    }

    fn parse(text: &str) -> Option<Prefix> {
        let (address, length) = text.split_once('/')?;
        let whole = Prefix::of_address(address.parse().ok()?);
        let length: u32 = length.parse().ok().filter(|length| *length <= whole.length)?;
        Some(Prefix { bits: whole.bits & mask(length), length, ..whole })
    }

    fn contains(&self, other: &Prefix) -> bool {
        self.v6 == other.v6 && self.length <= other.length && other.bits & mask(self.length) == self.bits
    }
}

fn mask(length: u32) -> u128 {
    u128::MAX.checked_shl(128 - length).unwrap_or(0)
}

fn prefixes(cidr: &ServiceCIDR) -> impl Iterator<Item = Prefix> {
    let texts = cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|text| Prefix::parse(text))
}

impl Reconciler for ServiceCidrController {
    const NAME: &'static str = "servicecidrs";
    const WORKERS: usize = 5;

    fn queue(&self) -> &WorkQueue<String> {
        &self.queue
    }

    async fn sync(&self, name: String) -> Result<(), kube::Error> {
        let Some(cidr) = self.cidrs.get("", &name) else { return Ok(()) };
        if let Some(deleted) = &cidr.metadata.deletion_timestamp {
            if !self.may_go(&cidr) {
                let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a \
                               new ServiceCIDR";
                return self.set_ready(&cidr, ("False", "Terminating", message)).await;
            }
            let been = Duration::try_from(self.client.clock().now().duration_since(deleted.0)).unwrap_or_default();
            let left = GRACE.saturating_sub(been);
            if !left.is_zero() {
                self.queue.add_after(name, left);
                return Ok(());
            }
            return self.set_finalizer(&cidr, false).await;
        }
        self.set_finalizer(&cidr, true).await?;
        let ready = self.set_ready(&cidr, ("True", "", "Kubernetes Service CIDR is ready")).await;
        if ready.is_err() {
            let words = "The ServiceCIDR Status can not be set to Ready=True";
            self.recorder.event(&object_reference(&*cidr), EventType::Warning, "KubernetesServiceCIDRError", words);
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_blocks_and_addresses() {
        let prefix = |text: &str| Prefix::parse(text).expect("a block");
        for (outer, inner, expect) in [
            ("10.96.0.0/12", "10.97.0.0/16", true),
            ("10.96.0.0/16", "10.96.0.0/12", false),
            ("10.96.0.0/16", "10.96.0.0/16", true),
            ("0.0.0.0/0", "10.0.0.1/32", true),
            ("fd00::/8", "fd00:1::/64", true),
            ("::/0", "10.0.0.0/8", false),
        ] {
            assert_eq!(prefix(outer).contains(&prefix(inner)), expect, "{outer} {inner}");
        }
        assert!(prefix("10.96.0.0/12").contains(&Prefix::of_address("10.111.255.255".parse().expect("an address"))));
        assert_eq!(Prefix::parse("10.0.0.0/33"), None);
        assert_eq!(Prefix::parse("x"), None);
    }
}
