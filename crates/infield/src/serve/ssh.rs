//! The listening socket for SSH, from the supervisor that opens it to the API process that has no right to.

use crate::cli::SshListen;
use anyhow::{Context, Result};
use std::{net::TcpListener, os::fd::OwnedFd};

/// SSH is an extra: without its port, the server goes on without it and says so.
pub fn bind(listen: SshListen) -> Option<OwnedFd> {
    let SshListen::At(address) = listen else { return None };
    let listener = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    match listener {
        Ok(listener) => Some(listener.into()),
        Err(e) => {
            eprintln!(
                "infield: cannot listen for SSH on {address} ({e}); SSH is off; choose another port with --ssh-listen, \
                 or `--ssh-listen off`"
            );
            None
        }
    }
}

pub fn inherit(number: i32) -> Result<TcpListener> {
    let fd = infield_sys::agent_fd::take_inherited(number)
        .with_context(|| format!("descriptor {number} should be the socket for SSH"))?;
    Ok(fd.into())
}
