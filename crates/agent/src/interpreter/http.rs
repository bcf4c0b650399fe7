//! The plain requests about contexts.

use super::table::DEFAULT_ID;
use crate::body;
use crate::error::{Answer, Failure};
use crate::execute::detached;
use crate::state::Shared;
use axum::extract::{Path, Request, State};
use infield_api::toolbox::{CreateContextRequest, DaemonErrorCode as Code, ListContextsResponse, MessageResponse};
use std::path::PathBuf;

pub async fn create(State(agent): State<Shared>, request: Request) -> Answer {
    let CreateContextRequest { cwd, language } = body::json(request).await?;
    if let Some(language) = language.filter(|l| !l.is_empty() && l != "python") {
        return Err(Failure::bad_request(format!("unsupported language: {language} (only python is supported)")));
    }
    let cwd = cwd.filter(|c| !c.is_empty());
    if cwd.as_ref().is_some_and(|c| c.contains('\0')) {
        return Err(Failure::bad_request("cwd contains a NUL byte"));
    }
    // A task of its own: a client that goes away leaves no half-made context.
    detached(async move {
        let context = agent.contexts.create(&agent, cwd.map(PathBuf::from)).await?;
        Ok(body::ok(&context.info()))
    })
    .await
}

pub async fn list(State(agent): State<Shared>) -> Answer {
    let contexts = agent.contexts.list().iter().map(|c| c.info()).collect();
    Ok(body::ok(&ListContextsResponse { contexts }))
}

pub async fn delete(State(agent): State<Shared>, Path(id): Path<String>) -> Answer {
    if id == DEFAULT_ID {
        return Err(Failure::bad_request("the default context cannot be deleted"));
    }
    let context = agent.contexts.remove(&id);
    let context = context.ok_or_else(|| Failure::new(Code::NotFound, format!("not found: context {id}")))?;
    detached(async move {
        context.end().await;
        Ok(body::ok(&MessageResponse { message: "Context deleted successfully".to_owned() }))
    })
    .await
}
