//! The packet rules of one server, as one nf_tables table. Everything a sandbox may and may not reach stands here.
//!
//! A packet *from* a sandbox must come from its own link with its own address; it may answer connections others opened to
//! it, ask the resolvers, and go out by a link that carries a default route. It never reaches the host, another sandbox (of
//! any server here), link-local and metadata addresses, containers and virtual machines on private bridges, or IPv6.
//! It begins connections at a bounded rate and keeps a bounded number of them, for the host's table of connections is one.
//! A packet *to* a sandbox must belong to a connection that is already known. The host itself may open connections.
//!
//! Chains and fixed sets are replaced whole in one transaction; the sets `slots` and `egress` hold the live sandboxes and
//! survive a restart of the server.

use super::{
    error::NetError,
    nft::{self, Change, Expr, Family, Hook},
    resolver::Resolvers,
    subnet::{Subnet, merge},
};
use infield_sys::netlink::Socket;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// Every server's sandbox links start with this; the rest of the name tells the server.
pub const LINK_PREFIX: &str = "if";

/// Filters before any address translation, so that a port the host publishes by rewriting is still the host's.
const PREROUTING: Hook = Hook { kind: "filter", number: 0, priority: -150 };
const INPUT: Hook = Hook { kind: "filter", number: 1, priority: -10 };
const FORWARD: Hook = Hook { kind: "filter", number: nft::HOOK_FORWARD, priority: -10 };
const POSTROUTING: Hook = Hook { kind: "nat", number: 4, priority: 100 };

const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS_PORT: u16 = 53;

/// Connections of one sandbox: a share of the table that all of the host's connections need (262,144 entries on most).
const FLOWS_MAX: u32 = 8_192;
/// Ended connections stay in the table for minutes without counting as open, so beginning them is bounded too.
const FLOWS_PER_SECOND_MAX: u64 = 1_000;
const FLOWS_BURST_MAX: u32 = 4_000;
/// The same for every subnet: a set cannot change its size.
const METER_ADDRESSES_MAX: u32 = 65_536;

/// Never reachable, wherever the host's routes point.
pub const DENIED: [(Ipv4Addr, u8); 7] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16), // link-local; 169.254.169.254 is most clouds' metadata
    (Ipv4Addr::new(100, 100, 100, 200), 32), // Alibaba Cloud metadata
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's host agent
    (Ipv4Addr::new(192, 0, 0, 192), 32), // Oracle Cloud's older metadata
    (Ipv4Addr::new(224, 0, 0, 0), 3),    // multicast, reserved, broadcast
];

/// What one table is made from.
#[derive(Debug)]
pub struct RuleSet<'a> {
    pub table: &'a str,
    /// `if<tag>v`
    pub link_prefix: &'a str,
    pub subnet: Subnet,
    pub resolvers: &'a Resolvers,
    pub uplinks: &'a BTreeSet<String>,
    /// Plugged slots; true = blocked.
    pub slots: &'a BTreeMap<u32, bool>,
}

type Chain = (&'static str, Option<Hook>, Vec<Vec<Expr>>);

impl RuleSet<'_> {
    /// Makes the table or replaces what it holds, in one step.
    pub fn install(&self, socket: &mut Socket) -> Result<(), NetError> {
        let mut change = Change::new(Family::Inet, self.table);
        change.add_table();
        change.add_set("slots", 0, nft::TYPE_IFNAME_ADDRESS, nft::IFNAME_BYTES + 4);
        change.add_set("egress", 0, nft::TYPE_IFNAME_ADDRESS, nft::IFNAME_BYTES + 4);
        change.add_set("resolvers", 0, nft::TYPE_ADDRESS, 4);
        change.add_set("uplinks", 0, nft::TYPE_IFNAME, nft::IFNAME_BYTES);
        change.add_set("denied", nft::SET_INTERVAL, nft::TYPE_ADDRESS, 4);
        // Not emptied below: a restart of the server is no new allowance.
        for meter in ["flow_rates", "flows"] {
            change.add_meter(meter, METER_ADDRESSES_MAX);
        }
        for set in ["slots", "egress", "resolvers", "uplinks", "denied"] {
            change.flush_set(set);
        }
        let denied: Vec<_> = DENIED.into_iter().chain([self.subnet.pair()]).collect();
        change.add_ranges("denied", &merge(&denied));
        change
            .add_elements("resolvers", &self.resolvers.servers.iter().map(|s| s.octets().to_vec()).collect::<Vec<_>>());
        change.add_elements("uplinks", &self.uplinks.iter().map(|l| ifname_key(l)).collect::<Vec<_>>());
        change.add_elements("slots", &self.slots.keys().map(|s| self.slot_key(*s)).collect::<Vec<_>>());
        let open = self.slots.iter().filter(|(_, blocked)| !**blocked);
        change.add_elements("egress", &open.map(|(s, _)| self.slot_key(*s)).collect::<Vec<_>>());
        let chains = self.chains();
        for (name, hook, _) in &chains {
            change.add_chain(name, *hook);
        }
        change.flush_rules();
        for (name, _, rules) in &chains {
            rules.iter().for_each(|rule| change.add_rule(name, rule));
        }
        change.commit(socket).map_err(NetError::kernel(format!("install the nftables table inet {}", self.table)))
    }

    pub fn rule_count(&self) -> usize {
        self.chains().iter().map(|(_, _, rules)| rules.len()).sum()
    }

    pub fn slot_key(&self, slot: u32) -> Vec<u8> {
        slot_key(self.link_prefix, self.subnet, slot)
    }

    fn chains(&self) -> Vec<Chain> {
        use Expr::{Drop, Established, IifPrefix, Jump, Masquerade, OifNotPrefix, OifPrefix, SourceWithin};
        let own = || self.link_prefix.to_owned();
        let any = || LINK_PREFIX.to_owned();
        vec![
            ("prerouting", Some(PREROUTING), vec![vec![IifPrefix(own()), Jump("from_sandbox")]]),
            ("input", Some(INPUT), vec![vec![IifPrefix(own()), Jump("to_host")]]),
            (
                "forward",
                Some(FORWARD),
                vec![
                    vec![IifPrefix(own()), Jump("outward")],
                    vec![OifPrefix(own()), Established, Expr::Accept],
                    vec![OifPrefix(own()), Drop],
                ],
            ),
            (
                "postrouting",
                Some(POSTROUTING),
                vec![vec![SourceWithin(self.subnet.network, self.subnet.mask()), OifNotPrefix(any()), Masquerade]],
            ),
            ("from_sandbox", None, from_sandbox()),
            ("to_host", None, to_host()),
            ("outward", None, outward()),
        ]
    }
}

