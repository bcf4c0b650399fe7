//! SSH: the user name is a token that the directory knows, everything else is translated to the toolbox of one sandbox.
//!
//! `connection.rs` is what a client may ask, `command.rs`, `terminal.rs` and `forward.rs` what is done about it, `agent.rs` the
//! way there. Everything a connection started ends with it. Whoever asks may be hostile: all counts and sizes have bounds.

mod agent;
mod command;
mod connection;
mod forward;
mod guarded;
mod host_key;
mod inbox;
mod seats;
mod terminal;
mod token;

#[cfg(test)]
mod tests;

pub use host_key::HostKey;

use crate::activity::Activity;
use connection::Connection;
use guarded::Guarded;
use infield_api::{directory::Directory, runner::Runner};
use russh::{Limits, MethodKind, MethodSet, SshId, server::Config};
use seats::Seats;
use std::{borrow::Cow, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Pause after the kernel refused a connection (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Attempts of one client; every one with a token's shape succeeds.
const AUTH_ATTEMPTS_MAX: usize = 6;
/// A client that answers none of these is gone.
const KEEPALIVES_MAX: usize = 3;
/// A client that neither takes nor says anything for this long is gone, too.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// What a channel may send ahead, and in one piece.
const WINDOW_BYTES: u32 = 2 << 20;
const PACKET_BYTES_MAX: u32 = 32 << 10;
/// New keys after this much or this long.
const REKEY_BYTES: usize = 1 << 30;
const REKEY_AFTER: Duration = Duration::from_secs(3600);

/// Bounds of the gateway. Every number has its unit in its name.
#[derive(Clone, Debug)]
pub struct SshConfig {
    /// Connections at once, over all sandboxes, and with one token.
    pub connections_max: usize,
    pub connections_per_token_max: usize,
    /// Channels that are open at once on one connection.
    pub channels_max: usize,
    /// From the first byte until somebody is let in.
    pub login_max: Duration,
    /// How often an open channel counts as activity, and a silent client is asked whether it is there.
    pub touch_every: Duration,
}

impl Default for SshConfig {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_token_max: 32,
            channels_max: 64,
            login_max: Duration::from_secs(30),
            touch_every: Duration::from_secs(45),
        }
    }
}

/// The gateway. Cheap to clone.
#[derive(Clone)]
pub struct SshGateway {
    shared: Arc<Shared>,
    protocol: Arc<Config>,
}

/// What every connection needs.
struct Shared {
    directory: Arc<dyn Directory>,
    runner: Arc<dyn Runner>,
    activity: Activity,
    seats: Seats,
    config: SshConfig,
}

impl SshGateway {
    /// Must be called inside a tokio runtime.
    pub fn new(directory: Arc<dyn Directory>, runner: Arc<dyn Runner>, key: HostKey, config: SshConfig) -> Self {
        let activity = Activity::start(directory.clone(), config.touch_every);
        let protocol = Arc::new(protocol(key, &config));
        let seats = Seats::new(config.connections_per_token_max);
        Self { shared: Arc::new(Shared { directory, runner, activity, seats, config }), protocol }
    }

    /// Never ends.
    pub async fn serve(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(self.shared.config.connections_max));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let gateway = self.clone();
                    tokio::spawn(async move {
                        let _place = place;
                        gateway.connection(stream, peer).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an SSH connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        let _ = stream.set_nodelay(true);
        let (stream, admitted) = Guarded::new(stream, self.shared.config.login_max);
        let handler = Connection::new(self.shared.clone(), admitted);
        let ended = match russh::server::run_stream(self.protocol.clone(), stream, handler).await {
            Ok(session) => session.await,
            Err(e) => Err(e),
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "SSH connection ended");
        }
    }
}

fn protocol(key: HostKey, config: &SshConfig) -> Config {
    let methods = [MethodKind::None, MethodKind::PublicKey, MethodKind::Password, MethodKind::KeyboardInteractive];
    Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Infield_", env!("CARGO_PKG_VERSION")))),
        methods: MethodSet::from(methods.as_slice()),
        // Nothing is to be found out by the time that a refusal takes: it is the same for every name.
        auth_rejection_time: Duration::ZERO,
        keys: vec![key.private],
        limits: Limits::new(REKEY_BYTES, REKEY_BYTES, REKEY_AFTER),
        window_size: WINDOW_BYTES,
        maximum_packet_size: PACKET_BYTES_MAX,
        // Not used: what arrives goes to an inbox.
        channel_buffer_size: 1,
        max_auth_attempts: AUTH_ATTEMPTS_MAX,
        inactivity_timeout: Some(SILENCE_MAX),
        keepalive_interval: Some(config.touch_every),
        keepalive_max: KEEPALIVES_MAX,
        nodelay: true,
        ..Config::default()
    }
}
