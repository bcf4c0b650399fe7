//! The two sockets of terminals: to one that exists, and to one that is made with it.

use super::ending;
use super::envs;
use super::http::wanted;
use super::pty::{NotTyped, Pty};
use crate::error::{Answer, Failure};
use crate::execute::detached;
use crate::query::Query;
use crate::state::Shared;
use crate::ws::{Incoming, Limits, Outgoing, Prepared, Upgrade, code};
use axum::extract::ws::Message;
use axum::extract::{Path, State};
use axum::response::Response;
use infield_api::toolbox::PtyCreateRequest;
use std::sync::Arc;
use std::time::Duration;

const LIMITS: Limits = Limits {
    message_bytes_max: 64 << 10,
    queued_messages_max: 256,
    queued_bytes_max: 256 << 10,
    write_limit: Some(Duration::from_secs(10)),
};

/// Clients give up quickly on a socket that says nothing, therefore the terminal runs and its greeting waits before the
/// handshake is answered. All of it in a task of its own: a client that goes away leaves nothing half-made.
pub async fn connect(State(agent): State<Shared>, Path(id): Path<String>, upgrade: Upgrade) -> Answer {
    let exit_control = upgrade.offered.exit_control();
    let (outgoing, socket) = upgrade.prepare(LIMITS);
    detached(async move {
        let attached = match agent.ptys.find(&id) {
            Some(pty) => pty.start(&agent, Some((&outgoing, exit_control))).await.map(|born| Attached { pty, born }),
            None => Err(format!("PTY session {id} not found")),
        };
        Ok(match attached {
            Ok(attached) => socket.accept(move |incoming| listen(attached, incoming, outgoing)),
            Err(why) => refuse(socket, outgoing, &format!("Failed to connect to PTY session: {why}")),
        })
    })
    .await
}

pub async fn create_connect(State(agent): State<Shared>, query: Query, upgrade: Upgrade) -> Answer {
    let wanted = wanted(request(&query, upgrade.offered.pty_envs())?)?;
    let exit_control = upgrade.offered.exit_control();
    let (outgoing, socket) = upgrade.prepare(LIMITS);
    detached(async move {
        let created = Created { pty: agent.ptys.reserve(&agent, wanted)?, agent, kept: false };
        Ok(match created.pty.start(&created.agent, Some((&outgoing, exit_control))).await {
            Ok(born) => socket.accept(move |incoming| {
                let attached = Attached { pty: created.keep(), born };
                listen(attached, incoming, outgoing)
            }),
            Err(why) => refuse(socket, outgoing, &format!("Failed to start PTY session: {why}")),
        })
    })
    .await
}

/// A terminal that nobody knows of yet: its end when the client does not get to hear of it.
struct Created {
    agent: Shared,
    pty: Arc<Pty>,
    kept: bool,
}

impl Created {
    fn keep(mut self) -> Arc<Pty> {
        self.kept = true;
        self.pty.clone()
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        self.agent.ptys.forget(&self.pty);
        let (agent, pty) = (self.agent.clone(), self.pty.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { pty.end(&agent).await });
        }
    }
}

/// A client's place at a terminal, for as long as it is there.
struct Attached {
    pty: Arc<Pty>,
    born: u64,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.pty.detach(self.born);
    }
}

/// Sizes that are no numbers count as absent.
fn request(query: &Query, token: Option<&str>) -> Result<PtyCreateRequest, Failure> {
    let number = |name: &str| query.text(name).and_then(|text| text.parse::<i64>().ok());
    Ok(PtyCreateRequest {
        id: query.text("id").unwrap_or_default(),
        cwd: query.text("cwd"),
        envs: token.map(envs::decode).transpose().map_err(Failure::bad_request)?,
        cols: number("cols"),
        rows: number("rows"),
        lazy_start: None,
        command: query.text("command"),
    })
}

/// The handshake succeeds, then the socket says what is wrong.
fn refuse(socket: Prepared, outgoing: Outgoing, why: &str) -> Response {
    let _ = outgoing.offer(Message::Text(ending::error_message(why).into()));
    outgoing.finish(code::ERROR, why);
    socket.accept(|incoming| incoming.drain())
}

/// Types what the client sends until it goes.
async fn listen(client: Attached, mut incoming: Incoming, outgoing: Outgoing) {
    while let Some(message) = incoming.next().await {
        match client.pty.type_in(message.into_bytes()).await {
            Ok(()) => {}
            Err(NotTyped::Ended) => outgoing.finish(code::ERROR, "PTY session unavailable"),
            Err(NotTyped::Stuck) => outgoing.finish(code::POLICY, "the PTY's program does not read its input"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    #[test]
    fn requests() {
        let request = |raw: &str, envs| request(&Query::parse(raw), envs);
        let plain = request("id=a%20b&cols=x&rows=30&cwd=/tmp", None).unwrap();
        assert_eq!((plain.id.as_str(), plain.cols, plain.rows), ("a b", None, Some(30)));
        let envs = URL_SAFE_NO_PAD.encode(r#"{"A":"ü"}"#);
        assert_eq!(request("id=x", Some(&envs)).unwrap().envs.unwrap()["A"], "ü");
        assert_eq!(request("id=x", Some("!")).unwrap_err().status, 400);
        let list = URL_SAFE_NO_PAD.encode("[1]");
        assert_eq!(request("id=x", Some(&list)).unwrap_err().status, 400);
        assert_eq!(wanted(request("id=x&cols=1001", None).unwrap()).err().map(|f| f.status), Some(400));
        assert_eq!(wanted(request("cols=10", None).unwrap()).err().map(|f| f.status), Some(400));
    }
}
