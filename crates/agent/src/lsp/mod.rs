//! `/lsp/*`: language servers of the image behind the toolbox's few questions. What they are and say is the user's: see
//! `framing.rs` and `rpc.rs` for what is believed of it.

mod answers;
mod framing;
mod gather;
mod language;
mod place;
mod registry;
mod rpc;
mod server;

pub use registry::Registry;

use crate::body::{self, empty};
use crate::error::{Answer, Failure};
use crate::execute::detached;
use crate::query::Query;
use crate::state::Shared;
use axum::Router;
use axum::extract::{Request, State};
use axum::routing::{get, post};
use http::StatusCode;
use infield_api::toolbox::{DaemonErrorCode as Code, LspCompletionParams, LspDocumentRequest, LspServerRequest};
use language::Language;
use registry::{Found, Key};
use server::{Server, Trouble};
use std::path::PathBuf;
use std::sync::Arc;

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/lsp/start", post(start))
        .route("/lsp/stop", post(stop))
        .route("/lsp/did-open", post(did_open))
        .route("/lsp/did-close", post(did_close))
        .route("/lsp/completions", post(completions))
        .route("/lsp/document-symbols", get(document_symbols))
        .route("/lsp/workspacesymbols", get(workspace_symbols))
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Request(why) => Self::bad_request(why),
            Trouble::Timeout(why) => Self::new(Code::RequestTimeout, format!("request timeout: {why}")),
            Trouble::Gone(why) => not_running(&why),
        }
    }
}

fn not_running(why: &str) -> Failure {
    Failure::new(Code::LspServerNotInitialized, format!("server not initialized: {why}; start it first"))
}

fn required(fields: &[(&str, &str)]) -> Result<(), Failure> {
    match fields.iter().find(|(_, value)| value.is_empty()) {
        Some((name, _)) => Err(Failure::invalid_body(format!("{name} is required"))),
        None => Ok(()),
    }
}

fn language_of(id: &str) -> Result<Language, Failure> {
    Language::of(id)
        .ok_or_else(|| Failure::bad_request(format!("language {id:?} is not supported; {} are", Language::NAMES)))
}

fn path_of(agent: &Shared, text: &str) -> Result<PathBuf, Failure> {
    place::path_of(&agent.workdir, text)
        .ok_or_else(|| Failure::bad_request(format!("{text:?} is neither a path nor a file:// URI")))
}

async fn find(agent: &Shared, language: String, project: String) -> Result<Arc<Server>, Failure> {
    let name = language_of(&language).map(|_| language.clone())?;
    match agent.lsp.find(&(language, project)).await {
        Found::Server(server) => Ok(server),
        Found::Nothing => Err(not_running(&format!("no {name} server for this project"))),
        Found::Ended(why) => Err(not_running(&why)),
    }
}

async fn server_request(request: Request) -> Result<(Key, Language), Failure> {
    let LspServerRequest { language_id, path_to_project } = body::json(request).await?;
    required(&[("languageId", &language_id), ("pathToProject", &path_to_project)])?;
    let language = language_of(&language_id)?;
    Ok(((language_id, path_to_project), language))
}

/// Goes on when the client goes away: a server half started would be in everybody's way.
async fn start(State(agent): State<Shared>, request: Request) -> Answer {
    let (key, language) = server_request(request).await?;
    let project = path_of(&agent, &key.1)?;
    detached(async move {
        match agent.lsp.start(&agent, key, language, project).await {
            Ok(()) => Ok(empty(StatusCode::OK)),
            Err(Trouble::Request(why)) => Err(Failure::bad_request(why)),
            Err(Trouble::Timeout(why) | Trouble::Gone(why)) => {
                Err(Failure::new(Code::Internal, format!("error starting LSP server: {why}")))
            }
        }
    })
    .await
}

async fn stop(State(agent): State<Shared>, request: Request) -> Answer {
    let (key, _) = server_request(request).await?;
    detached(async move {
        match agent.lsp.stop(&key).await {
            true => Ok(empty(StatusCode::OK)),
            false => {
                let message = format!("error stopping LSP server: no {} server runs for this project", key.0);
                Err(Failure::new(Code::Internal, message))
            }
        }
    })
    .await
}

async fn document(agent: &Shared, request: Request) -> Result<(Arc<Server>, PathBuf), Failure> {
    let LspDocumentRequest { language_id, path_to_project, uri } = body::json(request).await?;
    required(&[("languageId", &language_id), ("pathToProject", &path_to_project), ("uri", &uri)])?;
    let server = find(agent, language_id, path_to_project).await?;
    Ok((server, path_of(agent, &uri)?))
}

async fn did_open(State(agent): State<Shared>, request: Request) -> Answer {
    let (server, path) = document(&agent, request).await?;
    server.open(&path).await?;
    Ok(empty(StatusCode::OK))
}

async fn did_close(State(agent): State<Shared>, request: Request) -> Answer {
    let (server, path) = document(&agent, request).await?;
    server.close(&path).await?;
    Ok(empty(StatusCode::OK))
}

async fn completions(State(agent): State<Shared>, request: Request) -> Answer {
    let LspCompletionParams { language_id, path_to_project, uri, position, context } = body::json(request).await?;
    required(&[("languageId", &language_id), ("pathToProject", &path_to_project), ("uri", &uri)])?;
    let position = position.ok_or_else(|| Failure::invalid_body("position is required"))?;
    let server = find(&agent, language_id, path_to_project).await?;
    let list = server.completions(&path_of(&agent, &uri)?, position, context).await?;
    Ok(body::ok(&list))
}

fn parameter(query: &Query, name: &str) -> Result<String, Failure> {
    query.text(name).ok_or_else(|| Failure::bad_request(format!("{name} is required")))
}

async fn document_symbols(State(agent): State<Shared>, query: Query) -> Answer {
    let (language, project) = (parameter(&query, "languageId")?, parameter(&query, "pathToProject")?);
    let uri = parameter(&query, "uri")?;
    let server = find(&agent, language, project).await?;
    Ok(body::ok(&server.document_symbols(&path_of(&agent, &uri)?).await?))
}

async fn workspace_symbols(State(agent): State<Shared>, query: Query) -> Answer {
    let (language, project) = (parameter(&query, "languageId")?, parameter(&query, "pathToProject")?);
    let wanted = parameter(&query, "query")?;
    let server = find(&agent, language, project).await?;
    Ok(body::ok(&server.workspace_symbols(&wanted).await?))
}
