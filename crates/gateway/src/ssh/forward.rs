//! Local forwarding: a channel to a port of the sandbox, and of nothing else.

use super::{agent::Agent, command::IDLE_MAX, connection::Output, inbox::Inbox};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use russh::{ChannelOpenFailure, server::ChannelOpenHandle};
use std::{net::IpAddr, sync::Arc};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};

const BUFFER_BYTES: usize = 32 << 10;

type Port = TokioIo<Upgraded>;

/// The port, where the host is the sandbox itself.
pub fn port_of(host: &str, port: u32) -> Option<u16> {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let itself = match address {
        Ok(address) => address.is_loopback() || address.is_unspecified(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    u16::try_from(port).ok().filter(|port| itself && *port != 0)
}

/// Answers whether the channel can be had, then carries bytes until both sides have ended.
pub async fn run(agent: Agent, port: u16, reply: ChannelOpenHandle, output: Output, inbox: Arc<Inbox>) {
    let stream = match agent.port(port).await {
        Ok(stream) => stream,
        Err(why) => {
            tracing::debug!(sandbox = %agent.sandbox, port, why, "no connection for SSH");
            return reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    };
    reply.accept().await;
    let (from_port, to_port) = split(stream);
    tokio::select! {
        _ = async { tokio::join!(up(to_port, &inbox), down(from_port, &output, &inbox)) } => {}
        () = inbox.idle(IDLE_MAX) => {}
    }
    let _ = output.close().await;
}

async fn up(mut port: WriteHalf<Port>, inbox: &Inbox) {
    while let Some(bytes) = inbox.next().await {
        if port.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = port.shutdown().await;
}

async fn down(mut port: ReadHalf<Port>, output: &Output, inbox: &Inbox) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(n @ 1..) = port.read(&mut buffer).await {
        inbox.touch();
        if output.data_bytes(buffer[..n].to_vec()).await.is_err() {
            return;
        }
    }
    let _ = output.eof().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_sandbox_itself() {
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "0.0.0.0"] {
            assert_eq!(port_of(host, 80), Some(80), "{host}");
        }
        for host in ["", "10.0.0.1", "169.254.169.254", "example.com", "localhost.example.com", "::ffff:10.0.0.1"] {
            assert_eq!(port_of(host, 80), None, "{host}");
        }
        assert_eq!((port_of("localhost", 0), port_of("localhost", 65_536)), (None, None));
    }

    proptest! {
        #[test]
        fn no_name_breaks_it(host in "\\PC{0,40}", port: u32) {
            let named = port_of(&host, port);
            prop_assert!(named.is_none_or(|n| u32::from(n) == port && n > 0));
        }
    }
}
