//! What needs no key: health and configuration.

use super::{extract::BaseUrl, ssh_access};
use crate::{app::App, lifecycle::create::AUTO_ARCHIVE_MAX_MIN};
use axum::{Json, extract::State, http::StatusCode};
use infield_api::config::{Component, DaytonaConfiguration, Health, OidcConfig, Readiness};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// A component that takes longer to answer counts as down.
const READY_WITHIN: Duration = Duration::from_secs(3);
/// Nobody needs a key to ask, so the components are asked at most this often.
const READY_EVERY: Duration = Duration::from_secs(1);

/// What the components said last. Held while they are asked: callers that come meanwhile wait for the same answer.
#[derive(Default)]
pub(crate) struct LastReadiness(Mutex<Option<(Instant, Readiness)>>);

/// The process answers.
#[utoipa::path(get, path = "/health", operation_id = "HealthController_live", tag = "health",
    responses((status = 200, body = Health)))]
pub async fn health() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

/// Database and runner answer too.
#[utoipa::path(get, path = "/health/ready", operation_id = "HealthController_check", tag = "health",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness)))]
pub async fn ready(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let mut last = app.readiness.0.lock().await;
    let readiness = match last.take().filter(|(at, _)| at.elapsed() < READY_EVERY) {
        Some(fresh) => last.insert(fresh),
        None => last.insert((Instant::now(), ask(&app).await)),
    };
    let readiness = readiness.1.clone();
    let status = if readiness.error.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

async fn ask(app: &App) -> Readiness {
    let database = tokio::time::timeout(READY_WITHIN, app.store.ping()).await.is_ok_and(|r| r.is_ok());
    let runner = tokio::time::timeout(READY_WITHIN, app.runner.images()).await.is_ok_and(|r| r.is_ok());
    let mut readiness = Readiness {
        status: if database && runner { "ok" } else { "error" }.to_owned(),
        info: BTreeMap::new(),
        error: BTreeMap::new(),
        details: BTreeMap::new(),
    };
    for (name, up) in [("database", database), ("runner", runner)] {
        let message = (!up).then(|| "does not answer; see the server's log".to_owned());
        let component = Component { status: if up { "up" } else { "down" }.to_owned(), message };
        let list = if up { &mut readiness.info } else { &mut readiness.error };
        list.insert(name.to_owned(), component.clone());
        readiness.details.insert(name.to_owned(), component);
    }
    readiness
}

/// Facts about this server. There is no identity provider yet: keys are the only credentials.
#[utoipa::path(get, path = "/config", operation_id = "ConfigController_getConfig", tag = "config",
    responses((status = 200, body = DaytonaConfiguration)))]
pub async fn config(State(app): State<App>, base: BaseUrl) -> Json<DaytonaConfiguration> {
    Json(DaytonaConfiguration {
        version: app.config.version.clone(),
        oidc: OidcConfig {
            issuer: base.0.clone(),
            client_id: "infield".to_owned(),
            audience: "infield".to_owned(),
            provider: "none".to_owned(),
        },
        linked_accounts_enabled: false,
        announcements: BTreeMap::new(),
        proxy_template_url: base.preview_template(&app),
        proxy_toolbox_url: base.toolbox(),
        default_snapshot: app.config.default_snapshot.clone(),
        dashboard_url: format!("{}/dashboard", base.0),
        max_auto_archive_interval: AUTO_ARCHIVE_MAX_MIN as u32,
        maintanance_mode: false,
        environment: "production".to_owned(),
        ssh: ssh_access::gateway(&app, &base),
    })
}
