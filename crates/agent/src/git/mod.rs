//! `/git/*`. The work is done by libgit2 in a short-lived copy of this program that runs like a command of the user: under
//! the limits for commands, so that a large or hostile repository costs the user's memory and never the agent.

mod branch;
mod cli;
mod clone;
mod commit;
mod config;
mod credential_line;
mod credentials;
mod dns;
mod dns_text;
mod failure;
mod http;
mod places;
mod remote;
mod reset;
mod restore;
mod stage;
mod status;
mod transfer;
mod url;
pub mod worker;

use crate::body::{self, empty};
use crate::error::{Answer, Failure};
use crate::execute::{c_string, detached};
use crate::launch::{Child, Input, Launch, launch};
use crate::query::Query;
use crate::state::Shared;
use crate::{children::Exit, env, sdk};
use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use failure::GitFailure;
use infield_api::toolbox::{
    DaemonErrorCode, GitAddRemoteRequest, GitAddRequest, GitAuthenticateRequest, GitBranchRequest, GitCheckoutRequest,
    GitCloneRequest, GitCommitRequest, GitConfigureUserRequest, GitInitRequest, GitResetRequest, GitRestoreRequest,
    GitSetConfigRequest, GitTransferRequest,
};
use places::Places;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use worker::WORKER_ARGUMENT;

/// Also for telemetry: names and trust without anything of the image.
pub use dns::Dns;
pub use http::authorities;

/// Nobody waits longer for a clone; the worker is killed then.
const GIT_SECONDS_MAX: u64 = 3600;
/// A history or status larger than this is an error.
const GIT_ANSWER_BYTES_MAX: u64 = 64 << 20;
const GIT_COMPLAINT_BYTES_MAX: u64 = 16 << 10;

/// What the worker is asked to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "operation", content = "request", rename_all = "snake_case")]
enum Job {
    Clone(GitCloneRequest),
    Status(Place),
    Branches(Place),
    CreateBranch(GitBranchRequest),
    DeleteBranch(GitBranchRequest),
    Checkout(GitCheckoutRequest),
    Add(GitAddRequest),
    Commit(GitCommitRequest),
    History(Place),
    Pull(GitTransferRequest),
    Push(GitTransferRequest),
    Init(GitInitRequest),
    Remotes(Place),
    AddRemote(GitAddRemoteRequest),
    Reset(GitResetRequest),
    Restore(GitRestoreRequest),
    Config(config::Question),
    SetConfig(GitSetConfigRequest),
    ConfigureUser(GitConfigureUserRequest),
    Authenticate(GitAuthenticateRequest),
}

/// A job and where the user's own files are.
#[derive(Debug, Serialize, Deserialize)]
struct Order<J> {
    places: Places,
    job: J,
}

/// Requests that say no more than which repository.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Place {
    path: String,
    /// Leave out what was added to the answer later.
    strict: bool,
}

/// What the worker answers: a body (`null` = none) or a failure.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Done(Box<RawValue>),
    Failed(GitFailure),
}

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/git/clone", post(clone))
        .route("/git/status", get(status))
        .route("/git/branches", get(branches).post(create_branch).delete(delete_branch))
        .route("/git/checkout", post(checkout))
        .route("/git/add", post(add))
        .route("/git/commit", post(commit))
        .route("/git/history", get(history))
        .route("/git/pull", post(pull))
        .route("/git/push", post(push))
        .route("/git/init", post(init))
        .route("/git/remotes", get(remotes).post(add_remote))
        .route("/git/reset", post(reset))
        .route("/git/restore", post(restore))
        .route("/git/config", get(config_value).post(set_config))
        .route("/git/config/user", post(configure_user))
        .route("/git/credentials", post(authenticate))
}

/// Missing and empty are the same in this contract.
fn require(fields: &[(&str, &str)]) -> Result<(), Failure> {
    match fields.iter().find(|(_, value)| value.is_empty()) {
        Some((name, _)) => Err(Failure::invalid_body(format!("{name} is required"))),
        None => Ok(()),
    }
}

