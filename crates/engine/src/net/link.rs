//! The words of rtnetlink that sandboxes need: links, addresses, routes, neighbours. Knows no policy and no rules.

use infield_sys::netlink::{ACK, Batch, CREATE, DUMP, EXCL, Message, NetlinkError, REPLACE, Socket, text};
use std::{collections::HashMap, net::Ipv4Addr, os::fd::RawFd};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const IFINFO_BYTES: usize = 16;
const RTMSG_BYTES: usize = 12;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IFF_NOARP: u32 = 0x80;
const NUD_PERMANENT: u16 = 0x80;
const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTNH_F_ONLINK: u32 = 4;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
/// Marks our own routes in `ip route` as `proto 73`.
const ROUTE_PROTOCOL: u8 = 73;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

pub type Mac = [u8; 6];

fn ifinfo(index: i32, flags: u32) -> [u8; IFINFO_BYTES] {
    let mut header = [0; IFINFO_BYTES];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// A veth whose host end is up and mute to ARP (a sandbox learns nothing of the host's addresses) and whose peer is born inside `netns`. The peer stays down: raising it in the same message
/// makes the kernel refuse, and moving it later costs 30 ms.
pub fn add_veth(batch: &mut Batch, name: &str, mac: Mac, peer: (&str, Mac), netns: RawFd) {
    batch.message("create veth", RTM_NEWLINK, ACK | CREATE | EXCL, &ifinfo(0, IFF_UP | IFF_NOARP), |a| {
        a.str(IFLA_IFNAME, name);
        a.bytes(IFLA_ADDRESS, &mac);
        a.nest(IFLA_LINKINFO, |a| {
            a.str(IFLA_INFO_KIND, "veth");
            a.nest(IFLA_INFO_DATA, |a| {
                a.nest(VETH_INFO_PEER, |a| {
                    a.raw(&ifinfo(0, 0));
                    a.str(IFLA_IFNAME, peer.0);
                    a.bytes(IFLA_ADDRESS, &peer.1);
                    a.u32(IFLA_NET_NS_FD, netns as u32);
                });
            });
        });
    });
}

pub fn delete(batch: &mut Batch, index: i32) {
    batch.message("delete link", RTM_DELLINK, ACK, &ifinfo(index, 0), |_| {});
}

pub fn raise(batch: &mut Batch, index: i32) {
    batch.message("raise link", RTM_SETLINK, ACK, &ifinfo(index, IFF_UP), |_| {});
}

/// A /32 address.
pub fn add_address(batch: &mut Batch, index: i32, address: Ipv4Addr) {
    let mut header = [0; 8];
    header[0] = AF_INET;
    header[1] = 32;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    batch.message("add address", RTM_NEWADDR, ACK | CREATE | EXCL, &header, |a| {
        a.bytes(IFA_ADDRESS, &address.octets());
        a.bytes(IFA_LOCAL, &address.octets());
    });
}

fn rtmsg(prefix: u8, scope: u8, kind: u8, flags: u32) -> [u8; RTMSG_BYTES] {
    let mut header = [AF_INET, prefix, 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, scope, kind, 0, 0, 0, 0];
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// `address/32 dev index`.
pub fn add_host_route(batch: &mut Batch, index: i32, address: Ipv4Addr) {
    let header = rtmsg(32, RT_SCOPE_LINK, RTN_UNICAST, 0);
    batch.message("add route to the sandbox", RTM_NEWROUTE, ACK | CREATE | REPLACE, &header, |a| {
        a.bytes(RTA_DST, &address.octets());
        a.u32(RTA_OIF, index as u32);
    });
}

/// `default via gateway dev index onlink`.
pub fn add_default_route(batch: &mut Batch, index: i32, gateway: Ipv4Addr) {
    let header = rtmsg(0, RT_SCOPE_UNIVERSE, RTN_UNICAST, RTNH_F_ONLINK);
    batch.message("add default route", RTM_NEWROUTE, ACK | CREATE | EXCL, &header, |a| {
        a.bytes(RTA_GATEWAY, &gateway.octets());
        a.u32(RTA_OIF, index as u32);
    });
}

/// Packets to addresses of the subnet that no sandbox holds must not leave by the host's default route. `owner` (the
/// metric) tells several servers on one host apart.
pub fn claim_subnet(batch: &mut Batch, (network, prefix): (Ipv4Addr, u8), owner: u32, add: bool) {
    let header = rtmsg(prefix, RT_SCOPE_UNIVERSE, RTN_UNREACHABLE, 0);
    let (kind, flags) = if add { (RTM_NEWROUTE, ACK | CREATE | REPLACE) } else { (RTM_DELROUTE, ACK) };
    batch.message("claim the sandbox subnet", kind, flags, &header, |a| {
        a.bytes(RTA_DST, &network.octets());
        a.u32(RTA_PRIORITY, owner);
    });
}

pub fn add_neighbour(batch: &mut Batch, index: i32, address: Ipv4Addr, mac: Mac) {
    let mut header = [0; 12];
    header[0] = AF_INET;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    batch.message("add neighbour", RTM_NEWNEIGH, ACK | CREATE | REPLACE, &header, |a| {
        a.bytes(NDA_DST, &address.octets());
        a.bytes(NDA_LLADDR, &mac);
    });
}

/// Index of the link with this name; `None` when there is none.
pub fn index_of(socket: &mut Socket, name: &str) -> Result<Option<i32>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message("look up link", RTM_GETLINK, ACK, &ifinfo(0, 0), |a| a.str(IFLA_IFNAME, name));
    match socket.transact(&batch) {
        Ok(answers) => Ok(answers.iter().find(|m| m.kind == RTM_NEWLINK).and_then(|m| i32_at(&m.payload, 4))),
        Err(e) if e.errno() == Some(19) => Ok(None), // ENODEV
        Err(e) => Err(e),
    }
}

/// Index and name of every link.
pub fn list(socket: &mut Socket) -> Result<HashMap<i32, String>, NetlinkError> {
    let mut batch = Batch::new();
    batch.message("list links", RTM_GETLINK, DUMP, &ifinfo(0, 0), |_| {});
    let links = socket.dump(&batch)?;
    Ok(links
        .iter()
        .filter_map(|m| Some((i32_at(&m.payload, 4)?, text(m.attributes(IFINFO_BYTES).find_kind(IFLA_IFNAME)?))))
        .collect())
}

/// An IPv4 route, as far as we look at routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub network: Ipv4Addr,
    pub prefix: u8,
    pub unicast: bool,
    pub ours: bool,
    pub metric: u32,
    /// Outgoing links; several for a multipath route, none for an unreachable one.
    pub links: Vec<i32>,
}

