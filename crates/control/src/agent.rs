//! A request to a sandbox's agent over `runner.connect()`. What comes back is hostile: its size and time are bounded.

use crate::error::ApiError;
use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use infield_api::{SandboxId, runner::Runner};
use std::time::Duration;

/// Longest answer that is taken from an agent.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Sends JSON, returns status and body. `within` bounds the whole exchange.
pub async fn post(
    runner: &dyn Runner,
    id: SandboxId,
    path: &str,
    body: &serde_json::Value,
    within: Duration,
) -> Result<(StatusCode, Bytes), ApiError> {
    let exchange = exchange(runner, id, path, body);
    match tokio::time::timeout(within, exchange).await {
        Ok(answer) => answer,
        Err(_) => {
            let message = format!("Sandbox {id} did not answer within {} s", within.as_secs());
            Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, message))
        }
    }
}

async fn exchange(
    runner: &dyn Runner,
    id: SandboxId,
    path: &str,
    body: &serde_json::Value,
) -> Result<(StatusCode, Bytes), ApiError> {
    let stream = std::os::unix::net::UnixStream::from(runner.connect(id).await?);
    // The runner promises a non-blocking socket; a blocking one would stall every other request.
    stream.set_nonblocking(true).map_err(|e| unreachable_agent(id, &e))?;
    let stream = tokio::net::UnixStream::from_std(stream).map_err(|e| unreachable_agent(id, &e))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| unreachable_agent(id, &e))?;
    let pump = tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, "sandbox")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|e| unreachable_agent(id, &e))?;
    let answer = sender.send_request(request).await.map_err(|e| unreachable_agent(id, &e))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|e| {
        let message = format!("Sandbox {id} broke off its answer or sent more than {ANSWER_BYTES_MAX} bytes: {e}");
        ApiError::new(StatusCode::BAD_GATEWAY, message)
    })?;
    pump.abort();
    Ok((status, body.to_bytes()))
}

fn unreachable_agent(id: SandboxId, e: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, format!("Sandbox {id} cannot be reached: {e}"))
}
