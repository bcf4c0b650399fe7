//! `infield key`: API keys of the local server, through its API.

use crate::cli::{KeyArgs, KeyCommand};
use infield_client::{
    Api,
    dto::{ApiKey, CreateApiKey},
};
use serde_json::json;
use specgen_sandbox::{Failure, Provider, Said, Target};
use std::process::ExitCode;

const DEFAULT_PERMISSIONS: [&str; 2] = ["write:sandboxes", "delete:sandboxes"];

pub fn main(command: KeyCommand) -> ExitCode {
    let (KeyCommand::Create { args, .. } | KeyCommand::Delete { args, .. } | KeyCommand::List(args)) = &command;
    let args = KeyArgs { data: args.data.clone(), json: args.json };
    specgen_sandbox::run_as_command(args.json, async move {
        let api = specgen_sandbox::connect(&local(&args)).await?;
        match command {
            KeyCommand::Create { name, permissions, expires_at, .. } => {
                create(&api, name, permissions, expires_at).await
            }
            KeyCommand::List(_) => list(&api).await,
            KeyCommand::Delete { name, .. } => {
                api.delete_key(&name).await?;
                Ok(Said { text: format!("deleted key {name}"), json: json!({"name": name, "deleted": true}) })
            }
        }
    })
}

fn local(args: &KeyArgs) -> Target {
    Target { provider: Some(Provider::Local), data_dir: args.data.data_dir.clone(), json: args.json }
}

async fn create(
    api: &Api,
    name: String,
    permissions: Vec<String>,
    expires_at: Option<String>,
) -> Result<Said, Failure> {
    let permissions = if permissions.is_empty() { DEFAULT_PERMISSIONS.map(String::from).to_vec() } else { permissions };
    let key = api.create_key(&CreateApiKey { name, permissions, expires_at }).await?;
    Ok(Said {
        text: format!("{}\nshown this once; use it with DAYTONA_API_URL={}", key.value, api.endpoint().base()),
        json: json!(key),
    })
}

async fn list(api: &Api) -> Result<Said, Failure> {
    let keys = api.keys().await?;
    let mut rows = vec![["NAME", "KEY", "CREATED", "LAST USED", "EXPIRES", "PERMISSIONS"].map(String::from).to_vec()];
    rows.extend(keys.iter().map(row));
    Ok(Said { text: specgen_sandbox::table(&rows), json: json!(keys) })
}

fn row(key: &ApiKey) -> Vec<String> {
    let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".into());
    let permissions = key.permissions.join(",");
    vec![
        key.name.clone(),
        key.value.clone(),
        time(&key.created_at),
        time(&key.last_used_at),
        time(&key.expires_at),
        permissions,
    ]
}
