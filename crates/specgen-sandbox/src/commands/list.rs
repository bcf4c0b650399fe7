//! `list`: every sandbox of this key.

use crate::{
    Target,
    errors::Failure,
    output::{Said, table},
};
use clap::Args;
use infield_client::dto::Sandbox;
use serde_json::json;

#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    pub target: Target,
}

pub async fn run(args: &List) -> Result<Said, Failure> {
    let api = crate::connect(&args.target).await?;
    let sandboxes = api.list().await?;
    let text = if sandboxes.is_empty() { "no sandboxes; make one with spin".into() } else { table(&rows(&sandboxes)) };
    Ok(Said { text, json: json!(sandboxes) })
}

fn rows(sandboxes: &[Sandbox]) -> Vec<Vec<String>> {
    let head = ["ID", "NAME", "STATE", "CPU", "MEMORY", "DISK", "SNAPSHOT", "CREATED"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(sandboxes.iter().map(|s| {
        vec![
            s.id.clone(),
            s.name.clone(),
            s.state.clone(),
            s.cpu.to_string(),
            format!("{} GiB", s.memory),
            format!("{} GiB", s.disk),
            s.snapshot.clone().unwrap_or_default(),
            s.created_at.clone().unwrap_or_default(),
        ]
    }));
    rows
}
