//! Tokens with which SSH clients reach a sandbox: made, ended, looked up; and how the gateway is reached.

use super::{
    extract::{BaseUrl, Query},
    view,
};
use crate::{
    app::App,
    auth::Caller,
    clock::{iso, now_ms},
    error::{ApiError, ApiResult},
    lifecycle::commands,
    secret,
};
use axum::{
    Json,
    extract::{Path, State},
};
use infield_api::{
    api_key::Permission,
    config::SshGateway,
    error::ErrorBody,
    sandbox::Sandbox,
    ssh::{SshAccessDto, SshAccessValidationDto},
};
use uuid::Uuid;

const MINUTES_DEFAULT: i64 = 60;
/// A year; a key that shall live longer is made again.
const MINUTES_MAX: i64 = 365 * 24 * 60;
/// Needs no `-p`.
const SSH_PORT: u16 = 22;
/// A longer text is no token of ours and is not even hashed.
const TOKEN_BYTES_MAX: usize = 256;

/// A new token, which ends the one this sandbox had. The sandbox need not run.
#[utoipa::path(post, path = "/sandbox/{sandboxIdOrName}/ssh-access", operation_id = "createSshAccess", tag = "sandbox",
    params(("sandboxIdOrName" = String, Path), ("expiresInMinutes" = Option<i64>, Query)),
    responses((status = 200, body = SshAccessDto), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
    query: Query,
) -> ApiResult<Json<SshAccessDto>> {
    caller.need(Permission::WriteSandboxes)?;
    let minutes = query.int_within("expiresInMinutes", MINUTES_DEFAULT, MINUTES_MAX)?;
    let row = commands::find(&app, &caller, &sandbox).await?;
    let gateway = gateway(&app, &base).ok_or_else(|| {
        ApiError::unavailable(
            "SSH is off on this server; its operator switches it on with `infield serve --ssh-listen`",
        )
    })?;
    let (id, token, now) = (Uuid::new_v4().to_string(), secret::ssh_token(), now_ms());
    let expires = now + minutes * 60_000;
    app.store.set_ssh_access(row.id, &id, &secret::hash(&token), expires).await?;
    Ok(Json(SshAccessDto {
        id,
        sandbox_id: row.id.to_string(),
        ssh_command: gateway.ssh_gateway_command.replace("{{TOKEN}}", &token),
        token,
        expires_at: iso(expires),
        created_at: iso(now),
        updated_at: iso(now),
    }))
}

/// Ends a token, or without one whatever this sandbox has. Connections that are open stay so.
#[utoipa::path(delete, path = "/sandbox/{sandboxIdOrName}/ssh-access", operation_id = "revokeSshAccess",
    tag = "sandbox", params(("sandboxIdOrName" = String, Path), ("token" = Option<String>, Query)),
    responses((status = 200, body = Sandbox), (status = 404, body = ErrorBody)))]
pub async fn revoke(
    State(app): State<App>,
    caller: Caller,
    base: BaseUrl,
    Path(sandbox): Path<String>,
    query: Query,
) -> ApiResult<Json<Sandbox>> {
    caller.need(Permission::WriteSandboxes)?;
    let row = commands::find(&app, &caller, &sandbox).await?;
    let hash = query.text("token").map(secret::hash);
    app.store.revoke_ssh_access(row.id, hash.as_deref()).await?;
    Ok(Json(view::sandbox(row, &base)))
}

/// Whether a token opens a sandbox of the caller's organization, and which.
#[utoipa::path(get, path = "/sandbox/ssh-access/validate", operation_id = "validateSshAccess", tag = "sandbox",
    params(("token" = String, Query)),
    responses((status = 200, body = SshAccessValidationDto), (status = 400, body = ErrorBody)))]
pub async fn validate(State(app): State<App>, caller: Caller, query: Query) -> ApiResult<Json<SshAccessValidationDto>> {
    let token = query.text("token").ok_or_else(|| ApiError::bad_request("token is required"))?;
    if token.len() > TOKEN_BYTES_MAX {
        return Ok(Json(SshAccessValidationDto::default()));
    }
    let Some(id) = app.store.ssh_access(&secret::hash(token), now_ms()).await? else {
        return Ok(Json(SshAccessValidationDto::default()));
    };
    // Somebody else's is as unknown as one that never was.
    let sandbox_id = id.to_string();
    Ok(Json(match commands::find(&app, &caller, &sandbox_id).await {
        Ok(_) => SshAccessValidationDto { valid: true, sandbox_id },
        Err(e) if e.status == axum::http::StatusCode::NOT_FOUND => SshAccessValidationDto::default(),
        Err(e) => return Err(e),
    }))
}

/// How this client reaches the SSH gateway.
pub fn gateway(app: &App, base: &BaseUrl) -> Option<SshGateway> {
    let ssh = app.config.ssh.as_ref()?;
    let host = base.host().to_owned();
    Some(SshGateway {
        ssh_gateway_command: command(&host, ssh.port),
        ssh_gateway_host: host,
        ssh_gateway_port: ssh.port,
        ssh_gateway_host_keys: vec![ssh.host_key.clone()],
        ssh_gateway_host_key_fingerprints: vec![ssh.fingerprint.clone()],
    })
}

fn command(host: &str, port: u16) -> String {
    match port {
        SSH_PORT => format!("ssh {{{{TOKEN}}}}@{host}"),
        port => format!("ssh -p {port} {{{{TOKEN}}}}@{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        assert_eq!(command("h", 22), "ssh {{TOKEN}}@h");
        assert_eq!(command("::1", 2222), "ssh -p 2222 {{TOKEN}}@::1");
    }
}
