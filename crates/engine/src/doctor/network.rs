//! Packet rules, links, addresses, ports, and the company of other firewalls.

use super::{Check, DoctorConfig, chain, fail, ok, warn};
use crate::net::{self, Neighbours, Net, NetConfig, NetError};
use infield_sys::netlink::{new_netns, with_netns};
use std::{fs, io, net::TcpListener, os::fd::AsFd};

/// The trial uses a subnet of its own in a namespace of its own.
const TRIAL: NetConfig =
    NetConfig { tag: String::new(), subnet: (std::net::Ipv4Addr::new(10, 200, 0, 0), 29), dns: None };

pub fn check(config: &DoctorConfig) -> Vec<Check> {
    let mut checks = vec![packet_rules(), subnet(config), forwarding(), port(config)];
    checks.extend(neighbours(config));
    checks
}

/// Really installs the rules and plugs a slot, in a fresh network namespace.
fn packet_rules() -> Check {
    const NAME: &str = "sandbox network";
    let remedy = "modprobe -a nf_tables nft_ct nft_masq nft_fib_inet veth, or a kernel that has them";
    match try_network() {
        Ok(()) => ok(NAME, "nftables and veth work"),
        Err(text) => fail(NAME, text, remedy),
    }
}

fn try_network() -> Result<(), String> {
    let namespace = || new_netns().map_err(|e| format!("no network namespace: {e}"));
    let (host, sandbox) = (namespace()?, namespace()?);
    let plugged = with_netns(host.as_fd(), || {
        let net = Net::open(&NetConfig { tag: "test".into(), ..TRIAL })?;
        net.plug(0, sandbox.as_fd())
    });
    plugged.map_err(|e| format!("no network namespace: {e}"))?.map_err(|e| chain(&e))
}

fn subnet(config: &DoctorConfig) -> Check {
    const NAME: &str = "subnet";
    match net::check_subnet(config.subnet) {
        Ok(slots) => ok(NAME, format!("{} is free, room for {slots} sandboxes", net::show(config.subnet))),
        Err(e @ NetError::SubnetTaken { .. }) => fail(NAME, e.to_string(), "choose another with --subnet"),
        Err(e) => fail(NAME, chain(&e), "choose a private one with --subnet"),
    }
}

fn forwarding() -> Check {
    const NAME: &str = "packet forwarding";
    match fs::read_to_string(net::IP_FORWARD) {
        Ok(text) if text.trim() == "1" => ok(NAME, "on"),
        Ok(_) => warn(
            NAME,
            "off; the server turns it on, which makes this host a router for all of its networks",
            "nothing, or decide it yourself: sysctl -w net.ipv4.ip_forward=1",
        ),
        Err(e) => fail(NAME, format!("{}: {e}", net::IP_FORWARD), "mount /proc/sys writable (not in a container)"),
    }
}

fn port(config: &DoctorConfig) -> Check {
    const NAME: &str = "port";
    match TcpListener::bind(config.listen) {
        Ok(_) => ok(NAME, format!("{} is free", config.listen)),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => warn(
            NAME,
            format!("something listens on {} (perhaps infield itself)", config.listen),
            "stop it, or choose another address with --listen",
        ),
        Err(e) => {
            fail(NAME, format!("cannot listen on {}: {e}", config.listen), "choose another address with --listen")
        }
    }
}

/// Others who drop forwarded packets.
fn neighbours(config: &DoctorConfig) -> Vec<Check> {
    const NAME: &str = "other firewalls";
    let found = match Neighbours::find() {
        Ok(found) => found,
        Err(e) => return vec![warn(NAME, chain(&e), "run as root")],
    };
    let mut checks = Vec::new();
    if let Some(chain) = &found.forward_chain {
        checks.push(ok("docker", format!("sandboxes are let through in chain {chain}, by the server itself")));
    }
    if found.legacy_iptables {
        checks.push(warn(
            "legacy iptables",
            "rules of the old kind are loaded; if their FORWARD chain drops, sandboxes have no network",
            "iptables-legacy -I FORWARD -i if+ -j ACCEPT && iptables-legacy -I FORWARD -o if+ -j ACCEPT",
        ));
    }
    if found.firewalld {
        let subnet = net::show(config.subnet);
        checks.push(warn(
            "firewalld",
            "rejects forwarded packets it does not know; sandboxes may have no network",
            format!("firewall-cmd --permanent --zone=trusted --add-source={subnet} && firewall-cmd --reload"),
        ));
    }
    if let Some((table, chain)) = found.closed.first() {
        checks.push(warn(
            "nftables",
            format!("chain {chain} of table {table} drops forwarded packets it does not know"),
            format!(
                "nft insert rule {table} {chain} iifname 'if*' accept && \
                 nft insert rule {table} {chain} oifname 'if*' accept, also in its configuration file"
            ),
        ));
    }
    if checks.is_empty() {
        checks.push(ok(NAME, "none that filters forwarded packets"));
    }
    checks
}
