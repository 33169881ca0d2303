//! Pod addresses of one node.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Hands out the addresses of the node's pod CIDR one after another, as the CNI plugin `host-local` does: an address that
/// was given back is used again only when the range has been passed through.
#[derive(Debug, Default)]
pub struct Ipam {
    state: Mutex<Option<Pool>>,
}

#[derive(Debug)]
struct Pool {
    network: u32,
    size: u32,
    last: u32,
    used: BTreeSet<u32>,
}

impl Ipam {
    /// Sets the range, such as `10.128.3.0/24`. Addresses in use stay in use.
    pub fn set_cidr(&self, cidr: &str) -> Result<(), String> {
        let invalid = || format!("{cidr:?} is no IPv4 CIDR of at least four addresses");
        let (address, bits) = cidr.split_once('/').ok_or_else(invalid)?;
        let address: Ipv4Addr = address.parse().map_err(|_| invalid())?;
        let bits: u32 = bits.parse().ok().filter(|bits| (1..=30).contains(bits)).ok_or_else(invalid)?;
        let size = 1u32 << (32 - bits);
        let network = u32::from(address) & !(size - 1);
        let mut state = self.state.lock();
        let used = state.take().filter(|pool| pool.network == network).map(|pool| pool.used).unwrap_or_default();
        // The first address is the network, the second the gateway, the last the broadcast.
        *state = Some(Pool { network, size, last: 1, used });
        Ok(())
    }

    /// The node's own address in the range; the unspecified one without a range.
    pub fn gateway(&self) -> IpAddr {
        let network = self.state.lock().as_ref().map(|pool| pool.network);
        IpAddr::V4(network.map_or(Ipv4Addr::UNSPECIFIED, |network| Ipv4Addr::from(network + 1)))
    }

    /// Whether there is a range.
    pub fn is_ready(&self) -> bool {
        self.state.lock().is_some()
    }

    /// The next free address.
    pub fn allocate(&self) -> Result<IpAddr, &'static str> {
        let mut state = self.state.lock();
        let pool = state.as_mut().ok_or("cni plugin not initialized")?;
        let hosts = pool.size - 3;
        let next = (1..=hosts)
            .map(|step| 2 + (pool.last + hosts - 2 + step) % hosts)
            .find(|host| !pool.used.contains(host))
            .ok_or("plugin type=\"host-local\" failed (add): no IP addresses available in range set")?;
        pool.last = next;
        pool.used.insert(next);
        Ok(IpAddr::V4(Ipv4Addr::from(pool.network + next)))
    }

    /// Gives an address back.
    pub fn release(&self, address: IpAddr) {
        if let (IpAddr::V4(address), Some(pool)) = (address, self.state.lock().as_mut()) {
            pool.used.remove(&u32::from(address).wrapping_sub(pool.network));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_reused_only_after_the_range_was_passed_through() {
        let ipam = Ipam::default();
        assert_eq!(ipam.allocate(), Err("cni plugin not initialized"));
        ipam.set_cidr("10.128.3.0/29").expect("a range");
        let take = || ipam.allocate().map(|ip| ip.to_string()).unwrap_or_else(str::to_string);
        assert_eq!((take(), take()), ("10.128.3.2".to_string(), "10.128.3.3".to_string()));
        ipam.release("10.128.3.2".parse().expect("an address"));
        assert_eq!((take(), take(), take()), ("10.128.3.4".into(), "10.128.3.5".into(), "10.128.3.6".into()));
        assert_eq!(take(), "10.128.3.2");
        assert!(take().ends_with("no IP addresses available in range set"));
        assert!(ipam.set_cidr("10.0.0.0/31").is_err());
    }
}
