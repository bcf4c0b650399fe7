//! Log lines of the server's processes: standard error, level from INFIELD_LOG (as `RUST_LOG`), `info` by default.

use tracing_subscriber::EnvFilter;

pub fn init() {
    let filter = EnvFilter::try_from_env("INFIELD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call changes nothing.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}
