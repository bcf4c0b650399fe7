//! The plain requests about terminals, and what any request may ask of one.

use super::pty::Wanted;
use super::terminal::Size;
use crate::body;
use crate::env::Vars;
use crate::error::{Answer, Failure};
use crate::execute::detached;
use crate::state::Shared;
use axum::extract::{Path, Request, State};
use http::StatusCode;
use infield_api::toolbox::{
    DaemonErrorCode as Code, MessageResponse, PtyCreateRequest, PtyCreateResponse, PtyListResponse, PtyResizeRequest,
};
use std::path::PathBuf;

const DEFAULT_SIZE: Size = Size { cols: 80, rows: 24 };
const SIDE_MAX: i64 = 1000;
const ID_BYTES_MAX: usize = 1 << 10;
const CWD_BYTES_MAX: usize = 4 << 10;
/// The kernel's own bound for one argument, less a little.
const COMMAND_BYTES_MAX: usize = 120 << 10;
const ENVS_BYTES_MAX: usize = 128 << 10;

/// Checks everything that can be checked without starting anything.
pub fn wanted(request: PtyCreateRequest) -> Result<Wanted, Failure> {
    let PtyCreateRequest { id, cwd, envs, cols, rows, lazy_start, command } = request;
    if id.is_empty() {
        return Err(Failure::bad_request("session ID is required"));
    }
    if id.len() > ID_BYTES_MAX {
        return Err(Failure::bad_request(format!("session ID is longer than {ID_BYTES_MAX} bytes")));
    }
    let cwd = cwd.filter(|c| !c.is_empty());
    if cwd.as_ref().is_some_and(|c| c.len() > CWD_BYTES_MAX || c.contains('\0')) {
        return Err(Failure::bad_request("cwd is too long or contains a NUL byte"));
    }
    let command = command.filter(|c| !c.trim().is_empty());
    if command.as_ref().is_some_and(|c| c.len() > COMMAND_BYTES_MAX || c.contains('\0')) {
        return Err(Failure::bad_request("command is too long or contains a NUL byte"));
    }
    let envs = envs.unwrap_or_default();
    if envs.iter().map(|(k, v)| k.len() + v.len() + 2).sum::<usize>() > ENVS_BYTES_MAX {
        return Err(Failure::bad_request(format!("envs are larger than {ENVS_BYTES_MAX} bytes")));
    }
    let size = Size { cols: side(cols, DEFAULT_SIZE.cols)?, rows: side(rows, DEFAULT_SIZE.rows)? };
    let (cwd, lazy) = (cwd.map(PathBuf::from), lazy_start == Some(true));
    Ok(Wanted { id, cwd, envs: without_nul(envs), size, lazy, command })
}

/// No process can have these.
fn without_nul(envs: Vars) -> Vars {
    envs.into_iter().filter(|(k, v)| !k.is_empty() && !k.contains(['\0', '=']) && !v.contains('\0')).collect()
}

fn side(wanted: Option<i64>, default: u16) -> Result<u16, Failure> {
    match wanted.unwrap_or(0) {
        0 => Ok(default),
        n @ 1..=SIDE_MAX => Ok(u16::try_from(n).unwrap_or(default)),
        _ => Err(Failure::bad_request(format!("cols and rows must be between 1 and {SIDE_MAX}"))),
    }
}

fn unknown(id: &str) -> Failure {
    Failure::new(Code::ProcessNotFound, format!("PTY session {id} not found"))
}

pub async fn create(State(agent): State<Shared>, request: Request) -> Answer {
    let wanted = wanted(body::json(request).await?)?;
    // A task of its own: a client that goes away leaves no half-made terminal.
    detached(async move {
        let lazy = wanted.lazy;
        let pty = agent.ptys.reserve(&agent, wanted)?;
        if !lazy && let Err(why) = pty.start(&agent, None).await {
            agent.ptys.forget(&pty);
            return Err(Failure::new(Code::Internal, format!("failed to start PTY session: {why}")));
        }
        Ok(body::with_status(StatusCode::CREATED, &PtyCreateResponse { session_id: pty.id.clone() }))
    })
    .await
}

pub async fn list(State(agent): State<Shared>) -> Answer {
    let sessions = agent.ptys.list().iter().map(|p| p.info()).collect();
    Ok(body::ok(&PtyListResponse { sessions }))
}

pub async fn get(State(agent): State<Shared>, Path(id): Path<String>) -> Answer {
    let pty = agent.ptys.find(&id).ok_or_else(|| unknown(&id))?;
    Ok(body::ok(&pty.info()))
}

pub async fn delete(State(agent): State<Shared>, Path(id): Path<String>) -> Answer {
    end(agent, id).await
}

/// A terminal may have any name.
pub async fn delete_named_like_a_route(State(agent): State<Shared>) -> Answer {
    end(agent, "create-connect".to_owned()).await
}

async fn end(agent: Shared, id: String) -> Answer {
    let pty = agent.ptys.remove(&id).ok_or_else(|| unknown(&id))?;
    detached(async move {
        pty.end(&agent).await;
        Ok(body::ok(&MessageResponse { message: "PTY session deleted".to_owned() }))
    })
    .await
}

pub async fn resize(State(agent): State<Shared>, Path(id): Path<String>, request: Request) -> Answer {
    let PtyResizeRequest { cols, rows } = body::json(request).await?;
    if cols == 0 || rows == 0 {
        return Err(Failure::bad_request("cols and rows are required"));
    }
    let size = Size { cols: side(Some(cols), 0)?, rows: side(Some(rows), 0)? };
    let gone = || Failure::new(Code::SessionEnded, format!("PTY session {id} not found or has terminated"));
    let pty = agent.ptys.find(&id).ok_or_else(gone)?;
    match pty.resize(size) {
        Some(Ok(())) => Ok(body::ok(&pty.info())),
        Some(Err(_)) => Err(gone()),
        None => Err(Failure::internal(format!("PTY session {id} is not active: no client has connected yet"))),
    }
}