/// Every IPv4 route of every table.
pub fn routes(socket: &mut Socket) -> Result<Vec<Route>, NetlinkError> {
    let mut header = [0; RTMSG_BYTES];
    header[0] = AF_INET;
    let mut batch = Batch::new();
    batch.message("list routes", RTM_GETROUTE, DUMP, &header, |_| {});
    Ok(socket.dump(&batch)?.iter().filter(|m| m.kind == RTM_NEWROUTE).filter_map(parse_route).collect())
}

fn parse_route(message: &Message) -> Option<Route> {
    let header = message.payload.get(..RTMSG_BYTES)?;
    let attrs = message.attributes(RTMSG_BYTES);
    let octets: [u8; 4] = match attrs.find_kind(RTA_DST) {
        Some(dst) => dst.try_into().ok()?,
        None => [0; 4],
    };
    let mut links: Vec<i32> = attrs.find_kind(RTA_OIF).and_then(|v| i32_at(v, 0)).into_iter().collect();
    links.extend(attrs.find_kind(RTA_MULTIPATH).map(nexthop_links).unwrap_or_default());
    Some(Route {
        network: octets.into(),
        prefix: header[1],
        unicast: header[7] == RTN_UNICAST,
        ours: header[5] == ROUTE_PROTOCOL,
        metric: attrs.find_kind(RTA_PRIORITY).and_then(|v| i32_at(v, 0)).unwrap_or(0) as u32,
        links,
    })
}

/// A multipath attribute holds `struct rtnexthop {u16 len, u8 flags, u8 hops, i32 ifindex}` entries, each with attributes.
fn nexthop_links(mut bytes: &[u8]) -> Vec<i32> {
    let mut links = Vec::new();
    while let (Some(length), Some(link)) = (bytes.get(..2), i32_at(bytes, 4)) {
        links.push(link);
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]])).max(8);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    links
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes)
}
