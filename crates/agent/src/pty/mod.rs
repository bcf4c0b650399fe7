//! Terminals: a shell on a pseudo-terminal that any number of clients watch and type into. `terminal.rs` makes one, `pty.rs`
//! carries its bytes, `table.rs` knows them by name, `http.rs` and `socket.rs` answer requests.

mod ending;
mod envs;
mod http;
#[allow(clippy::module_inception, reason = "the thing itself")]
mod pty;
mod socket;
mod table;
mod terminal;

pub use table::Ptys;

use crate::state::Shared;
use axum::Router;
use axum::routing::{get, post};

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/process/pty", get(http::list).post(http::create))
        .route("/process/pty/create-connect", get(socket::create_connect).delete(http::delete_named_like_a_route))
        .route("/process/pty/{id}", get(http::get).delete(http::delete))
        .route("/process/pty/{id}/resize", post(http::resize))
        .route("/process/pty/{id}/connect", get(socket::connect))
}
