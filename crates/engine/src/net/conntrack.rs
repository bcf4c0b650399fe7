//! Forgetting connections. An address is used again by another sandbox: what the former one agreed with the outside would
//! let strangers send packets to the new one, because they belong to a connection that is known.

use super::error::NetError;
use infield_sys::netlink::{ACK, Attributes, Batch, DUMP, Message, NetlinkError, Socket};
use std::net::Ipv4Addr;

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
/// `struct nfgenmsg` for IPv4.
const HEADER: [u8; 4] = [2, 0, 0, 0];
const TUPLE_ORIGINAL: u16 = 1;
const ZONE: u16 = 18;
const TUPLE_ADDRESSES: u16 = 1;
const ADDRESS_SOURCE: u16 = 1;
const ENOENT: i32 = 2;

/// Forgets every connection opened by an address that is `dead`. Walks the kernel's whole table (some 10 ms), so callers
/// collect addresses first.
pub fn forget(socket: &mut Socket, dead: impl Fn(Ipv4Addr) -> bool) -> Result<(), NetError> {
    try_forget(socket, dead).map_err(NetError::kernel("forget the connections of sandboxes that are gone"))
}

fn try_forget(socket: &mut Socket, dead: impl Fn(Ipv4Addr) -> bool) -> Result<(), NetlinkError> {
    let mut list = Batch::new();
    list.message("list connections", GET, DUMP, &HEADER, |_| {});
    for entry in socket.dump(&list)? {
        if !source(&entry).is_some_and(&dead) {
            continue;
        }
        let attributes = entry.attributes(HEADER.len());
        let mut delete = Batch::new();
        delete.message("forget connection", DELETE, ACK, &HEADER, |a| {
            if let Some(tuple) = attributes.find_kind(TUPLE_ORIGINAL) {
                a.nest(TUPLE_ORIGINAL, |a| a.raw(tuple));
            }
            if let Some(zone) = attributes.find_kind(ZONE) {
                a.bytes(ZONE, zone);
            }
        });
        match socket.transact(&delete) {
            Err(e) if e.errno() != Some(ENOENT) => return Err(e), // absent: it ended by itself
            _ => {}
        }
    }
    Ok(())
}

fn source(entry: &Message) -> Option<Ipv4Addr> {
    let tuple = entry.attributes(HEADER.len()).find_kind(TUPLE_ORIGINAL)?;
    let addresses = Attributes::new(tuple).find_kind(TUPLE_ADDRESSES)?;
    let octets: [u8; 4] = Attributes::new(addresses).find_kind(ADDRESS_SOURCE)?.try_into().ok()?;
    Some(octets.into())
}
