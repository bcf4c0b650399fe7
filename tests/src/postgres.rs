//! A PostgreSQL server for one test, from the machine's packages, on a free port of loopback.

use crate::{
    eventually,
    process::{self, run, succeeded},
    world::free_port,
};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A running server with an empty database, ended and deleted on drop.
pub struct Postgres {
    child: Child,
    folder: PathBuf,
    pub url: String,
}

impl Postgres {
    pub fn start() -> Self {
        let bin = binaries();
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("ift-pg-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        succeeded(&run(Command::new("chown").arg("postgres").arg(&folder), Duration::from_secs(10)));
        let data = folder.join("data");
        let mut initdb = as_postgres(&bin.join("initdb"));
        initdb.args(["--auth=trust", "--no-sync", "--username=infield", "-D"]).arg(&data).current_dir(&folder);
        succeeded(&run(&mut initdb, Duration::from_secs(120)));
        let mut server = as_postgres(&bin.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(&folder).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        server.args(["-c", "fsync=off"]).current_dir(&folder).stdin(Stdio::null());
        let log = std::fs::File::create(folder.join("log")).unwrap();
        server.stdout(log.try_clone().unwrap()).stderr(log);
        let child = server.spawn().unwrap();
        let url = format!("postgres://infield@127.0.0.1:{port}/postgres");
        let server = Self { child, folder, url };
        eventually("PostgreSQL answers", Duration::from_secs(60), || {
            let mut ready = Command::new(bin.join("pg_isready"));
            ready.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
            run(&mut ready, Duration::from_secs(10)).status.success().then_some(())
        });
        server
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown; runuser passes it on.
        let pid = self.child.id() as i32;
        for child in process::all().iter().filter(|p| p.parent == pid) {
            process::signal(child.pid, rustix::process::Signal::INT);
        }
        process::signal(pid, rustix::process::Signal::INT);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

/// Debian keeps each major version in a folder of its own; the newest one.
fn binaries() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("postgresql; run `make deps`")
        .flatten()
        .map(|e| e.path())
        .collect();
    versions.sort();
    versions.pop().expect("a version of PostgreSQL").join("bin")
}
