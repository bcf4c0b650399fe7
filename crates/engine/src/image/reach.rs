//! Where a pull may connect to when the person who asked for it has no rights on this host. Without it every holder of an
//! API key could send root's requests to the host's own services, its metadata address or its sandboxes.
//! Knows addresses; which registries the operator trusts anyway stands in `registries`.

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

/// Amazon's metadata service.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// Addresses that belong to no host, to see whether one may be bound nevertheless.
const NOBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// Refuses this host's own addresses, link-local and metadata addresses, and the networks it was made with.
#[derive(Clone, Debug)]
pub struct Reach {
    forbidden: Vec<(Ipv4Addr, u8)>,
}

impl Reach {
    pub fn new(forbidden: impl IntoIterator<Item = (Ipv4Addr, u8)>) -> Self {
        Self { forbidden: forbidden.into_iter().collect() }
    }

    pub fn allows(&self, address: IpAddr) -> bool {
        let allowed = match address {
            IpAddr::V4(v4) => self.allows_v4(v4),
            IpAddr::V6(v6) => allows_v6(v6) && embedded(v6).is_none_or(|v4| self.allows_v4(v4)),
        };
        allowed && !is_of_this_host(address)
    }

    fn allows_v4(&self, address: Ipv4Addr) -> bool {
        let within = |(network, bits): &(Ipv4Addr, u8)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(*bits)).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        };
        let special = address.is_unspecified() || address.is_loopback() || address.is_link_local();
        !special && !address.is_multicast() && !address.is_broadcast() && !self.forbidden.iter().any(within)
    }

    /// Whether a URL may be asked as far as its text tells: names are looked at when they are resolved.
    pub fn allows_text_of(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']').parse().map_or(true, |address| self.allows(address))
    }

    /// Looks before anything is sent, so that the refusal can be told apart from an outage. What cannot be resolved is not
    /// refused here: behind a proxy only the proxy resolves names.
    pub async fn allows_host(&self, host: &str) -> bool {
        let Ok(url) = Url::parse(&format!("https://{host}/")) else { return false };
        let (Some(name), port) = (url.host_str(), url.port_or_known_default().unwrap_or_default()) else {
            return false;
        };
        let found = tokio::net::lookup_host((name, port)).await;
        self.allows_text_of(&url) && found.map_or(true, |mut all| all.all(|found| self.allows(found.ip())))
    }
}

/// The client connects only to what this answers, so a name that changes its address in between does not help.
#[derive(Clone, Debug)]
pub struct Resolver(pub Arc<Reach>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if !found.iter().all(|found| reach.allows(found.ip())) {
                return Err(io::Error::other("it is on this host or its own networks").into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn allows_v6(address: Ipv6Addr) -> bool {
    let special = address.is_unspecified() || address.is_loopback() || address.is_unicast_link_local();
    !special && !address.is_multicast() && address != METADATA_V6
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, NAT64, 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    match address.segments() {
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(Ipv4Addr::from_bits(bits as u32)),
        _ => None,
    }
}

/// Only own addresses can be bound, unless the host allows to bind any: then this says nothing.
fn is_of_this_host(address: IpAddr) -> bool {
    let binds = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
    let nobody = if address.is_ipv4() { NOBODY[0] } else { NOBODY[1] };
    binds(address) && !binds(nobody)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach() -> Reach {
        Reach::new([(Ipv4Addr::new(10, 213, 0, 0), 16), (Ipv4Addr::new(100, 100, 100, 200), 32)])
    }

    #[test]
    fn own_and_special_addresses_are_refused_in_every_spelling() {
        for refused in [
            "127.0.0.1:5000",
            "127.9.9.9",
            "127.1",
            "0x7f000001",
            "2130706433:80",
            "0.0.0.0",
            "169.254.169.254",
            "100.100.100.200",
            "10.213.4.5:80",
            "224.0.0.1",
            "255.255.255.255",
            "localhost:22",
            "[::1]:5000",
            "[::]",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:7f00:1::]",
            "[fd00:ec2::254]",
            "[ff02::1]",
        ] {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            assert!(!runtime.block_on(reach().allows_host(refused)), "{refused}");
        }
    }

    #[test]
    fn others_are_not() {
        for allowed in ["10.214.0.1", "192.0.2.7", "100.100.100.201", "2001:db8::7", "2606:4700::1", "64:ff9b::808:808"]
        {
            assert!(reach().allows(allowed.parse().unwrap()), "{allowed}");
        }
        assert!(!Reach::new([(Ipv4Addr::UNSPECIFIED, 0)]).allows("8.8.8.8".parse().unwrap()), "a mask of no bits");
    }

    #[test]
    fn addresses_of_links_are_this_hosts() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // Sends nothing: it only asks the routing table.
        if socket.connect("192.0.2.1:9").is_ok() {
            assert!(!reach().allows(socket.local_addr().unwrap().ip()));
        }
    }
}
