//! `spin`: create, clone, ready. A sandbox whose clone failed is deleted again; it would only cost.

use super::{REPO_LABEL, WORKDIR_LABEL};
use crate::{
    Target,
    errors::{CLONE_FAILED, CREATION_FAILED, Failure, USAGE},
    output::{Progress, Said, took},
    repo::{self, Credentials, Repo},
};
use clap::Args;
use infield_client::{
    Api, ClientError, Toolbox,
    dto::{CreateSandbox, Sandbox},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

#[derive(Args, Debug)]
pub struct Spin {
    /// Repository to clone: an http(s) address, or a folder on this machine
    #[arg(long, value_name = "URL")]
    pub repo: Option<String>,
    /// Branch to clone [default: the repository's own]
    #[arg(long, requires = "repo")]
    pub branch: Option<String>,
    /// Name of the sandbox [default: the server's choice]
    #[arg(long)]
    pub name: Option<String>,
    /// Where the repository goes in the sandbox [default: its name in the home directory]
    #[arg(long, requires = "repo")]
    pub path: Option<String>,
    /// Snapshot to make the sandbox from [default: the server's]
    #[arg(long)]
    pub snapshot: Option<String>,
    /// Environment of every command in the sandbox
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = name_value)]
    pub env: Vec<(String, String)>,
    /// Labels of the sandbox
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = name_value)]
    pub label: Vec<(String, String)>,
    /// Minutes without use until the sandbox stops; 0 = never [default: the server's]
    #[arg(long, value_name = "MINUTES")]
    pub auto_stop: Option<u32>,
    #[command(flatten)]
    pub credentials: Credentials,
    #[command(flatten)]
    pub target: Target,
}

/// `NAME=VALUE` as it is typed.
pub fn name_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

struct Spun {
    sandbox: Sandbox,
    workdir: Option<String>,
    branch: Option<String>,
    created_in: Duration,
}

pub async fn run(args: &Spin) -> Result<Said, Failure> {
    let repo = args.repo.as_deref().map(Repo::parse).transpose()?;
    let api = crate::connect(&args.target).await?;
    let started = Instant::now();
    let progress = Progress::start("creating a sandbox");
    let sandbox = create(&api, args, repo.as_ref()).await?;
    let created_in = started.elapsed();
    let mut spun = Spun { sandbox, workdir: None, branch: None, created_in };
    if let Some(repo) = &repo {
        progress.say(format!("cloning {}", repo.shown()));
        match clone(&api, args, repo, &spun.sandbox).await {
            Ok((workdir, branch)) => (spun.workdir, spun.branch) = (Some(workdir), branch),
            Err(failure) => {
                let gone = api.delete(&spun.sandbox.id).await.is_ok();
                let detail = failure.detail.clone().unwrap_or_default();
                let fate = if gone { "was deleted again" } else { "still exists: delete it" };
                return Err(Failure {
                    detail: Some(format!("{detail} (sandbox {} {fate})", spun.sandbox.id)),
                    ..failure
                });
            }
        }
    }
    drop(progress);
    Ok(said(&spun, started.elapsed()))
}

async fn create(api: &Api, args: &Spin, repo: Option<&Repo>) -> Result<Sandbox, Failure> {
    let mut labels: BTreeMap<String, String> = args.label.iter().cloned().collect();
    if let Some(repo) = repo {
        labels.insert(REPO_LABEL.into(), repo.shown());
    }
    let spec = CreateSandbox {
        name: args.name.clone(),
        snapshot: args.snapshot.clone(),
        env: args.env.iter().cloned().collect(),
        labels,
        auto_stop_interval: args.auto_stop.map(i64::from),
        ..CreateSandbox::default()
    };
    let failed = |e: ClientError| Failure::during(CREATION_FAILED, e);
    let sandbox = api.create(&spec).await.map_err(failed)?;
    let id = sandbox.id.clone();
    match api.wait_started(sandbox, crate::START_MAX).await {
        Ok(sandbox) => Ok(sandbox),
        Err(e) => Err(failed(e).next(format!("look at it with: info --id {id}; remove it with: delete --id {id}"))),
    }
}

/// Where the repository is now, and its branch.
async fn clone(api: &Api, args: &Spin, repo: &Repo, sandbox: &Sandbox) -> Result<(String, Option<String>), Failure> {
    let toolbox = api.toolbox(sandbox).await?;
    let home = toolbox.home_dir().await?;
    let workdir = args.path.clone().unwrap_or_else(|| format!("{home}/{}", repo.name()));
    let branch = clone_into(&toolbox, args, repo, &home, &workdir).await?;
    let mut labels = sandbox.labels.clone();
    labels.insert(WORKDIR_LABEL.into(), workdir.clone());
    api.set_labels(&sandbox.id, labels).await?;
    Ok((workdir, branch))
}

async fn clone_into(
    toolbox: &Toolbox,
    args: &Spin,
    repo: &Repo,
    home: &str,
    workdir: &str,
) -> Result<Option<String>, Failure> {
    let credentials = args.credentials.read();
    let (url, branch) = match repo {
        Repo::Remote(url) => (url.clone(), args.branch.clone()),
        Repo::Local(folder) => {
            let branch = match &args.branch {
                Some(branch) => branch.clone(),
                None => repo::git::current_branch(folder).await?,
            };
            let origin = repo::mirror::seed(toolbox, folder, &branch, home).await?;
            (origin, Some(branch))
        }
    };
    let clone = infield_client::toolbox::Clone {
        url: &url,
        path: workdir,
        branch: branch.as_deref(),
        credentials: credentials.as_ref(),
    };
    toolbox.git_clone(&clone).await.map_err(clone_failed)?;
    Ok(branch)
}

fn clone_failed(error: ClientError) -> Failure {
    let next = match error.code() {
        Some("GIT_AUTH_FAILED") => Some("set GIT_USERNAME and GIT_TOKEN and spin again"),
        Some("GIT_BRANCH_NOT_FOUND") => Some("name a branch that exists on the remote with --branch"),
        _ => None,
    };
    // 401 comes from the remote here, so it says nothing about the API key.
    let failure = match &error {
        ClientError::Http { message, .. } => Failure::detailed(CLONE_FAILED, message.clone()),
        _ => Failure::during(CLONE_FAILED, error),
    };
    match next {
        Some(next) => failure.next(next),
        None => failure,
    }
}

fn said(spun: &Spun, total: Duration) -> Said {
    let s = &spun.sandbox;
    let mut text = format!("{} is {} after {} (created in {})\n", s.name, s.state, took(total), took(spun.created_in));
    text.push_str(&format!("id:     {}\n", s.id));
    if let Some(workdir) = &spun.workdir {
        let branch = spun.branch.as_deref().map(|b| format!(", branch {b}")).unwrap_or_default();
        text.push_str(&format!("path:   {workdir}{branch}\n"));
    }
    text.push_str(&format!("next:   exec --id {} --cmd \"make all\"\n", s.id));
    if spun.workdir.is_some() {
        text.push_str(&format!("        sync --id {}\n", s.id));
    }
    text.push_str(&format!("        delete --id {}", s.id));
    let json = json!({
        "id": s.id, "name": s.name, "state": s.state, "path": spun.workdir, "branch": spun.branch,
        "createdInMs": millis(spun.created_in), "readyInMs": millis(total),
    });
    Said { text, json }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The failure for arguments that clap cannot judge.
pub fn usage(detail: impl Into<String>) -> Failure {
    Failure::detailed(USAGE, detail)
}
