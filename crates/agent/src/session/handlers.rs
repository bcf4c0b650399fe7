//! The requests about sessions and their commands, logs aside.

use super::command::Phase;
use super::frames::{self, Stream};
use super::{ENTRYPOINT_ID, logs, table};
use crate::body;
use crate::error::{Answer, Failure};
use crate::execute::detached;
use crate::state::Shared;
use axum::extract::{Path, Request, State};
use http::StatusCode;
use infield_api::toolbox::{CreateSessionRequest, SessionExecuteRequest, SessionSendInputRequest};
use serde_json::json;
use std::path::PathBuf;

const SESSION_ID_BYTES_MAX: usize = 1024;

pub async fn create(State(agent): State<Shared>, request: Request) -> Answer {
    let at_home = super::asker(request.headers()).starts_at_home();
    let CreateSessionRequest { session_id: id } = body::json(request).await?;
    if id.is_empty() {
        return Err(Failure::bad_request("sessionId is required"));
    }
    if id == ENTRYPOINT_ID {
        return Err(Failure::bad_request("the session id `entrypoint` is reserved"));
    }
    if id.len() > SESSION_ID_BYTES_MAX {
        return Err(Failure::bad_request(format!("sessionId is longer than {SESSION_ID_BYTES_MAX} bytes")));
    }
    // A task of its own: a client that goes away leaves no half-made session.
    detached(async move {
        let cwd = at_home.then(|| PathBuf::from(&agent.home));
        agent.sessions.create(&agent, id, cwd).await?;
        Ok(body::empty(StatusCode::CREATED))
    })
    .await
}

pub async fn list(State(agent): State<Shared>) -> Answer {
    let all: Vec<_> = agent.sessions.list().iter().map(|s| s.describe()).collect();
    Ok(body::ok(&all))
}

pub async fn get(State(agent): State<Shared>, Path(id): Path<String>) -> Answer {
    Ok(body::ok(&agent.sessions.find(&agent, &id)?.describe()))
}

pub async fn delete(State(agent): State<Shared>, Path(id): Path<String>) -> Answer {
    if id == ENTRYPOINT_ID {
        return Err(table::reserved());
    }
    let session = agent.sessions.remove(&id)?;
    detached(async move {
        session.end(&agent).await;
        Ok(body::empty(StatusCode::NO_CONTENT))
    })
    .await
}

pub async fn exec(State(agent): State<Shared>, Path(id): Path<String>, request: Request) -> Answer {
    let shape = super::asker(request.headers()).shape();
    let request: SessionExecuteRequest = body::json(request).await?;
    if request.command.trim().is_empty() {
        return Err(Failure::bad_request("command is required"));
    }
    if id == ENTRYPOINT_ID {
        return Err(table::reserved());
    }
    let session = agent.sessions.find(&agent, &id)?;
    let is_async = request.run_async == Some(true) || request.legacy_async == Some(true);
    let echo = request.suppress_input_echo != Some(true);
    let command = session.enqueue(request.command, is_async, echo)?;
    if is_async {
        let nothing = json!({"cmdId": command.id, "output": null, "stdout": null, "stderr": null, "exitCode": null});
        return Ok(body::with_status(StatusCode::ACCEPTED, &nothing));
    }
    if command.at_least(Phase::Done).await.skipped {
        return Err(table::session_ended());
    }
    logs::executed(&command, shape).await
}

pub async fn command(State(agent): State<Shared>, Path((id, command)): Path<(String, String)>) -> Answer {
    Ok(body::ok(&agent.sessions.find(&agent, &id)?.command(&command)?.describe()))
}

pub async fn input(
    State(agent): State<Shared>,
    Path((id, command)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let SessionSendInputRequest { mut data } = body::json(request).await?;
    if data.is_empty() {
        return Err(Failure::bad_request("data is required"));
    }
    if id == ENTRYPOINT_ID {
        return Err(table::reserved());
    }
    let session = agent.sessions.find(&agent, &id)?;
    let command = session.command(&command)?;
    if !data.ends_with('\n') {
        data.push('\n');
    }
    session.send_input(&command, data.as_bytes()).await?;
    if command.echo_input {
        let mut cutter = frames::Cutter::new(Stream::Out);
        let mut echoed = Vec::new();
        cutter.push(data.as_bytes(), &mut echoed);
        command.append(echoed).await;
    }
    Ok(body::empty(StatusCode::NO_CONTENT))
}
