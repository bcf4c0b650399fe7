//! Who listens hears what changes: Socket.IO under `/api/socket.io/`, each client everything of its key's organization.
//!
//! The rows are the truth and events only hurry: a listener that reads too slowly is cut off, comes back and asks again.
//! Nothing of a request waits for a listener.

use crate::{
    app::{App, Inner},
    clock::now_ms,
    http::{extract::BaseUrl, view},
};
use axum::http::header;
use infield_api::{
    state::{DesiredState, SandboxState, SnapshotState},
    volume::VolumeState,
};
use infield_store::{Changed, SandboxRow, SnapshotRow, VolumeRow};
use serde::{Deserialize, Serialize};
use serde_json::json;
use socketioxide::{
    ParserConfig, SocketIo, TransportType,
    extract::{SocketRef, TryData},
    handler::ConnectHandler,
    layer::SocketIoLayer,
};
use std::{sync::Weak, time::Duration};
use tokio::sync::broadcast::error::RecvError;

pub const PATH: &str = "/api/socket.io";
/// Time to say who one is.
const CONNECT_MAX: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(25);
const PONG_MAX: Duration = Duration::from_secs(20);
/// Events a listener may lag behind.
const QUEUE_EVENTS_MAX: usize = 256;
/// Clients say nothing but who they are.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Of one organization.
const LISTENERS_MAX: usize = 1000;

pub struct Events {
    io: SocketIo,
    layer: SocketIoLayer,
}

/// What a client says when it connects.
#[derive(Deserialize)]
struct Introduction {
    token: Option<String>,
}

/// Who listens, kept with the socket.
#[derive(Clone)]
struct Listener {
    expires_ms: Option<i64>,
    /// Where it reaches this server: rows carry addresses.
    base: String,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("Unauthorized")]
    Unauthorized,
    #[error("Too many listeners")]
    TooMany,
    #[error("Unavailable")]
    Unavailable,
}

impl Events {
    pub fn new() -> Self {
        let (layer, io) = SocketIo::builder()
            .req_path(PATH)
            .transports([TransportType::Websocket])
            .connect_timeout(CONNECT_MAX)
            .ping_interval(PING_EVERY)
            .ping_timeout(PONG_MAX)
            .max_buffer_size(QUEUE_EVENTS_MAX)
            .max_payload(MESSAGE_BYTES_MAX as u64)
            .ws_max_message_size(MESSAGE_BYTES_MAX)
            .ws_max_frame_size(MESSAGE_BYTES_MAX)
            .with_parser(ParserConfig::common().max_incoming_binaries(0).max_incoming_binary_buf_size(0))
            .build_layer();
        Self { io, layer }
    }

    /// The layer that answers [`PATH`].
    pub fn layer(&self, app: &App) -> SocketIoLayer {
        let app = app.downgrade();
        let introduce = {
            let app = app.clone();
            move |socket: SocketRef, TryData(said): TryData<Introduction>| {
                let app = app.clone();
                async move { admit(app, socket, said.ok().and_then(|said| said.token)).await }
            }
        };
        self.io.ns("/", connected.with(introduce));
        self.layer.clone()
    }

    /// Cuts off whoever came with a key that is no more.
    pub fn evict(&self, key_hash: &str) {
        for socket in self.io.within(key_room(key_hash)).sockets() {
            let _ = socket.disconnect();
        }
    }

    fn listeners(&self, organization: &str) -> Vec<(SocketRef, Listener)> {
        let now = now_ms();
        let sockets = self.io.within(organization_room(organization)).sockets().into_iter();
        let known = sockets.filter_map(|socket| socket.extensions.get::<Listener>().map(|who| (socket.clone(), who)));
        let (in_time, late): (Vec<_>, Vec<_>) = known.partition(|(_, who)| who.expires_ms.is_none_or(|at| at > now));
        for (socket, _) in late {
            let _ = socket.disconnect();
        }
        in_time
    }

    fn tell<T: Serialize>(&self, organization: &str, event: &str, payload: impl Fn(&Listener) -> T) {
        for (socket, who) in self.listeners(organization) {
            if socket.emit(event, &payload(&who)).is_err() {
                let _ = socket.disconnect();
            }
        }
    }

