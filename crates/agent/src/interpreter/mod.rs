//! The stateful Python interpreter: contexts, each with a process of its own that runs one piece of code after another.
//! `worker.py` is what runs there, `wire.rs` what it and the agent say to each other, `context.rs` who decides.
//! The code in that process belongs to the user and may do anything to it; what it cannot do is speak for the agent.

mod context;
mod http;
mod job;
mod request;
mod socket;
mod table;
pub mod wire;
mod worker;

pub use table::Contexts;

use crate::state::Shared;
use axum::Router;
use axum::routing::{delete, get};

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/process/interpreter/context", get(http::list).post(http::create))
        .route("/process/interpreter/context/{id}", delete(http::delete))
        .route("/process/interpreter/execute", get(socket::execute))
}