type Rules = Vec<Vec<Expr>>;

/// Name servers stay reachable where everything else near the host is not.
fn resolvers(protocol: u8) -> Vec<Expr> {
    vec![Expr::DestinationIn("resolvers"), Expr::Port(protocol, DNS_PORT), Expr::Accept]
}

/// What every packet of a sandbox meets first: spoofing, the bounds on connections, forbidden destinations.
fn from_sandbox() -> Rules {
    use Expr::{
        Accept, DestinationIn, DestinationNotUnicast, Drop, Established, FlowRateOver, FlowsOver, NotIpv4,
        ReplyDirection, SourceNotIn, Unconfirmed,
    };
    let rate_over = FlowRateOver { meter: "flow_rates", per_second: FLOWS_PER_SECOND_MAX, burst: FLOWS_BURST_MAX };
    vec![
        vec![NotIpv4, Drop],
        vec![SourceNotIn("slots"), Drop],
        vec![Established, ReplyDirection, Accept],
        vec![SourceNotIn("egress"), Drop],
        vec![Unconfirmed, rate_over, Drop],
        vec![Unconfirmed, FlowsOver { meter: "flows", count: FLOWS_MAX }, Drop],
        resolvers(UDP),
        resolvers(TCP),
        vec![DestinationIn("denied"), Drop],
        vec![DestinationNotUnicast, Drop],
    ]
}

/// From a sandbox to an address of this host: answers and name servers, nothing else.
fn to_host() -> Rules {
    use Expr::{Accept, Drop, Established, NotIpv4, ReplyDirection, SourceNotIn};
    vec![
        vec![NotIpv4, Drop],
        vec![SourceNotIn("slots"), Drop],
        vec![Established, ReplyDirection, Accept],
        vec![SourceNotIn("egress"), Drop],
        resolvers(UDP),
        resolvers(TCP),
        vec![Drop],
    ]
}

/// From a sandbox through this host: out by a link with a default route, never to another sandbox.
fn outward() -> Rules {
    use Expr::{Accept, DestinationRewritten, Drop, NotIpv4, OifNotIn, OifPrefix, SourceNotIn};
    vec![
        vec![NotIpv4, Drop],
        vec![SourceNotIn("slots"), Drop],
        vec![OifPrefix(LINK_PREFIX.to_owned()), Drop],
        vec![SourceNotIn("egress"), Drop],
        resolvers(UDP),
        resolvers(TCP),
        vec![DestinationRewritten, Drop],
        vec![OifNotIn("uplinks"), Drop],
        vec![Accept],
    ]
}

/// A link name as sets hold it.
pub fn ifname_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(nft::IFNAME_BYTES, 0);
    key
}

/// (link name, address) as sets hold it.
pub fn slot_key(link_prefix: &str, subnet: Subnet, slot: u32) -> Vec<u8> {
    let mut key = ifname_key(&format!("{link_prefix}{slot}"));
    key.extend_from_slice(&subnet.address(slot).octets());
    key
}

/// The slots whose keys a set of the kernel holds.
pub fn slots_in(socket: &mut Socket, table: &str, link_prefix: &str, set: &str) -> Result<BTreeSet<u32>, NetError> {
    let keys = nft::elements_of(socket, Family::Inet, table, set)
        .map_err(NetError::kernel(format!("read the set {set} of table inet {table}")))?;
    Ok(keys.iter().filter_map(|key| slot_of(link_prefix, key.get(..nft::IFNAME_BYTES)?)).collect())
}

fn slot_of(link_prefix: &str, name: &[u8]) -> Option<u32> {
    super::slot_of_link(link_prefix, &infield_sys::netlink::text(name))
}