    pub fn snapshot_created(&self, row: &SnapshotRow) {
        self.tell(&row.organization_id, "snapshot.created", |_| view::snapshot(row.clone()));
    }

    pub fn snapshot_removed(&self, row: &SnapshotRow) {
        self.tell(&row.organization_id, "snapshot.removed", |_| view::snapshot(row.clone()));
    }

    pub fn snapshot_state(&self, row: &SnapshotRow, old: SnapshotState) {
        let payload =
            |_: &Listener| json!({ "snapshot": view::snapshot(row.clone()), "oldState": old, "newState": row.state });
        self.tell(&row.organization_id, "snapshot.state.updated", payload);
    }

    pub fn volume_created(&self, row: &VolumeRow) {
        self.tell(&row.organization_id, "volume.created", |_| view::volume(row.clone()));
    }

    pub fn volume_used(&self, row: &VolumeRow) {
        self.tell(&row.organization_id, "volume.lastUsedAt.updated", |_| view::volume(row.clone()));
    }

    pub fn volume_state(&self, row: &VolumeRow, old: VolumeState) {
        let payload =
            |_: &Listener| json!({ "volume": view::volume(row.clone()), "oldState": old, "newState": row.state });
        self.tell(&row.organization_id, "volume.state.updated", payload);
    }

    fn sandbox(&self, row: &SandboxRow, old: Option<(SandboxState, DesiredState)>) {
        let organization = &row.organization_id;
        let seen = |who: &Listener| view::sandbox(row.clone(), &BaseUrl(who.base.clone()));
        let Some((state, desired)) = old else {
            return self.tell(organization, "sandbox.created", seen);
        };
        // A new wish changes what is shown, which is what clients wait for.
        if (state, desired) != (row.state, row.desired) {
            self.tell(
                organization,
                "sandbox.state.updated",
                |who| json!({ "sandbox": seen(who), "oldState": state, "newState": row.state }),
            );
        }
        if desired != row.desired {
            self.tell(
                organization,
                "sandbox.desired-state.updated",
                |who| json!({ "sandbox": seen(who), "oldDesiredState": desired, "newDesiredState": row.desired }),
            );
        }
    }
}

/// Never ends: tells listeners of every change of a sandbox that this process writes.
pub async fn run(app: &App) {
    let mut changes = app.store.changes();
    loop {
        let Changed { id, organization, was } = match changes.recv().await {
            Ok(changed) => changed,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "listeners were not told of every change");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        if organization.is_some_and(|organization| app.events.listeners(&organization).is_empty())
            || app.events.io.sockets().is_empty()
        {
            continue;
        }
        match app.store.sandbox(id).await {
            Ok(Some(row)) => app.events.sandbox(&row, was),
            Ok(None) => {}
            Err(e) => tracing::warn!(error = %e, "listeners were not told of a change"),
        }
    }
}

async fn admit(app: Weak<Inner>, socket: SocketRef, token: Option<String>) -> Result<(), Refused> {
    let app = App::upgrade(&app).ok_or(Refused::Unavailable)?;
    let token = token.ok_or(Refused::Unauthorized)?;
    let key = app.auth.check(&app.store, &token).await.map_err(|_| Refused::Unavailable)?;
    let key = key.ok_or(Refused::Unauthorized)?;
    let room = organization_room(&key.organization_id);
    if app.events.io.within(room.clone()).sockets().len() >= LISTENERS_MAX {
        return Err(Refused::TooMany);
    }
    let request = socket.req_parts();
    let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let base = BaseUrl::of(&app, host.unwrap_or("localhost"));
    socket.extensions.insert(Listener { expires_ms: key.expires_ms, base: base.0 });
    socket.extensions.insert(Rooms([room, key_room(&key.hash)]));
    Ok(())
}

#[derive(Clone)]
struct Rooms([String; 2]);

async fn connected(socket: SocketRef) {
    if let Some(Rooms(rooms)) = socket.extensions.get::<Rooms>() {
        socket.join(rooms);
    }
}

fn organization_room(organization: &str) -> String {
    format!("organization:{organization}")
}

fn key_room(hash: &str) -> String {
    format!("key:{hash}")
}