fn place(query: &Query) -> Result<Place, Failure> {
    // libgit2 takes any bytes, but the answer is JSON, and so is the way to the worker.
    let path = query.text("path").ok_or_else(|| Failure::bad_request("path is required"))?;
    Ok(Place { path, strict: false })
}

async fn clone(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitCloneRequest = body::json(request).await?;
    require(&[("url", &request.url), ("path", &request.path)])?;
    if request.depth.is_some_and(|d| d < 0) {
        return Err(Failure::invalid_body("depth must not be negative"));
    }
    run(agent, Job::Clone(request), StatusCode::OK).await
}

async fn status(State(agent): State<Shared>, query: Query, headers: HeaderMap) -> Answer {
    let place = Place { strict: sdk::is_strict_go(&headers), ..place(&query)? };
    run(agent, Job::Status(place), StatusCode::OK).await
}

async fn branches(State(agent): State<Shared>, query: Query, headers: HeaderMap) -> Answer {
    let place = Place { strict: sdk::is_strict_go(&headers), ..place(&query)? };
    run(agent, Job::Branches(place), StatusCode::OK).await
}

async fn create_branch(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitBranchRequest = body::json(request).await?;
    require(&[("path", &request.path), ("name", &request.name)])?;
    run(agent, Job::CreateBranch(request), StatusCode::CREATED).await
}

async fn delete_branch(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitBranchRequest = body::json(request).await?;
    require(&[("path", &request.path), ("name", &request.name)])?;
    run(agent, Job::DeleteBranch(request), StatusCode::NO_CONTENT).await
}

async fn checkout(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitCheckoutRequest = body::json(request).await?;
    require(&[("path", &request.path), ("branch", &request.branch)])?;
    run(agent, Job::Checkout(request), StatusCode::OK).await
}

async fn add(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitAddRequest = body::json(request).await?;
    require(&[("path", &request.path)])?;
    if request.files.is_none() {
        return Err(Failure::invalid_body("files is required"));
    }
    run(agent, Job::Add(request), StatusCode::OK).await
}

async fn commit(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitCommitRequest = body::json(request).await?;
    let GitCommitRequest { path, message, author, email, .. } = &request;
    require(&[("path", path), ("message", message), ("author", author), ("email", email)])?;
    run(agent, Job::Commit(request), StatusCode::OK).await
}

async fn history(State(agent): State<Shared>, query: Query) -> Answer {
    run(agent, Job::History(place(&query)?), StatusCode::OK).await
}

async fn pull(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitTransferRequest = body::json(request).await?;
    require(&[("path", &request.path)])?;
    run(agent, Job::Pull(request), StatusCode::OK).await
}

async fn push(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitTransferRequest = body::json(request).await?;
    require(&[("path", &request.path)])?;
    run(agent, Job::Push(request), StatusCode::OK).await
}

async fn init(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitInitRequest = body::json(request).await?;
    require(&[("path", &request.path)])?;
    run(agent, Job::Init(request), StatusCode::CREATED).await
}

async fn remotes(State(agent): State<Shared>, query: Query) -> Answer {
    run(agent, Job::Remotes(place(&query)?), StatusCode::OK).await
}

async fn add_remote(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitAddRemoteRequest = body::json(request).await?;
    require(&[("path", &request.path), ("name", &request.name), ("url", &request.url)])?;
    run(agent, Job::AddRemote(request), StatusCode::CREATED).await
}

async fn reset(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitResetRequest = body::json(request).await?;
    require(&[("path", &request.path)])?;
    run(agent, Job::Reset(request), StatusCode::OK).await
}

async fn restore(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitRestoreRequest = body::json(request).await?;
    require(&[("path", &request.path)])?;
    if request.files.is_none() {
        return Err(Failure::invalid_body("files is required"));
    }
    run(agent, Job::Restore(request), StatusCode::OK).await
}

