//! Cluster IPs and node ports of Services.
//!
//! ```text
//!  Service on its way in ─► families (which IPs it wants) ─► reserve ─► one transaction: IPAddress objects, port records
//!                                                                │ not there yet? then they are ours
//!                              committed ─► release what it no longer uses ◄──── Finish ────► release what was reserved
//! ```
//! What is allocated is in the store and nowhere else: an IP is the IPAddress object of its name, as in Kubernetes since
//! 1.33; a node port is a record under [`PORTS_PREFIX`] (Kubernetes has a bitmap). "Free" is the condition that the key is
//! absent, so two API servers cannot both get one. What a crash leaves reserved, [`ServiceAllocators::repair`] gives back.
//!
//! Mirrors `pkg/registry/core/service/storage/alloc.go` and `pkg/registry/core/service/{ipallocator,portallocator}`.

pub mod families;
mod range;
mod reserve;
#[cfg(test)]
mod tests;

pub use range::Range;
pub use reserve::PORTS_PREFIX;

use std::{net::Ipv4Addr, sync::Arc};

use async_trait::async_trait;
use minik8s_api::{kinds::Kinds, status::Status, strategy::carry_over_service};
use minik8s_clock::{Clock, Random};
use minik8s_store::Store;
use serde_json::Value;

use crate::{
    cache::Objects,
    registry::hooks::{Finish, Hook, nothing_to_finish},
};
use reserve::Reservation;

/// From which ranges Services get what they get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    /// The network of cluster IPs and the bits of its prefix.
    pub service_network: (Ipv4Addr, u8),
    /// First and last node port.
    pub node_ports: (u16, u16),
}

impl Default for Ranges {
    fn default() -> Ranges {
        Ranges { service_network: (Ipv4Addr::new(10, 96, 0, 0), 16), node_ports: (30000, 32767) }
    }
}

/// Allocates for Services around their writes: the [`Hook`] of `services`.
#[derive(Clone)]
pub struct ServiceAllocators {
    store: Arc<dyn Store>,
    objects: Arc<dyn Objects>,
    kinds: Arc<Kinds>,
    clock: Clock,
    random: Random,
    addresses: Range,
    ports: Range,
}

impl ServiceAllocators {
    /// Allocates from `ranges`.
    pub fn new(
        store: Arc<dyn Store>,
        objects: Arc<dyn Objects>,
        kinds: Arc<Kinds>,
        clock: Clock,
        random: Random,
        ranges: &Ranges,
    ) -> ServiceAllocators {
        let (network, bits) = ranges.service_network;
        let (addresses, ports) = (Range::of_network(network, bits), Range::of_ports(ranges.node_ports));
        ServiceAllocators { store, objects, kinds, clock, random, addresses, ports }
    }

    /// Reserves what `service` needs and does not have by `old`; fills it in.
    async fn begin(&self, service: &mut Value, old: Option<&Value>, dry_run: bool) -> Result<Finish, Status> {
        carry_over_service(service, old);
        families::set_families(service)?;
        let reserved = self.reserve(service, old, dry_run).await?;
        let held = old.map(|old| self.holdings(old)).unwrap_or_default();
        let kept = self.holdings(service);
        let dropped = Reservation {
            owner: reserved.owner.clone(),
            keys: held.keys.into_iter().filter(|key| !kept.keys.contains(key)).collect(),
        };
        if dry_run || (reserved.keys.is_empty() && dropped.keys.is_empty()) {
            return Ok(nothing_to_finish());
        }
        let own = self.clone();
        Ok(Box::new(move |committed| {
            Box::pin(async move {
                own.release(if committed { &dropped } else { &reserved }).await;
            })
        }))
    }
}

#[async_trait]
impl Hook for ServiceAllocators {
    async fn begin_create(&self, object: &mut Value, dry_run: bool) -> Result<Finish, Status> {
        self.begin(object, None, dry_run).await
    }

    async fn begin_update(&self, new: &mut Value, old: &Value, dry_run: bool) -> Result<Finish, Status> {
        self.begin(new, Some(old), dry_run).await
    }

    async fn after_delete(&self, object: &Value) {
        self.release(&self.holdings(object)).await;
    }
}
