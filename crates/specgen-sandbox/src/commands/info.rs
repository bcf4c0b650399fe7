//! `info`: what the server knows of one sandbox.

use super::{REPO_LABEL, WORKDIR_LABEL};
use crate::{
    Target,
    errors::Failure,
    find,
    output::{Said, table},
};
use clap::Args;
use infield_client::dto::Sandbox;
use serde_json::json;

#[derive(Args, Debug)]
pub struct Info {
    /// Id or name of the sandbox
    #[arg(long, value_name = "ID")]
    pub id: String,
    #[command(flatten)]
    pub target: Target,
}

pub async fn run(args: &Info) -> Result<Said, Failure> {
    let api = crate::connect(&args.target).await?;
    let sandbox = find(&api, &args.id).await?;
    Ok(Said { text: describe(&sandbox), json: json!(sandbox) })
}

fn describe(s: &Sandbox) -> String {
    let label = |name: &str| s.labels.get(name).cloned();
    let others = s.labels.iter().filter(|(name, _)| ![WORKDIR_LABEL, REPO_LABEL].contains(&name.as_str()));
    let others: Vec<String> = others.map(|(name, value)| format!("{name}={value}")).collect();
    let fields = [
        ("id", Some(s.id.clone())),
        ("name", Some(s.name.clone())),
        ("state", Some(s.state.clone())),
        ("reason", s.error_reason.clone()),
        ("snapshot", s.snapshot.clone()),
        ("user", Some(s.user.clone())),
        ("size", Some(format!("{} CPU, {} GiB memory, {} GiB disk", s.cpu, s.memory, s.disk))),
        ("repository", label(REPO_LABEL)),
        ("path", label(WORKDIR_LABEL)),
        ("labels", (!others.is_empty()).then(|| others.join(", "))),
        ("auto-stop", s.auto_stop_interval.map(|minutes| format!("{minutes} min without use"))),
        ("created", s.created_at.clone()),
        ("toolbox", Some(s.toolbox_proxy_url.clone())),
    ];
    let rows = fields.into_iter().filter_map(|(name, value)| {
        value.filter(|value| !value.is_empty()).map(|value| vec![format!("{name}:"), value])
    });
    table(&rows.collect::<Vec<_>>())
}
