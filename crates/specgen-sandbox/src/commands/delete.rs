//! `delete`: the sandbox and everything in it.

use crate::{Target, errors::Failure, find, output::Said};
use clap::Args;
use serde_json::json;

#[derive(Args, Debug)]
pub struct Delete {
    /// Id or name of the sandbox
    #[arg(long, value_name = "ID")]
    pub id: String,
    #[command(flatten)]
    pub target: Target,
}

pub async fn run(args: &Delete) -> Result<Said, Failure> {
    let api = crate::connect(&args.target).await?;
    // A name is looked up first: it is the id that is deleted, whatever is renamed meanwhile.
    let sandbox = find(&api, &args.id).await?;
    api.delete(&sandbox.id).await?;
    Ok(Said {
        text: format!("deleted {} ({})", sandbox.name, sandbox.id),
        json: json!({"id": sandbox.id, "name": sandbox.name, "deleted": true}),
    })
}
