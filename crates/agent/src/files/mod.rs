//! `/files/*`: the sandbox's files with the sandbox user's own rights, which are this process's. No path is confined and no
//! right is checked here, because the kernel already does both.

mod bulk_download;
mod bulk_upload;
pub mod disposition;
mod download;
mod find;
pub mod glob;
mod json_stream;
mod list;
pub mod multipart;
mod mutate;
mod path;
mod range;
mod reader;
mod replace;
mod target;
mod upload;
mod walk;

use crate::error::{Answer, Failure};
use crate::state::Shared;
use axum::Router;
use axum::routing::{get, post};

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/files", get(list::list).delete(mutate::delete))
        .route("/files/", get(list::list).delete(mutate::delete))
        .route("/files/info", get(list::info))
        .route("/files/folder", post(mutate::create_folder))
        .route("/files/move", post(mutate::move_file))
        .route("/files/permissions", post(mutate::set_permissions))
        .route("/files/find", get(find::find))
        .route("/files/search", get(find::search))
        .route("/files/replace", post(replace::replace))
        .route("/files/download", get(download::download))
        .route("/files/bulk-download", post(bulk_download::bulk_download))
        .route("/files/upload", post(upload::upload_legacy))
        .route("/files/upload-v2", post(upload::upload))
        .route("/files/bulk-upload", post(bulk_upload::bulk_upload))
}

/// Runs file work where it may block.
async fn blocking(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Failure::internal(e)))
}
