//! The infield server of this machine: found by its data folder, started when it does not run.

use crate::{
    errors::{Failure, LOCAL_SERVER},
    output::Progress,
};
use infield_client::{Api, ClientError};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a starting server may take before that counts as failure.
const START_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// How much of the server's own words a failure repeats.
const LOG_TAIL_BYTES: usize = 800;

pub async fn connect(data_dir: &Path) -> Result<Api, Failure> {
    if let Some(api) = running(data_dir).await? {
        return Ok(api);
    }
    start(data_dir).await
}

/// The server, when it answers.
async fn running(data_dir: &Path) -> Result<Option<Api>, Failure> {
    let Some(url) = read(&data_dir.join("api-url"))? else { return Ok(None) };
    let Some(key) = read(&data_dir.join("admin.key"))? else { return Ok(None) };
    let api = Api::new(&url, &key)?;
    match api.health().await {
        Ok(()) => Ok(Some(api)),
        Err(ClientError::Refused { .. } | ClientError::Broken { .. }) => Ok(None),
        // The API answers 5xx while its runner comes up.
        Err(ClientError::Http { status, .. }) if status.is_server_error() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

async fn start(data_dir: &Path) -> Result<Api, Failure> {
    let program = find_program().ok_or_else(|| {
        Failure::detailed(LOCAL_SERVER, "no server runs, and no `infield` lies beside this program or on PATH")
    })?;
    let progress = Progress::start("starting the local server");
    let log_path = std::env::temp_dir().join(format!("infield-serve-{}.log", uuid::Uuid::new_v4()));
    let mut server = spawn(&program, data_dir, &log_path)
        .map_err(|e| Failure::detailed(LOCAL_SERVER, format!("cannot start {}: {e}", program.display())))?;
    let started = Instant::now();
    let outcome = loop {
        if let Some(api) = running(data_dir).await? {
            break Ok(api);
        }
        if let Ok(Some(status)) = server.try_wait() {
            break Err(format!("{} serve ended ({status}): {}", program.display(), tail(&log_path)));
        }
        if started.elapsed() > START_MAX {
            break Err(format!("the server did not answer within {START_MAX:?}: {}", tail(&log_path)));
        }
        tokio::time::sleep(POLL).await;
    };
    drop(progress);
    outcome.map_err(|why| Failure::detailed(LOCAL_SERVER, why))
}

/// Its own process group, so that Ctrl-C here does not end it; it goes on after this command.
fn spawn(program: &Path, data_dir: &Path, log_path: &Path) -> io::Result<Child> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let log = options.open(log_path)?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--data-dir").arg(data_dir);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.spawn()
}

/// Beside this program first (they are built and installed together), then on PATH.
fn find_program() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("infield")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("infield"));
    beside.into_iter().chain(on_path).find(|candidate| candidate.is_file())
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => {
            let detail = format!("cannot read {}: {e}", path.display());
            Err(Failure::detailed(LOCAL_SERVER, detail)
                .next("run this with sudo, or ask for an API key and set DAYTONA_API_URL and DAYTONA_API_KEY"))
        }
    }
}

fn tail(log_path: &Path) -> String {
    let text = fs::read_to_string(log_path).unwrap_or_default();
    let from = text.len().saturating_sub(LOG_TAIL_BYTES);
    let from = (from..text.len()).find(|&i| text.is_char_boundary(i)).unwrap_or(text.len());
    // The log's first lines hold a new admin key.
    let lines = text[from..].lines().filter(|line| !line.contains("DAYTONA_API_KEY="));
    lines.collect::<Vec<_>>().join("; ")
}
