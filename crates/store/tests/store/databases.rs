//! Every test runs on both databases: SQLite in a directory of its own, PostgreSQL in a database of its own.
//!
//! PostgreSQL is Debian's package: one private cluster per test process, as an unprivileged user, on a unix socket only.
//! A watching shell ends it and removes its files when this process ends, however it ends.

use infield_store::Store;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

static COUNTER: AtomicU64 = AtomicU64::new(0);
static CLUSTER: OnceLock<Cluster> = OnceLock::new();

struct Cluster {
    dir: PathBuf,
    /// Its standard input stays open as long as this process lives.
    _watcher: Child,
}

/// Runs the test on both databases.
pub async fn each(test: impl AsyncFn(Store)) {
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("infield-store-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let _dir = Removed(dir.clone());
    println!("on SQLite");
    test(Store::open(&format!("sqlite:{}/test.db", dir.display())).await.unwrap()).await;
    println!("on PostgreSQL");
    test(Store::open(&postgres_url(n).await).await.unwrap()).await;
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A fresh database.
pub async fn postgres_url(n: u64) -> String {
    let cluster = CLUSTER.get_or_init(start);
    let url = |database: &str| format!("postgres:///{database}?user=infield&host={}", cluster.dir.display());
    let admin = sqlx::PgPool::connect(&url("postgres")).await.unwrap();
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE test{n}"));
    sqlx::query(create).execute(&admin).await.unwrap();
    admin.close().await;
    url(&format!("test{n}"))
}

fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let bins = versions.map(|v| v.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    bins.max().expect("PostgreSQL is not installed: apt-get install postgresql (the Makefile does it)")
}

fn start() -> Cluster {
    let bin = binaries();
    let dir = std::env::temp_dir().join(format!("infield-pg-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    // PostgreSQL refuses to run as root.
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let user = ["postgres", "nobody"].into_iter().find(|u| passwd.contains(&format!("\n{u}:"))).unwrap();
    let root = std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0).unwrap();
    let run_as =
        if root { format!("setpriv --reuid={user} --regid=$(id -g {user}) --clear-groups") } else { String::new() };
    let script = format!(
        "set -e; cd {dir}; [ -z '{root}' ] || chown {user} .; \
         {run_as} {bin}/initdb -D data -U infield --auth=trust --no-sync --locale=C -E UTF8 >initdb.log 2>&1; \
         {run_as} {bin}/postgres -D data -k {dir} -c listen_addresses= -c fsync=off >postgres.log 2>&1 </dev/null & \
         server=$!; cat >/dev/null; kill -QUIT $server; wait $server || true; cd /; rm -rf {dir}",
        dir = dir.display(),
        bin = bin.display(),
        root = if root { "yes" } else { "" },
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let mut watcher = command.spawn().unwrap();
    await_socket(&dir, &mut watcher);
    Cluster { dir, _watcher: watcher }
}

fn await_socket(dir: &Path, watcher: &mut Child) {
    let began = Instant::now();
    while std::os::unix::net::UnixStream::connect(dir.join(".s.PGSQL.5432")).is_err() {
        let log = || std::fs::read_to_string(dir.join("postgres.log")).unwrap_or_default();
        assert!(watcher.try_wait().unwrap().is_none(), "PostgreSQL did not start in {}", dir.display());
        assert!(began.elapsed() < Duration::from_secs(120), "PostgreSQL does not answer: {}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
