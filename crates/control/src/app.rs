//! Everything the control plane holds, once; handlers get a cheap clone.

use crate::{
    activity::Activity,
    auth::Auth,
    directory::Sandboxes,
    events::{self, Events},
    http::{self, config::LastReadiness},
    lifecycle::{driver::Driver, janitor, reconcile},
    snapshots::Snapshots,
};
use infield_api::{directory::Directory, runner::Runner};
use infield_store::{Store, StoreError};
use std::{
    future::Future,
    sync::{Arc, Weak},
};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// What the composition root decides.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// How clients reach this server, without a trailing slash; `None` = `http://<Host header>`.
    pub public_url: Option<String>,
    /// Previews are hosts below this name, with a port where that is not the scheme's own; `None` = below the public URL's.
    pub preview_domain: Option<String>,
    /// Name of the snapshot used when a caller names none.
    pub default_snapshot: String,
    /// Most one sandbox may have.
    pub limits: Limits,
    /// Shown by `GET /config`.
    pub version: String,
    /// Where the SSH gateway listens; `None` = it does not.
    pub ssh: Option<SshListener>,
}

/// The SSH gateway as clients have to know it.
#[derive(Clone, Debug)]
pub struct SshListener {
    pub port: u16,
    /// One line: kind and key.
    pub host_key: String,
    /// `SHA256:…`
    pub fingerprint: String,
}

/// Whole cores and GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub cpu: u32,
    pub memory_gib: u32,
    pub disk_gib: u32,
}

impl Limits {
    /// Everything a host has, for one sandbox; never less than one of each.
    pub fn of_host(cores: usize, memory_bytes: u64, disk_bytes: u64) -> Self {
        let gib = |bytes: u64| u32::try_from(bytes >> 30).unwrap_or(u32::MAX).max(1);
        Self {
            cpu: u32::try_from(cores).unwrap_or(u32::MAX).max(1),
            memory_gib: gib(memory_bytes),
            disk_gib: gib(disk_bytes),
        }
    }
}

/// The one region of one host.
pub const REGION: &str = "us";

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            public_url: None,
            preview_domain: None,
            default_snapshot: "infield/base:1".to_owned(),
            limits: Limits { cpu: 4, memory_gib: 8, disk_gib: 10 },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ssh: None,
        }
    }
}

/// The control plane.
#[derive(Clone)]
pub struct App(Arc<Inner>);

pub struct Inner {
    pub(crate) config: ControlConfig,
    pub(crate) store: Store,
    pub(crate) runner: Arc<dyn Runner>,
    pub(crate) auth: Auth,
    pub(crate) activity: Activity,
    pub(crate) driver: Arc<Driver>,
    pub(crate) sandboxes: Arc<Sandboxes>,
    pub(crate) snapshots: Snapshots,
    pub(crate) events: Events,
    pub(crate) readiness: LastReadiness,
    runner_id: OnceCell<String>,
}

impl std::ops::Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    pub fn new(config: ControlConfig, store: Store, runner: Arc<dyn Runner>) -> Self {
        let sandboxes = Arc::new(Sandboxes::new());
        let on_change = {
            let sandboxes = sandboxes.clone();
            Arc::new(move |id| sandboxes.forget(id))
        };
        Self(Arc::new(Inner {
            driver: Driver::new(store.clone(), runner.clone(), on_change),
            config,
            store,
            runner,
            auth: Auth::new(),
            activity: Activity::default(),
            sandboxes,
            snapshots: Snapshots::new(),
            events: Events::new(),
            readiness: LastReadiness::default(),
            runner_id: OnceCell::new(),
        }))
    }

    /// The id this installation's runner goes by; made once.
    pub(crate) async fn runner_id(&self) -> Result<String, StoreError> {
        let made = || async { self.store.meta_or("runner_id", || Uuid::new_v4().to_string()).await };
        self.runner_id.get_or_try_init(made).await.cloned()
    }

    /// For what the app itself holds on to.
    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn upgrade(weak: &Weak<Inner>) -> Option<Self> {
        weak.upgrade().map(Self)
    }

    /// Every route, under `/api`.
    pub fn router(&self) -> axum::Router {
        http::router(self.clone())
    }

    /// What the gateway asks.
    pub fn directory(&self) -> Arc<dyn Directory> {
        Arc::new(self.clone())
    }

    /// One look at every clock as if it were `now_ms`: what [`Self::run_background`] does every few seconds.
    pub async fn sweep(&self, now_ms: i64) {
        if let Err(e) = janitor::sweep(self, now_ms).await {
            tracing::warn!(error = e.message, "a sweep failed; the next one tries again");
        }
    }

    /// Reconciles with the host, then keeps house until `shutdown` is ready. Writes what is still in memory at the end.
    pub async fn run_background(&self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let work = async {
            tokio::join!(reconcile::run(self), janitor::run(self), janitor::flush_activity(self), events::run(self));
        };
        tokio::select! {
            () = &mut shutdown => {}
            () = work => {}
        }
        if let Err(e) = self.activity.flush(&self.store).await {
            tracing::warn!(error = %e, "the last seconds of activity are lost");
        }
    }
}
