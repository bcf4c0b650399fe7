//! The socket that runs one piece of code. What is wrong with the request is said by closing it.

use super::job::Job;
use super::request::{Refusal, limit, parse};
use super::table::DEFAULT_ID;
use crate::state::Shared;
use crate::ws::{Incoming, Limits, Outgoing, Upgrade, code};
use axum::extract::State;
use axum::response::Response;
use std::time::Duration;

const LIMITS: Limits = Limits {
    message_bytes_max: 16 << 20,
    queued_messages_max: 256,
    queued_bytes_max: 512 << 10,
    write_limit: Some(Duration::from_secs(10)),
};

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
