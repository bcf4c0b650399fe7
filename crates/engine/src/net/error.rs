//! What can go wrong with a host's sandbox network, said for the person who runs the server.

use infield_sys::netlink::NetlinkError;
use std::{io, net::Ipv4Addr};

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("{0}")]
    Config(String),
    #[error(
        "the sandbox subnet {subnet} overlaps the route to {route} of this host; start with --subnet {suggestion} or \
         another private subnet that nothing uses"
    )]
    SubnetTaken { subnet: String, route: String, suggestion: String },
    #[error("slot {slot} has no address: the subnet holds {max} sandboxes; use a larger one with --subnet")]
    SlotOutOfRange { slot: u32, max: u32 },
    #[error("slot {slot} is not plugged into the network")]
    NotPlugged { slot: u32 },
    #[error("{what}")]
    Kernel {
        what: String,
        #[source]
        source: NetlinkError,
    },
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
}

impl NetError {
    pub(super) fn kernel(what: impl Into<String>) -> impl FnOnce(NetlinkError) -> Self {
        let what = what.into();
        move |source| Self::Kernel { what, source }
    }
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

pub(super) fn slot_out_of_range(slot: u32, max: u32) -> NetError {
    NetError::SlotOutOfRange { slot, max }
}

/// `10.200.0.0/16`.
pub fn show((network, prefix): (Ipv4Addr, u8)) -> String {
    format!("{network}/{prefix}")
}
