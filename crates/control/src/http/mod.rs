//! The URL map of the public API, grouped by noun; everything is under `/api`.

pub mod api_key;
pub mod config;
mod drain;
pub(crate) mod extract;
pub mod mission;
pub mod openapi;
mod operations;
pub mod organization;
pub mod preview;
pub mod sandbox;
pub mod sandbox_fork;
pub mod sandbox_list;
pub mod sandbox_reshape;
pub mod sandbox_settings;
pub mod signing_key;
pub mod snapshot;
pub mod ssh_access;
pub mod user;
pub(crate) mod view;
pub mod volume;

use crate::{app::App, error};
use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderName, HeaderValue, Method},
    middleware,
    response::Response,
    routing::{any, delete, get, post, put},
};
use tower_http::cors::{AllowHeaders, Any, CorsLayer};

/// Every answer says the server's version.
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-daytona-api-version");
/// Longest request body.
const BODY_BYTES_MAX: usize = 4 << 20;

pub fn router(app: App) -> Router {
    let api = Router::new()
        .merge(public())
        .merge(accounts())
        .merge(sandboxes())
        .merge(snapshots())
        .merge(volumes())
        .merge(if app.runner.makes_snapshots() { snapshots_of_sandboxes() } else { Router::new() })
        .fallback(operations::unknown)
        .method_not_allowed_fallback(operations::unknown)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    Router::new()
        .nest("/api", api)
        .layer(middleware::from_fn(error::envelope))
        .layer(middleware::from_fn(drain::drain))
        .layer(cors())
        .layer(middleware::map_response_with_state(app.clone(), name_version))
        .layer(app.events.layer(&app))
        .with_state(app)
}

async fn name_version(State(app): State<App>, mut response: Response) -> Response {
    if let Ok(version) = HeaderValue::from_str(&app.config.version) {
        response.headers_mut().insert(VERSION_HEADER, version);
    }
    response
}

fn public() -> Router<App> {
    Router::new()
        .route("/health", get(config::health))
        .route("/health/ready", get(config::ready))
        .route("/config", get(config::config))
        .route("/shared-regions", get(organization::shared_regions))
        .route("/openapi.json", get(openapi::serve))
}

fn accounts() -> Router<App> {
    Router::new()
        .route("/users/me", get(user::me))
        .route("/organizations", get(organization::list))
        // Not built; without a line of its own a parameter would catch it.
        .route("/organizations/invitations", any(operations::unknown))
        .route("/organizations/{organization}", get(organization::get))
        .route("/organizations/{organization}/usage", get(organization::usage))
        .route("/regions", get(organization::regions))
        .route("/api-keys", get(api_key::list).post(api_key::create))
        .route("/api-keys/current", get(api_key::current))
        .route("/api-keys/{name}", get(api_key::get).delete(api_key::delete))
        .route("/api-keys/{user}/{name}", delete(api_key::delete_for_user))
}

fn sandboxes() -> Router<App> {
    Router::new()
        .route("/sandbox", get(sandbox_list::list).post(sandbox::create))
        .route("/sandbox/paginated", get(sandbox_list::paginated))
        .route("/sandbox/for-runner", any(operations::unknown))
        .route("/sandbox/ssh-access/validate", get(ssh_access::validate))
        .route("/sandbox/{sandbox}", get(sandbox::get).delete(sandbox::delete))
        .route("/sandbox/{sandbox}/start", post(sandbox::start))
        .route("/sandbox/{sandbox}/stop", post(sandbox::stop))
        .route("/sandbox/{sandbox}/recover", post(sandbox::recover))
        .route("/sandbox/{sandbox}/pause", post(sandbox_reshape::pause))
        .route("/sandbox/{sandbox}/archive", post(sandbox_reshape::archive))
        .route("/sandbox/{sandbox}/backup", post(sandbox_reshape::backup))
        .route("/sandbox/{sandbox}/resize", post(sandbox_reshape::resize))
        .route("/sandbox/{sandbox}/fork", post(sandbox_fork::fork))
        .route("/sandbox/{sandbox}/forks", get(sandbox_fork::forks))
        .route("/sandbox/{sandbox}/parent", get(sandbox_fork::parent))
        .route("/sandbox/{sandbox}/ancestors", get(sandbox_fork::ancestors))
        .route("/sandbox/{sandbox}/toolbox-proxy-url", get(sandbox::toolbox_proxy_url))
        .route("/sandbox/{sandbox}/labels", put(sandbox_settings::labels))
        .route("/sandbox/{sandbox}/public/{public}", post(sandbox_settings::public))
        .route("/sandbox/{sandbox}/autostop/{minutes}", post(sandbox_settings::auto_stop))
        .route("/sandbox/{sandbox}/autopause/{minutes}", post(sandbox_settings::auto_pause))
        .route("/sandbox/{sandbox}/ttl/{minutes}", post(sandbox_settings::ttl))
        .route("/sandbox/{sandbox}/autoarchive/{minutes}", post(sandbox_settings::auto_archive))
        .route("/sandbox/{sandbox}/autodelete/{minutes}", post(sandbox_settings::auto_delete))
        .route("/sandbox/{sandbox}/last-activity", post(sandbox_settings::last_activity))
        .route("/sandbox/{sandbox}/signing-key", get(signing_key::get))
        .route("/sandbox/{sandbox}/signing-key/rotate", post(signing_key::rotate))
        .route("/sandbox/{sandbox}/ports/{port}/preview-url", get(preview::get))
        .route("/sandbox/{sandbox}/ports/{port}/signed-preview-url", get(preview::sign))
        .route("/sandbox/{sandbox}/ports/{port}/signed-preview-url/{token}/expire", post(preview::expire))
        .route("/sandbox/{sandbox}/ssh-access", post(ssh_access::create).delete(ssh_access::revoke))
        .route("/sandbox/{sandbox}/clone", post(mission::clone))
        .route("/sandbox/{sandbox}/exec", post(mission::exec))
}

fn snapshots() -> Router<App> {
    Router::new()
        .route("/snapshots", get(snapshot::list).post(snapshot::create))
        .route("/snapshots/{snapshot}", get(snapshot::get).delete(snapshot::delete))
}

/// Not every runner can.
fn snapshots_of_sandboxes() -> Router<App> {
    Router::new().route("/sandbox/{sandbox}/snapshot", post(sandbox_reshape::snapshot))
}

fn volumes() -> Router<App> {
    Router::new()
        .route("/volumes", get(volume::list).post(volume::create))
        .route("/volumes/{volume}", get(volume::get).delete(volume::delete))
        .route("/volumes/by-name/{name}", get(volume::by_name))
}

/// Browsers of any origin may call with a bearer key; cookies mean nothing here.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::PATCH,
            Method::POST,
            Method::DELETE,
            Method::OPTIONS,
        ])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([HeaderName::from_static("server-timing"), VERSION_HEADER])
}
