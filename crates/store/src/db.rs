//! One SQL text on two databases: `$1` placeholders, text and 64-bit integers, nothing else.
//!
//! SQLite: WAL, one writing connection and a few reading ones. PostgreSQL: one pool. Knows no table.

use crate::{StoreError, simulated};
use sqlx::{
    PgPool, Postgres, Row as _, SqlSafeStr, Sqlite, SqlitePool, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use std::{str::FromStr, time::Duration};

/// Readers beside SQLite's one writer.
const SQLITE_READERS: u32 = 4;
/// Connections to PostgreSQL.
const POSTGRES_CONNECTIONS: u32 = 16;
/// Pages of SQLite's log after which a writer itself moves them to the database, waiting for the disk; before that
/// [`Db::checkpoint`] has done it beside the writers.
const SQLITE_LOG_PAGES_MAX: &str = "16384";
/// How long SQLite waits for another process's lock, and a query for a free connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A connected database.
#[derive(Clone)]
pub(crate) enum Db {
    Sqlite { read: SqlitePool, write: SqlitePool },
    Postgres(PgPool),
    Simulated(simulated::Connection),
}

/// A value for a placeholder.
pub(crate) enum Arg {
    Text(Option<String>),
    Int(Option<i64>),
}

/// A row of an answer; columns by position.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// An open transaction; dropped = rolled back.
pub(crate) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
    Simulated(simulated::Transaction),
}

macro_rules! bound {
    ($sql:expr, $args:expr) => {{
        let mut query = sqlx::query($sql);
        for arg in $args {
            query = match arg {
                Arg::Text(text) => query.bind(text),
                Arg::Int(int) => query.bind(int),
            };
        }
        query
    }};
}
pub(crate) use bound;

impl Db {
    /// Opens `sqlite:PATH` (made when absent) or `postgres://…`.
    pub(crate) async fn open(url: &str) -> Result<Self, StoreError> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return open_postgres(url).await;
        }
        open_sqlite(url).await
    }

    pub(crate) async fn execute(&self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Sqlite { write, .. } => bound!(sql, args).execute(write).await?.rows_affected(),
            Self::Postgres(pool) => bound!(sql, args).execute(pool).await?.rows_affected(),
            Self::Simulated(connection) => connection.execute(sql, args).await?,
        })
    }

    pub(crate) async fn fetch(&self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<Vec<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite { read, .. } => {
                bound!(sql, args).fetch_all(read).await?.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(pool) => bound!(sql, args).fetch_all(pool).await?.into_iter().map(Row::Postgres).collect(),
            Self::Simulated(connection) => connection.fetch(sql, args).await?,
        })
    }

    pub(crate) async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match self {
            Self::Sqlite { write, .. } => Tx::Sqlite(write.begin().await?),
            Self::Postgres(pool) => Tx::Postgres(pool.begin().await?),
            Self::Simulated(connection) => Tx::Simulated(connection.begin().await?),
        })
    }

    /// Moves SQLite's log into the database as far as readers allow, without holding up writers.
    pub(crate) async fn checkpoint(&self) -> Result<(), StoreError> {
        if let Self::Sqlite { read, .. } = self {
            sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(read).await?;
        }
        Ok(())
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
            Self::Simulated(_) => {}
        }
    }
}

impl Tx {
    pub(crate) async fn execute(&mut self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Sqlite(tx) => bound!(sql, args).execute(&mut **tx).await?.rows_affected(),
            Self::Postgres(tx) => bound!(sql, args).execute(&mut **tx).await?.rows_affected(),
            Self::Simulated(tx) => tx.execute(sql, args)?,
        })
    }

    pub(crate) async fn fetch(&mut self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<Vec<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite(tx) => bound!(sql, args).fetch_all(&mut **tx).await?.into_iter().map(Row::Sqlite).collect(),
            Self::Postgres(tx) => {
                bound!(sql, args).fetch_all(&mut **tx).await?.into_iter().map(Row::Postgres).collect()
            }
            Self::Simulated(tx) => tx.fetch(sql, args)?,
        })
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
            Self::Simulated(tx) => tx.commit()?,
        }
        Ok(())
    }
}

impl Row {
    pub(crate) fn text(&self, column: usize) -> Result<String, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(crate) fn text_or_null(&self, column: usize) -> Result<Option<String>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(crate) fn int(&self, column: usize) -> Result<i64, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(crate) fn int_or_null(&self, column: usize) -> Result<Option<i64>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(crate) fn flag(&self, column: usize) -> Result<bool, StoreError> {
        Ok(self.int(column)? != 0)
    }

    /// A column of JSON text.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, column: usize) -> Result<T, StoreError> {
        let text = self.text(column)?;
        serde_json::from_str(&text).map_err(|e| StoreError::Unreadable { what: format!("column {column}: {e}") })
    }
}

/// JSON text for a column. Plain maps and lists cannot fail to print.
pub(crate) fn json_text<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl From<&str> for Arg {
    fn from(v: &str) -> Self {
        Self::Text(Some(v.to_owned()))
    }
}
impl From<String> for Arg {
    fn from(v: String) -> Self {
        Self::Text(Some(v))
    }
}
impl From<Option<String>> for Arg {
    fn from(v: Option<String>) -> Self {
        Self::Text(v)
    }
}
impl From<i64> for Arg {
    fn from(v: i64) -> Self {
        Self::Int(Some(v))
    }
}
impl From<Option<i64>> for Arg {
    fn from(v: Option<i64>) -> Self {
        Self::Int(v)
    }
}
impl From<bool> for Arg {
    fn from(v: bool) -> Self {
        Self::Int(Some(i64::from(v)))
    }
}

async fn open_sqlite(url: &str) -> Result<Db, StoreError> {
    let at = url.to_owned();
    let opened = |source| StoreError::Open { at: at.clone(), source };
    let options = SqliteConnectOptions::from_str(url)
        .map_err(opened)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("wal_autocheckpoint", SQLITE_LOG_PAGES_MAX)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true);
    let pool =
        |size| SqlitePoolOptions::new().max_connections(size).min_connections(size).acquire_timeout(BUSY_TIMEOUT);
    // Connections live as long as the process: nothing on the other side of a file goes away.
    let write = pool(1).test_before_acquire(false).max_lifetime(None).idle_timeout(None);
    let read = pool(SQLITE_READERS).test_before_acquire(false).max_lifetime(None).idle_timeout(None);
    let write = write.connect_with(options.clone()).await.map_err(opened)?;
    let read = read.connect_with(options).await.map_err(opened)?;
    Ok(Db::Sqlite { read, write })
}

async fn open_postgres(url: &str) -> Result<Db, StoreError> {
    let opened = |source| StoreError::Open { at: without_secret(url), source };
    let options = PgConnectOptions::from_str(url).map_err(opened)?;
    let pool = PgPoolOptions::new().max_connections(POSTGRES_CONNECTIONS).acquire_timeout(BUSY_TIMEOUT);
    Ok(Db::Postgres(pool.connect_with(options).await.map_err(opened)?))
}

/// The address without user, password and parameters.
fn without_secret(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{}", rest.split('?').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_password_never_reaches_an_error() {
        assert_eq!(super::without_secret("postgres://u:p@ss@host:5/db?password=x"), "postgres://host:5/db");
    }
}
