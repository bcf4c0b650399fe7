//! The map of the toolbox: every path on one page. Paths of the contract that are missing here stand in `unbuilt.rs`.

use crate::state::Shared;
use crate::{
    code_run, execute, files, git, info, interpreter, lsp, metrics, port, proxy, pty, session, stream, unbuilt,
};
use axum::Router;
use axum::routing::{any, get, post};

pub fn table() -> Router<Shared> {
    let info = Router::new()
        .route("/version", get(info::version))
        .route("/user-home-dir", get(info::user_home_dir))
        .route("/project-dir", get(info::user_home_dir))
        .route("/work-dir", get(info::work_dir))
        .route("/init", post(info::init))
        .route("/env", post(info::update_env))
        .route("/system/metrics", get(metrics::metrics))
        .route("/port", get(port::list))
        .route("/port/{port}/in-use", get(port::in_use))
        .route("/port/{port}/connect", get(proxy::connect_raw));
    let process = Router::new()
        .route("/process/execute", post(execute::execute))
        .route("/process/execute/stream", get(stream::execute_stream))
        .route("/process/code-run", post(code_run::code_run));
    let ports = Router::new()
        .route("/proxy/{port}", any(proxy::forward))
        .route("/proxy/{port}/", any(proxy::forward))
        .route("/proxy/{port}/{*rest}", any(proxy::forward));
    Router::new()
        .merge(info)
        .merge(process)
        .merge(files::routes())
        .merge(git::routes())
        .merge(lsp::routes())
        .merge(ports)
        .merge(pty::routes())
        .merge(interpreter::routes())
        .merge(session::routes())
        .fallback(unbuilt::fallback)
        .method_not_allowed_fallback(unbuilt::fallback)
}
