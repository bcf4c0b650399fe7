//! Where sandboxes come from. A provider finds a server and the key for it; from there on all servers are alike.

mod daytona;
mod local;

use crate::{Target, errors::Failure};
use clap::ValueEnum;
use infield_client::Api;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Provider {
    /// The server at DAYTONA_API_URL (default https://app.daytona.io/api) with the key in DAYTONA_API_KEY
    Daytona,
    /// The infield server on this machine; it is started when it does not run
    Local,
}

/// A client of the server that the target names.
pub async fn connect(target: &Target) -> Result<Api, Failure> {
    match target.provider.unwrap_or_else(default_provider) {
        Provider::Daytona => daytona::connect(),
        Provider::Local => local::connect(&target.data_dir).await,
    }
}

fn default_provider() -> Provider {
    if daytona::key().is_some() { Provider::Daytona } else { Provider::Local }
}
