//! Any server of the published contract, named by the two environment variables that every SDK reads.

use crate::errors::{Failure, KEY_NOT_SET};
use infield_client::Api;

pub const HOSTED_URL: &str = "https://app.daytona.io/api";

pub fn connect() -> Result<Api, Failure> {
    let key = key().ok_or_else(|| Failure::new(KEY_NOT_SET))?;
    let url = variable("DAYTONA_API_URL").unwrap_or_else(|| HOSTED_URL.to_owned());
    Ok(Api::new(&url, &key)?)
}

pub fn key() -> Option<String> {
    variable("DAYTONA_API_KEY")
}

/// Set to nothing is not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}
