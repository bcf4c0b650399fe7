//! The composition root: which implementation stands behind which seam. Decides nothing else.

use crate::{cli::HostArgs, paths::Paths, serve::http};
use anyhow::{Context, Result};
use infield_api::runner::Runner;
use infield_client::RemoteRunner;
use infield_control::{App, ControlConfig};
use infield_gateway::{Gateway, GatewayConfig};
use infield_store::Store;
use std::sync::Arc;

/// The in-sandbox agent, made by this crate's build script.
pub const AGENT: &[u8] = include_bytes!(env!("INFIELD_AGENT"));

/// The API side of the server.
pub struct Api {
    pub store: Store,
    pub control: App,
    gateway: Gateway,
}

/// Control plane and gateway over the runner's socket.
pub async fn api(paths: &Paths, public_url: Option<String>) -> Result<Api> {
    let url = std::env::var("INFIELD_DATABASE_URL").ok().filter(|url| !url.is_empty());
    let store = Store::open(&url.unwrap_or_else(|| paths.database_url())).await.context("cannot open the database")?;
    let runner: Arc<dyn Runner> = Arc::new(RemoteRunner::new(paths.run()));
    let config = ControlConfig { public_url, ..ControlConfig::default() };
    let control = App::new(config, store.clone(), runner.clone());
    let gateway = Gateway::new(control.directory(), runner, GatewayConfig::default());
    Ok(Api { store, control, gateway })
}

/// The key of an empty database, or another one when the local command line has none.
pub async fn first_key(api: &Api, wanted: bool) -> Result<Option<String>> {
    if let Some(key) = infield_control::bootstrap(&api.store).await.context("cannot prepare the database")? {
        return Ok(Some(key.0));
    }
    if !wanted {
        return Ok(None);
    }
    let name = format!("local-{}", std::process::id());
    let key = infield_control::another_admin_key(&api.store, &name).await.context("cannot make a key")?;
    Ok(Some(key.0))
}

impl Api {
    pub fn http(&self) -> http::App {
        http::App { api: self.control.router(), gateway: self.gateway.clone() }
    }
}
