//! `/process/session*`: live shells that run one command after the other, with logs that can be read and followed, and the
//! sandbox's entry point as a session that can only be read.
//!
//! `table` knows the sessions, `driver` runs the commands of one, `shell` and `control` are how it talks with its shell,
//! `frames` and `store` are what logs are made of and where they lie.

pub mod command;
pub mod control;
mod driver;
pub mod frames;
mod handlers;
mod logs;
mod shell;
mod store;
mod table;
pub mod version;

pub use table::Sessions;

use crate::state::Shared;
use crate::ws::Offered;
use axum::Router;
use axum::routing::{get, post};
use http::HeaderMap;
use version::Asker;

/// The one session that clients cannot make, end or use.
pub const ENTRYPOINT_ID: &str = "entrypoint";
pub const ENTRYPOINT_COMMAND: &str = "entrypoint_command";

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/process/session", get(handlers::list).post(handlers::create))
        .route("/process/session/entrypoint/logs", get(logs::entrypoint))
        .route("/process/session/{session}", get(handlers::get).delete(handlers::delete))
        .route("/process/session/{session}/exec", post(handlers::exec))
        .route("/process/session/{session}/command/{command}", get(handlers::command))
        .route("/process/session/{session}/command/{command}/input", post(handlers::input))
        .route("/process/session/{session}/command/{command}/logs", get(logs::command))
}

/// Who asks, by the headers or the tokens of a WebSocket.
fn asker(headers: &HeaderMap) -> Asker {
    let split = headers.get("x-daytona-split-output").is_some_and(|v| v.as_bytes() == b"true");
    Asker::new(Offered::of(headers).sdk_version(), split)
}

/// Words as a shell would take them back.
fn quoted(words: &[String]) -> String {
    let quote = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn entry_points_are_quoted() {
        let words = ["sh".to_owned(), "-c".to_owned(), "echo 'a b'".to_owned()];
        assert_eq!(super::quoted(&words), r"'sh' '-c' 'echo '\''a b'\'''");
    }
}
