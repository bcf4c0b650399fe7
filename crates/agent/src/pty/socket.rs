//! The two sockets of terminals: to one that exists, and to one that is made with it.

use super::ending;
use super::http::wanted;
use super::pty::{NotTyped, Pty};
use crate::env::Vars;
use crate::error::{Answer, Failure};
use crate::query::Query;
use crate::state::Shared;
use crate::ws::{Incoming, Limits, Outgoing, Upgrade, code};
use axum::extract::ws::Message;
use axum::extract::{Path, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use infield_api::toolbox::PtyCreateRequest;
use std::sync::Arc;
use std::time::Duration;

const LIMITS: Limits = Limits {
    message_bytes_max: 64 << 10,
    queued_messages_max: 256,
    queued_bytes_max: 256 << 10,
    write_limit: Some(Duration::from_secs(10)),
};

pub async fn connect(State(agent): State<Shared>, Path(id): Path<String>, upgrade: Upgrade) -> Response {
    let exit_control = upgrade.offered.exit_control();
    upgrade.accept(LIMITS, move |incoming, outgoing| async move {
        let attached = match agent.ptys.find(&id) {
            Some(pty) => pty.start(&agent, Some((&outgoing, exit_control))).await.map(|born| (pty, born)),
            None => Err(format!("PTY session {id} not found")),
        };
        match attached {
            Ok((pty, born)) => listen(pty, born, incoming, outgoing).await,
            Err(why) => refuse(incoming, outgoing, &format!("Failed to connect to PTY session: {why}")).await,
        }
    })
}

pub async fn create_connect(State(agent): State<Shared>, query: Query, upgrade: Upgrade) -> Answer {
    let wanted = wanted(request(&query, upgrade.offered.pty_envs())?)?;
    let exit_control = upgrade.offered.exit_control();
    // From here on the name is taken, and free again when the handshake fails.
    let reserved = Reserved { pty: agent.ptys.reserve(&agent, wanted)?, agent, kept: false };
    Ok(upgrade.accept(LIMITS, move |incoming, outgoing| async move {
        let mut reserved = reserved;
        match reserved.pty.start(&reserved.agent, Some((&outgoing, exit_control))).await {
            Ok(born) => {
                reserved.kept = true;
                listen(reserved.pty.clone(), born, incoming, outgoing).await;
            }
            Err(why) => {
                drop(reserved);
                refuse(incoming, outgoing, &format!("Failed to start PTY session: {why}")).await;
            }
        }
    }))
}

struct Reserved {
    agent: Shared,
    pty: Arc<Pty>,
    kept: bool,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.kept {
            self.agent.ptys.forget(&self.pty);
        }
    }
}

/// Sizes that are no numbers count as absent.
fn request(query: &Query, envs: Option<&str>) -> Result<PtyCreateRequest, Failure> {
    let number = |name: &str| query.text(name).and_then(|text| text.parse::<i64>().ok());
    Ok(PtyCreateRequest {
        id: query.text("id").unwrap_or_default(),
        cwd: query.text("cwd"),
        envs: envs.map(decode_envs).transpose()?,
        cols: number("cols"),
        rows: number("rows"),
        lazy_start: None,
    })
}

fn decode_envs(token: &str) -> Result<Vars, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::bad_request(format!("the subprotocol with the PTY's environment cannot be read: {why}"))
    };
    let text = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|e| wrong(&e))?;
    serde_json::from_slice(&text).map_err(|e| wrong(&e))
}

async fn refuse(incoming: Incoming, outgoing: Outgoing, why: &str) {
    let _ = outgoing.send(Message::Text(ending::error_message(why).into())).await;
    outgoing.finish(code::ERROR, why);
    incoming.drain().await;
}

/// Types what the client sends until it goes.
async fn listen(pty: Arc<Pty>, born: u64, mut incoming: Incoming, outgoing: Outgoing) {
    while let Some(message) = incoming.next().await {
        match pty.type_in(message.into_bytes()).await {
            Ok(()) => {}
            Err(NotTyped::Ended) => outgoing.finish(code::ERROR, "PTY session unavailable"),
            Err(NotTyped::Stuck) => outgoing.finish(code::POLICY, "the PTY's program does not read its input"),
        }
    }
    pty.detach(born);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn no_token_breaks_it(token in "\\PC{0,64}") {
            let _ = decode_envs(&token);
        }
    }
}
