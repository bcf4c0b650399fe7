//! Which name servers sandboxes use: the configured ones, else the host's, without those only the host itself can reach.
//! Sandboxes have no IPv6, so only IPv4 servers count.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

const HOST_FILE: &str = "/etc/resolv.conf";
/// What systemd-resolved's stub listener on 127.0.0.53 asks itself.
const SYSTEMD_UPSTREAM_FILE: &str = "/run/systemd/resolve/resolv.conf";
const PUBLIC_SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(8, 8, 8, 8)];
/// glibc looks at no more.
const SERVERS_MAX: usize = 3;
const FILE_BYTES_MAX: usize = 64 << 10;

/// The resolver configuration of every sandbox of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolvers {
    pub servers: Vec<Ipv4Addr>,
    /// `search` and `options` lines of the host.
    pub extra: Vec<String>,
}

impl Resolvers {
    pub fn of_host(configured: Option<&[IpAddr]>) -> Self {
        let read = |path| fs::read_to_string(path).ok().filter(|t| t.len() <= FILE_BYTES_MAX).unwrap_or_default();
        choose(configured, &read(HOST_FILE), &read(SYSTEMD_UPSTREAM_FILE))
    }

    /// Contents of a sandbox's `/etc/resolv.conf`.
    pub fn file(&self) -> String {
        let servers = self.servers.iter().map(|s| format!("nameserver {s}\n"));
        servers.chain(self.extra.iter().map(|line| format!("{line}\n"))).collect()
    }
}

fn choose(configured: Option<&[IpAddr]>, host: &str, upstream: &str) -> Resolvers {
    let host = parse(host);
    if let Some(configured) = configured {
        let servers = configured.iter().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
        return Resolvers { servers: servers.take(SERVERS_MAX).collect(), extra: host.extra };
    }
    [host.clone(), parse(upstream)]
        .into_iter()
        .find(|r| !r.servers.is_empty())
        .unwrap_or(Resolvers { servers: PUBLIC_SERVERS.to_vec(), extra: host.extra })
}

/// Servers a sandbox can reach, and the lines worth keeping.
fn parse(file: &str) -> Resolvers {
    let mut found = Resolvers::default();
    for line in file.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("nameserver"), Some(server)) => {
                let server = server.parse::<Ipv4Addr>().ok();
                found.servers.extend(server.filter(|s| !s.is_loopback() && !s.is_unspecified()));
            }
            (Some("search" | "options"), Some(_)) => found.extra.push(line.to_owned()),
            _ => {}
        }
    }
    found.servers.truncate(SERVERS_MAX);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUB: &str = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n";

    #[test]
    fn the_hosts_own_servers_are_used() {
        let chosen = choose(None, "# x\nnameserver 10.255.255.53\nnameserver fe80::1%eth0\nnameserver ::1\n", "");
        assert_eq!(chosen.file(), "nameserver 10.255.255.53\n");
    }

    #[test]
    fn loopback_stubs_are_replaced_by_their_upstream_else_by_public_servers() {
        assert_eq!(choose(None, STUB, "nameserver 192.168.1.1\nsearch lan\n").servers, [Ipv4Addr::new(192, 168, 1, 1)]);
        let public = choose(None, STUB, "nameserver 127.0.0.1\n");
        assert_eq!(public.servers, PUBLIC_SERVERS);
        assert!(public.file().contains("search lan\n"));
    }

    #[test]
    fn configured_servers_win() {
        let wanted = ["9.9.9.9".parse().unwrap(), "2620:fe::fe".parse().unwrap()];
        assert_eq!(choose(Some(&wanted), STUB, "").servers, [Ipv4Addr::new(9, 9, 9, 9)]);
    }
}
