//! Ranges of numbers: cluster IPs and node ports.

use std::{fmt, net::Ipv4Addr};

/// Numbers that can be allocated, in two bands: the lower one is left to those who ask for a number by name
/// (KEP-3070, KEP-3668), so that they rarely find it taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub(super) first: u32,
    pub(super) last: u32,
    /// The first number of the upper band.
    dynamic: u32,
    /// As messages show it.
    shown: String,
}

impl Range {
    /// The host addresses of a network: neither its own nor its broadcast address.
    pub fn of_network(network: Ipv4Addr, prefix_bits: u8) -> Range {
        let size = 1u64 << (32 - u32::from(prefix_bits).min(30));
        let size = u32::try_from(size - 2).unwrap_or(u32::MAX);
        let first = u32::from(network) + 1;
        let lower = (size / 16).clamp(16, 256).min(size / 2);
        Range { first, last: first + (size - 1), dynamic: first + lower, shown: format!("{network}/{prefix_bits}") }
    }

    /// A range of ports, both ends included.
    pub fn of_ports((first, last): (u16, u16)) -> Range {
        let size = u32::from(last.saturating_sub(first)) + 1;
        let lower = if size < 16 { 0 } else { (size / 32).clamp(16, 128).min(size / 2) };
        Range {
            first: first.into(),
            last: last.into(),
            dynamic: u32::from(first) + lower,
            shown: format!("{first}-{last}"),
        }
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        (self.first..=self.last).contains(&number)
    }

    /// All numbers in the order in which they are tried: the upper band from a random place on, then the lower.
    pub(super) fn candidates(&self, random: u64) -> impl Iterator<Item = u32> {
        let upper = u64::from(self.last - self.dynamic) + 1;
        let start = random % upper;
        let from_start = (0..upper).map(move |step| (start + step) % upper);
        let dynamic = self.dynamic;
        from_start
            .filter_map(move |offset| u32::try_from(offset).ok())
            .map(move |offset| dynamic + offset)
            .chain(self.first..self.dynamic)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}