async fn config_value(State(agent): State<Shared>, query: Query) -> Answer {
    let key = query.text("key").ok_or_else(|| Failure::bad_request("key is required"))?;
    let question = config::Question { key, path: query.text("path"), scope: query.text("scope") };
    run(agent, Job::Config(question), StatusCode::OK).await
}

async fn set_config(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitSetConfigRequest = body::json(request).await?;
    require(&[("key", &request.key), ("value", &request.value)])?;
    run(agent, Job::SetConfig(request), StatusCode::OK).await
}

async fn configure_user(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitConfigureUserRequest = body::json(request).await?;
    require(&[("name", &request.name), ("email", &request.email)])?;
    run(agent, Job::ConfigureUser(request), StatusCode::OK).await
}

async fn authenticate(State(agent): State<Shared>, request: Request) -> Answer {
    let request: GitAuthenticateRequest = body::json(request).await?;
    require(&[("username", &request.username), ("password", &request.password.0)])?;
    run(agent, Job::Authenticate(request), StatusCode::OK).await
}

/// The work goes on when the client goes away: a half-made clone would be worse than one nobody waited for.
async fn run(agent: Shared, job: Job, success: StatusCode) -> Answer {
    detached(async move {
        let child = start(&agent, &job).await?;
        match finish(child).await? {
            Outcome::Done(value) if value.get() == "null" => Ok(empty(success)),
            Outcome::Done(value) => Ok(json(success, &value)),
            Outcome::Failed(failure) => Err(Failure::new(failure.code, failure.message)),
        }
    })
    .await
}

fn json(status: StatusCode, value: &RawValue) -> Response {
    let mut response = Response::new(value.get().to_owned().into());
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// The request, with its credentials, travels through a pipe: never through arguments or the environment.
async fn start(agent: &Shared, job: &Job) -> Result<Child, Failure> {
    let vars = agent.env.snapshot();
    let order = Order { places: Places::of(&vars), job };
    let input = serde_json::to_vec(&order).map_err(Failure::internal)?;
    let what = Launch {
        program: c"/proc/self/exe".to_owned(),
        argv: vec![c"git".to_owned(), c_string(WORKER_ARGUMENT.as_bytes())],
        env: env::to_words(&vars),
        cwd: None,
        input: Input::Text(input),
        split: true,
    };
    let failed =
        |e: crate::launch::LaunchError| Failure::internal(format!("cannot start the Git worker: {}", e.source()));
    launch(agent, what).await.map_err(failed)
}

async fn finish(mut child: Child) -> Result<Outcome, Failure> {
    let (mut answer, mut complaint) = (Vec::new(), Vec::new());
    let Some(err) = child.err.take() else { return Err(Failure::internal("the Git worker has no error output")) };
    let reading = async {
        let mut out = (&mut child.out).take(GIT_ANSWER_BYTES_MAX);
        let mut err = err.take(GIT_COMPLAINT_BYTES_MAX);
        tokio::join!(out.read_to_end(&mut answer), err.read_to_end(&mut complaint))
    };
    if timeout(Duration::from_secs(GIT_SECONDS_MAX), reading).await.is_err() {
        crate::launch::signal_group(child.pid, Signal::KILL);
        let late = format!("no end after {GIT_SECONDS_MAX} seconds");
        return Err(Failure::new(DaemonErrorCode::GitTransportFailed, late));
    }
    drop(child.out);
    let exit = child.exit.await.unwrap_or(Exit::Code(-1));
    serde_json::from_slice(&answer).map_err(|_| {
        let why = match exit {
            Exit::Signal { number: 9, .. } => {
                "it was killed, probably because the sandbox ran out of memory".to_owned()
            }
            _ => format!("exit {}: {}", exit.code(), String::from_utf8_lossy(&complaint).trim()),
        };
        Failure::internal(format!("the Git worker gave no answer: {why}"))
    })
}
