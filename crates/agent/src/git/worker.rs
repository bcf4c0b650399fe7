//! Being built.
pub const WORKER_ARGUMENT: &str = "git-worker";
pub fn run() -> Result<(), Box<dyn std::error::Error>> {
    Err("not built".into())
}
