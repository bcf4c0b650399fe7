//! The description of what is built, generated from the handlers and served at `/api/openapi.json`.

use super::{
    api_key, config, mission, organization, preview, sandbox, sandbox_fork, sandbox_list, sandbox_reshape,
    sandbox_settings, signing_key, snapshot, ssh_access, user, volume,
};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use std::sync::LazyLock;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(title = "Infield", description = "Sandboxes for AI-written code, by the Daytona v0 API"),
    servers((url = "/api")),
    paths(
        config::health, config::ready, config::config,
        user::me, organization::list, organization::get, organization::usage, organization::regions, organization::shared_regions,
        api_key::create, api_key::list, api_key::current, api_key::get, api_key::delete, api_key::delete_for_user,
        sandbox::create, sandbox::get, sandbox::delete, sandbox::start, sandbox::stop, sandbox::recover,
        sandbox::toolbox_proxy_url,
        sandbox_reshape::pause, sandbox_reshape::archive, sandbox_reshape::backup, sandbox_reshape::resize,
        sandbox_fork::fork, sandbox_fork::forks, sandbox_fork::parent, sandbox_fork::ancestors,
        sandbox_list::list, sandbox_list::paginated,
        sandbox_settings::labels, sandbox_settings::public, sandbox_settings::auto_stop,
        sandbox_settings::auto_pause, sandbox_settings::ttl,
        sandbox_settings::auto_archive, sandbox_settings::auto_delete, sandbox_settings::last_activity,
        preview::get, preview::sign, preview::expire,
        signing_key::get, signing_key::rotate,
        ssh_access::create, ssh_access::revoke, ssh_access::validate,
        mission::clone, mission::exec,
        snapshot::list, snapshot::get, snapshot::create, snapshot::delete,
        volume::list, volume::get, volume::by_name, volume::create, volume::delete,
    )
)]
struct Described;

static JSON: LazyLock<String> = LazyLock::new(|| Described::openapi().to_json().unwrap_or_default());

/// The OpenAPI document of this server.
pub fn openapi_json() -> &'static str {
    &JSON
}

pub async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi_json()).into_response()
}
