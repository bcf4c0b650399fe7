//! Being built.
use crate::state::Shared;
pub mod worker;
pub fn routes() -> axum::Router<Shared> {
    axum::Router::new()
}
