//! Brings a database to this version's tables. Each step is one transaction and runs once.

use crate::{
    StoreError,
    db::{Db, Tx},
};
use sqlx::AssertSqlSafe;

/// Steps in order; a released one is never edited, the next change is a new file.
const STEPS: [&str; 6] = [
    include_str!("../migrations/0001_first.sql"),
    include_str!("../migrations/0002_signing_key.sql"),
    include_str!("../migrations/0003_signed_preview.sql"),
    include_str!("../migrations/0004_lifecycle.sql"),
    include_str!("../migrations/0005_volume.sql"),
    include_str!("../migrations/0006_ssh_access.sql"),
];
/// Keeps two servers that start at once on one PostgreSQL from taking the same step.
const POSTGRES_LOCK: i64 = 0x1f1e_1d00;

/// Runs the steps this database has not had. Returns how many there were.
pub(crate) async fn run(db: &Db) -> Result<usize, StoreError> {
    let mut tx = begin_locked(db).await?;
    tx.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)", vec![]).await?;
    tx.commit().await?;
    let mut ran = 0;
    for (index, step) in STEPS.iter().enumerate() {
        let mut tx = begin_locked(db).await?;
        let at = tx.fetch("SELECT value FROM meta WHERE name = 'schema'", vec![]).await?;
        let at: usize = at.first().map_or(Ok("0".to_owned()), |row| row.text(0))?.parse().unwrap_or(0);
        if at > STEPS.len() {
            return Err(StoreError::Unreadable { what: format!("tables of version {at}") });
        }
        if at > index {
            continue;
        }
        for statement in statements(step) {
            tx.execute(AssertSqlSafe(statement), vec![]).await?;
        }
        let done = (index + 1).to_string();
        let sql = "INSERT INTO meta (name, value) VALUES ('schema', $1) ON CONFLICT (name) DO UPDATE SET value = $1";
        tx.execute(sql, vec![done.into()]).await?;
        tx.commit().await?;
        ran += 1;
    }
    Ok(ran)
}

/// A transaction that no other server's step runs beside. (PostgreSQL's `IF NOT EXISTS` alone does not bear two at once.)
async fn begin_locked(db: &Db) -> Result<Tx, StoreError> {
    let mut tx = db.begin().await?;
    if db.is_postgres() {
        tx.fetch("SELECT 1 FROM (SELECT pg_advisory_xact_lock($1)) AS locked", vec![POSTGRES_LOCK.into()]).await?;
    }
    Ok(tx)
}

/// Statements of a migration file: comments dropped, split at `;` (which no statement contains otherwise).
fn statements(file: &str) -> Vec<String> {
    let lines: Vec<&str> = file.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    lines.join("\n").split(';').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
}
