//! Two routes of Infield's own, for callers that know only the control plane: clone a repository, run a command.
//!
//! They pass on to the sandbox's agent; what it refuses reaches the caller with the same status.

use super::extract::Body;
use crate::{
    agent,
    app::App,
    auth::Caller,
    error::{ApiError, ApiResult},
    lifecycle::{commands, rules},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use infield_api::{
    SandboxId,
    api_key::Permission,
    error::ErrorBody,
    sandbox::{CloneRepository, ClonedRepository, ExecCommand, ExecOutcome},
    state::SandboxState,
};
use serde_json::{Value, json};
use std::time::Duration;

/// A clone or an exec without a timeout of its own ends then at the latest.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// What the agent gets on top of the command's own timeout, to say that it struck.
const TIMEOUT_GRACE: Duration = Duration::from_secs(10);

/// Clone a git repository inside the sandbox.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/clone", operation_id = "cloneRepository", tag = "infield",
    params(("sandboxIdOrName" = String, Path)), request_body = CloneRepository,
    responses((status = 200, body = ClonedRepository), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn clone(
    State(app): State<App>,
    caller: Caller,
    Path(sandbox): Path<String>,
    Body(body): Body<CloneRepository>,
) -> ApiResult<Json<ClonedRepository>> {
    caller.need(Permission::WriteSandboxes)?;
    if body.url.trim().is_empty() {
        return Err(ApiError::bad_request("url (or repo) names the repository to clone"));
    }
    let given = body.path.clone().filter(|path| !path.is_empty());
    let path = given.unwrap_or_else(|| repository_name(&body.url));
    let id = running(&app, &caller, &sandbox).await?;
    let mut request = json!({ "url": body.url, "path": path });
    let optional = [
        ("branch", body.branch),
        ("username", body.username),
        ("password", body.password),
        ("commit_id", body.commit_id),
    ];
    for (key, value) in optional {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            request[key] = value.into();
        }
    }
    ask(&app, id, "/git/clone", &request, EXCHANGE_TIME_MAX).await?;
    Ok(Json(ClonedRepository { path }))
}

/// Run a command inside the sandbox and return its output and exit code.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/exec", operation_id = "execCommand", tag = "infield",
    params(("sandboxIdOrName" = String, Path)), request_body = ExecCommand,
    responses((status = 200, body = ExecOutcome), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn exec(
    State(app): State<App>,
    caller: Caller,
    Path(sandbox): Path<String>,
    Body(body): Body<ExecCommand>,
) -> ApiResult<Json<ExecOutcome>> {
    caller.need(Permission::WriteSandboxes)?;
    if body.command.trim().is_empty() {
        return Err(ApiError::bad_request("command (or cmd) says what to run"));
    }
    let id = running(&app, &caller, &sandbox).await?;
    let within = match body.timeout {
        Some(seconds) if seconds > 0 => (Duration::from_secs(seconds as u64) + TIMEOUT_GRACE).min(EXCHANGE_TIME_MAX),
        _ => EXCHANGE_TIME_MAX,
    };
    let request = serde_json::to_value(&body).unwrap_or(Value::Null);
    let answer = ask(&app, id, "/process/execute", &request, within).await?;
    let outcome = serde_json::from_slice(&answer);
    outcome.map(Json).map_err(|_| broken(id))
}

/// The sandbox, if it runs; noted as activity.
async fn running(app: &App, caller: &Caller, sandbox: &str) -> ApiResult<SandboxId> {
    let row = commands::find(app, caller, sandbox).await?;
    match rules::shown((row.state, row.desired)) {
        SandboxState::Started => {
            app.activity.touch(row.id);
            Ok(row.id)
        }
        other => {
            let message = format!("Sandbox {} is {}, not started; start it first", row.id, other.as_str());
            Err(ApiError::bad_request(message))
        }
    }
}

async fn ask(app: &App, id: SandboxId, path: &str, request: &Value, within: Duration) -> ApiResult<bytes::Bytes> {
    let (status, body) = agent::post(&*app.runner, id, path, request, within).await?;
    if status.is_success() {
        return Ok(body);
    }
    let told: Option<Value> = serde_json::from_slice(&body).ok();
    let message = told.as_ref().and_then(|v| v.get("message")).and_then(Value::as_str);
    // Only the statuses of refusals are passed on: an agent's 401 would look like a bad API key.
    let status = match status {
        StatusCode::UNAUTHORIZED => StatusCode::FORBIDDEN,
        status if status.is_client_error() || status.is_server_error() => status,
        _ => StatusCode::BAD_GATEWAY,
    };
    Err(ApiError::new(status, message.unwrap_or("The sandbox refused without saying why")))
}

fn broken(id: SandboxId) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, format!("Sandbox {id} sent an answer that cannot be read"))
}

/// `https://host/team/name.git` → `name`.
fn repository_name(url: &str) -> String {
    let trimmed = url.trim().trim_end_matches('/');
    let last = trimmed.rsplit(['/', ':']).next().unwrap_or_default();
    let name = last.strip_suffix(".git").unwrap_or(last);
    if name.is_empty() || name == "." || name == ".." { "repository".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_repository_has_a_name() {
        for (url, name) in [
            ("https://github.com/bl1nk-bot/specbl1z.git", "specbl1z"),
            ("git@host:team/x", "x"),
            ("file:///srv/a/", "a"),
            ("..", "repository"),
        ] {
            assert_eq!(super::repository_name(url), name);
        }
    }
}
