//! The socket that runs one piece of code. What is wrong with the request is said by closing it.

use super::job::Job;
use super::table::DEFAULT_ID;
use crate::state::Shared;
use crate::ws::{Incoming, Limits, Outgoing, Upgrade, code};
use axum::extract::State;
use axum::response::Response;
use infield_api::toolbox::InterpreterRequest;
use std::time::Duration;

const LIMITS: Limits = Limits {
    message_bytes_max: 16 << 20,
    queued_messages_max: 256,
    queued_bytes_max: 512 << 10,
    write_limit: Some(Duration::from_secs(10)),
};
const DEFAULT_TIMEOUT_SECONDS: i64 = 600;
/// Longer timeouts count as none: no clock reaches them.
const TIMEOUT_SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;

pub async fn execute(State(agent): State<Shared>, upgrade: Upgrade) -> Response {
    upgrade.accept(LIMITS, move |mut incoming, outgoing| async move {
        if let Some((code, reason)) = begin(&agent, &mut incoming, &outgoing).await.err() {
            outgoing.finish(code, &reason);
        }
        // The job has the socket now, and runs on when the client is gone.
        drop(outgoing);
        incoming.drain().await;
    })
}

type Refusal = (u16, String);

async fn begin(agent: &Shared, incoming: &mut Incoming, outgoing: &Outgoing) -> Result<(), Refusal> {
    let Some(first) = incoming.next().await else {
        return Err((code::PROTOCOL, "failed to read first message".to_owned()));
    };
    let request = parse(&first.into_bytes())?;
    let limit = limit(request.timeout)?;
    let text = request.code.unwrap_or_default();
    let context = match request.context_id.as_deref() {
        None | Some("" | DEFAULT_ID) => agent
            .contexts
            .default_one(agent)
            .await
            .map_err(|why| (code::ERROR, format!("failed to get default context: {why}")))?,
        Some(id) => agent.contexts.find(id).ok_or_else(|| (code::POLICY, format!("context not found: {id}")))?,
    };
    let job = Job::new(text, request.envs.unwrap_or_default(), limit, outgoing.clone());
    let job = job.ok_or_else(|| (code::POLICY, "too much code waits in this sandbox".to_owned()))?;
    context.enqueue(job).map_err(|(mut job, why)| {
        job.listener.finish(code::POLICY, why);
        (code::POLICY, why.to_owned())
    })
}

fn parse(text: &[u8]) -> Result<InterpreterRequest, Refusal> {
    let request: InterpreterRequest =
        serde_json::from_slice(text).map_err(|_| (code::PROTOCOL, "invalid JSON payload".to_owned()))?;
    match request.code.as_deref() {
        None | Some("") => Err((code::POLICY, "code is required".to_owned())),
        Some(_) => Ok(request),
    }
}

fn limit(timeout: Option<i64>) -> Result<Option<Duration>, Refusal> {
    match u64::try_from(timeout.unwrap_or(DEFAULT_TIMEOUT_SECONDS)) {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok((seconds < TIMEOUT_SECONDS_MAX).then(|| Duration::from_secs(seconds))),
        Err(_) => Err((code::POLICY, "timeout must be greater than or equal to 0".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let nulls = parse(br#"{"code":"1","contextId":null,"envs":{"A":null},"timeout":null}"#).unwrap();
        assert_eq!(limit(nulls.timeout), Ok(Some(Duration::from_secs(600))));
        assert_eq!(limit(Some(0)), Ok(None));
        assert_eq!(limit(Some(-1)).unwrap_err().0, 1008);
        assert_eq!(parse(br#"{"code":"1","timeout":1.5}"#).unwrap_err().1, "invalid JSON payload");
        assert_eq!(parse(b"7").unwrap_err().0, 1002);
        assert_eq!(parse(b"{}").unwrap_err(), (1008, "code is required".to_owned()));
    }
}
