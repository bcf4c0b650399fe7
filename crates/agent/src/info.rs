//! Version, directories, start-up message, environment.

use crate::body;
use crate::env as vars;
use crate::error::{Answer, Failure};
use crate::state::Shared;
use crate::telemetry;
use axum::extract::{Request, State};
use axum::response::Response;
use infield_api::toolbox::{DirResponse, InitRequest, MessageResponse, UpdateEnvRequest, VersionResponse};

pub async fn version() -> Response {
    body::ok(&VersionResponse { version: env!("CARGO_PKG_VERSION").to_owned() })
}

/// Also `/project-dir`, which old clients take for the home directory.
pub async fn user_home_dir(State(agent): State<Shared>) -> Response {
    body::ok(&DirResponse { dir: agent.home.clone() })
}

pub async fn work_dir(State(agent): State<Shared>) -> Response {
    body::ok(&DirResponse { dir: agent.workdir.to_string_lossy().into_owned() })
}

/// The token goes with what telemetry sends, if there is an endpoint for it.
pub async fn init(State(agent): State<Shared>, request: Request) -> Answer {
    let init: InitRequest = body::json(request).await?;
    telemetry::begin(&agent, init.token).map_err(Failure::bad_request)?;
    Ok(message("Auth token set and telemetry initialized successfully"))
}

pub async fn update_env(State(agent): State<Shared>, request: Request) -> Answer {
    let change: UpdateEnvRequest = body::json(request).await?;
    vars::check(change.set.as_ref()).map_err(Failure::bad_request)?;
    if let Some(name) = change.unset.iter().flatten().find(|n| !vars::is_name(n)) {
        return Err(Failure::bad_request(format!("invalid environment variable name: {name:?}")));
    }
    agent.env.update(change).map_err(Failure::bad_request)?;
    Ok(message("Environment updated successfully"))
}

fn message(text: &str) -> Response {
    body::ok(&MessageResponse { message: text.to_owned() })
}
