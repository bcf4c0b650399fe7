//! The parsers under test, compiled from the very files of the product: most of them are private to their crates, and a fuzz
//! target is no reason to make them public. Knows no invariants; each target states its own.

#![allow(dead_code)]

/// Archives and documents of images, from `infield-engine`.
#[path = "../../crates/engine/src/image"]
pub mod image {
    pub mod config;
    pub mod entry;
    pub mod error;
    pub mod manifest;
    pub mod reference;
    pub mod tarfile;
    pub mod tarhead;
    pub mod unpack;
}

/// Parts of the agent; at the crate's root because they name each other as `crate::…`.
#[path = "../../crates/agent/src/code_run/charts.rs"]
pub mod charts;
#[path = "../../crates/agent/src/direct.rs"]
pub mod direct;
#[path = "../../crates/agent/src/files/disposition.rs"]
pub mod disposition;
#[path = "../../crates/agent/src/env.rs"]
pub mod env;
#[path = "../../crates/agent/src/files/glob.rs"]
pub mod glob;
#[path = "../../crates/agent/src/json_text.rs"]
pub mod json_text;
#[path = "../../crates/agent/src/files/multipart.rs"]
pub mod multipart;
#[path = "../../crates/agent/src/passwd.rs"]
pub mod passwd;
#[path = "../../crates/agent/src/files/path.rs"]
pub mod path;
#[path = "../../crates/agent/src/query_pairs.rs"]
pub mod query_pairs;
#[path = "../../crates/agent/src/files/range.rs"]
pub mod range;
#[path = "../../crates/agent/src/interpreter/wire.rs"]
pub mod wire;
#[path = "../../crates/agent/src/proxy_target.rs"]
pub mod proxy_target;
#[path = "../../crates/agent/src/sdk.rs"]
pub mod sdk;
#[path = "../../crates/agent/src/timestamp.rs"]
pub mod timestamp;
/// The texts that transfers read.
#[path = "../../crates/agent/src/git"]
pub mod git {
    pub mod credential_line;
    pub mod dns_text;
    pub mod url;

    /// Stands in for the agent's, which knows libgit2.
    pub mod failure {
        use infield_api::toolbox::DaemonErrorCode;

        #[derive(Debug)]
        pub struct GitFailure;
        pub type Result<T> = std::result::Result<T, GitFailure>;

        impl GitFailure {
            pub fn new(_: DaemonErrorCode, _: impl Into<String>) -> Self {
                Self
            }
        }
    }
}
/// What clients of sockets say.
#[path = "../../crates/agent/src/pty/envs.rs"]
pub mod pty_envs;
#[path = "../../crates/agent/src/interpreter/request.rs"]
pub mod request;
#[path = "../../crates/agent/src/ws"]
pub mod ws {
    pub mod code;
    pub mod offered;
}
/// The pure parts of sessions.
#[path = "../../crates/agent/src/session"]
pub mod session {
    pub mod control;
    pub mod frames;
    pub mod version;
}
#[path = "../../crates/agent/src/shell.rs"]
pub mod shell;
#[path = "../../crates/agent/src/stat.rs"]
pub mod stat;

/// What language servers print.
#[path = "../../crates/agent/src/lsp"]
pub mod lsp {
    pub mod answers;
    pub mod framing;
    pub mod place;
}

/// Stands in for the agent's reader of small files, so that targets choose what `/etc/passwd` and `/etc/group` hold.
pub mod small_file {
    use std::{cell::RefCell, collections::HashMap, io, path::Path};

    thread_local! {
        static FILES: RefCell<HashMap<String, Vec<u8>>> = RefCell::default();
    }

    pub fn put(path: &str, content: &[u8]) {
        FILES.with_borrow_mut(|files| files.insert(path.to_owned(), content.to_vec()));
    }

    pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let found = FILES.with_borrow(|files| files.get(path.to_str().unwrap_or_default()).cloned());
        let content = found.ok_or(io::ErrorKind::NotFound)?;
        if content.len() as u64 > limit { Err(io::ErrorKind::InvalidData.into()) } else { Ok(content) }
    }
}

/// Signatures of URLs, from `infield-control`.
#[path = "../../crates/control/src/secret.rs"]
pub mod secret;
#[path = "../../crates/control/src/signed_url.rs"]
pub mod signed_url;

/// The relay's reading of a request target.
#[path = "../../crates/gateway/src/target.rs"]
pub mod target;
/// Its reading of a host name.
#[path = "../../crates/gateway/src/host.rs"]
pub mod host;
