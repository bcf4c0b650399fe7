//! Arithmetic of the sandbox subnet: which address a slot has, and whether the host already uses the range.

use super::{NetError, error::show, link::Route};
use std::net::Ipv4Addr;

/// Private ranges to offer when the wanted one is taken.
const CANDIDATES: [(Ipv4Addr, u8); 6] = [
    (Ipv4Addr::new(10, 200, 0, 0), 16),
    (Ipv4Addr::new(10, 213, 0, 0), 16),
    (Ipv4Addr::new(10, 77, 0, 0), 16),
    (Ipv4Addr::new(172, 29, 0, 0), 16),
    (Ipv4Addr::new(172, 22, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 192, 0), 20),
];
const PREFIX_MIN: u8 = 8;
const PREFIX_MAX: u8 = 29;
/// Network address, an address no sandbox holds (people expect a gateway there), broadcast address.
const ADDRESSES_NOT_FOR_SLOTS: u32 = 3;
/// Routes this wide are default routes in disguise (VPNs split 0/0 into two halves).
pub const DEFAULT_ROUTE_PREFIX_MAX: u8 = 1;

/// A checked subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub network: u32,
    pub prefix: u8,
}

impl Subnet {
    pub fn new((address, prefix): (Ipv4Addr, u8)) -> Result<Self, NetError> {
        let wrong = |why: &str| NetError::Config(format!("--subnet {}: {why}", show((address, prefix))));
        if !(PREFIX_MIN..=PREFIX_MAX).contains(&prefix) {
            return Err(wrong("the prefix must be between /8 and /29"));
        }
        if !address.is_private() && !is_shared(address) {
            return Err(wrong("use a private range (10/8, 172.16/12, 192.168/16 or 100.64/10)"));
        }
        Ok(Self { network: u32::from(address) & mask(prefix), prefix })
    }

    pub fn pair(self) -> (Ipv4Addr, u8) {
        (self.network.into(), self.prefix)
    }
    pub fn mask(self) -> u32 {
        mask(self.prefix)
    }
    pub fn slots_max(self) -> u32 {
        !self.mask() + 1 - ADDRESSES_NOT_FOR_SLOTS
    }
    /// Address of a slot below `slots_max`.
    pub fn address(self, slot: u32) -> Ipv4Addr {
        (self.network | (slot.saturating_add(2) & !self.mask())).into()
    }
    pub fn overlaps(self, network: Ipv4Addr, prefix: u8) -> bool {
        let common = mask(prefix.min(self.prefix));
        (u32::from(network) & common) == (self.network & common)
    }
}

fn is_shared(address: Ipv4Addr) -> bool {
    u32::from(address) & mask(10) == u32::from(Ipv4Addr::new(100, 64, 0, 0))
}

pub fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// Fails when a route that is not `mine` overlaps; the error offers a range that is free.
pub fn check_free(subnet: Subnet, routes: &[Route], mine: impl Fn(&Route) -> bool) -> Result<(), NetError> {
    let Some(route) = first_overlap(subnet, routes, &mine) else { return Ok(()) };
    let suggestion = suggest(routes, &mine).map_or_else(|| "<a free private range>".to_owned(), |s| show(s.pair()));
    Err(NetError::SubnetTaken { subnet: show(subnet.pair()), route: show((route.network, route.prefix)), suggestion })
}

fn first_overlap(subnet: Subnet, routes: &[Route], mine: impl Fn(&Route) -> bool) -> Option<&Route> {
    routes.iter().find(|r| r.prefix > DEFAULT_ROUTE_PREFIX_MAX && subnet.overlaps(r.network, r.prefix) && !mine(r))
}

fn suggest(routes: &[Route], mine: impl Fn(&Route) -> bool) -> Option<Subnet> {
    let mut candidates = CANDIDATES.into_iter().filter_map(|c| Subnet::new(c).ok());
    candidates.find(|c| first_overlap(*c, routes, &mine).is_none())
}

/// Merges prefixes into the fewest ranges `[first, end)`; `None` as an end means "to the last address".
pub fn merge(prefixes: &[(Ipv4Addr, u8)]) -> Vec<(u32, Option<u32>)> {
    let mut ranges: Vec<(u64, u64)> = prefixes
        .iter()
        .map(|(network, prefix)| {
            let first = u64::from(u32::from(*network) & mask(*prefix));
            (first, first + (1u64 << (32 - u32::from(*prefix))))
        })
        .collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (first, end) in ranges {
        match merged.last_mut() {
            Some(last) if first <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((first, end)),
        }
    }
    merged.into_iter().map(|(first, end)| (first as u32, u32::try_from(end).ok())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(network: [u8; 4], prefix: u8) -> Route {
        Route { network: network.into(), prefix, unicast: true, ours: false, metric: 0, links: vec![1] }
    }

    #[test]
    fn slots_get_distinct_addresses_inside_the_subnet() {
        let subnet = Subnet::new(([10, 9, 8, 7].into(), 29)).unwrap();
        assert_eq!(subnet.pair(), ([10, 9, 8, 0].into(), 29));
        let addresses: Vec<_> = (0..subnet.slots_max()).map(|s| subnet.address(s)).collect();
        assert_eq!(addresses.first(), Some(&[10, 9, 8, 2].into()));
        assert_eq!(addresses.last(), Some(&[10, 9, 8, 6].into()));
        assert_eq!(addresses.len(), 5);
    }

    #[test]
    fn taken_subnets_name_the_flag_and_a_free_range() {
        let subnet = Subnet::new(([10, 200, 0, 0].into(), 16)).unwrap();
        for (network, prefix) in [([10, 200, 4, 0], 24), ([10, 0, 0, 0], 8), ([10, 200, 0, 9], 32)] {
            let text = check_free(subnet, &[route(network, prefix)], |_| false).unwrap_err().to_string();
            assert!(text.contains("--subnet"), "{text}");
            assert!(!text.contains("--subnet 10.200.0.0"), "{text}");
        }
        for (network, prefix) in [([0, 0, 0, 0], 0), ([0, 0, 0, 0], 1), ([10, 201, 0, 0], 16)] {
            check_free(subnet, &[route(network, prefix)], |_| false).unwrap();
        }
    }

    #[test]
    fn public_or_odd_subnets_are_refused() {
        assert!(Subnet::new(([8, 8, 8, 0].into(), 24)).is_err());
        assert!(Subnet::new(([10, 0, 0, 0].into(), 30)).is_err());
        assert!(Subnet::new(([10, 0, 0, 0].into(), 0)).is_err());
        assert!(Subnet::new(([100, 64, 0, 0].into(), 16)).is_ok());
    }

    #[test]
    fn ranges_merge() {
        let merged = merge(&[([10, 1, 0, 0].into(), 16), ([10, 0, 0, 0].into(), 16), ([10, 0, 3, 0].into(), 24)]);
        assert_eq!(merged, vec![(0x0a00_0000, Some(0x0a02_0000))]);
        assert_eq!(merge(&[([224, 0, 0, 0].into(), 3)]), vec![(0xe000_0000, None)]);
    }
}
