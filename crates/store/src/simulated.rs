//! A database for deterministic simulation: SQLite in memory whose every operation happens within one poll, so that a
//! seeded scheduler alone decides what comes between two operations; and a history of every change of a sandbox's row.
//!
//! Only tests make one. Knows nothing of what is simulated: what happens before an operation is a function it is given.

use crate::{
    Pair, Store, StoreError,
    db::{Arg, Db, Row, bound},
    migrate,
};
use infield_api::SandboxId;
use sqlx::{Connection as _, SqlSafeStr, sqlite::SqliteConnection};
use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Called before an operation begins; may delay it, fail it, or never return.
pub type Before = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>> + Send + Sync>;

/// The database; it outlives the stores, as a disk outlives a process.
pub struct Simulated(Arc<Mutex<SqliteConnection>>);

/// One change of a row, as the database itself saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    pub sandbox: SandboxId,
    /// `None` = the row is new.
    pub was: Option<Pair>,
    pub now: Pair,
    pub at_ms: i64,
    /// cpu, memory, disk.
    pub size: (i64, i64, i64),
}

/// The database keeps this by itself, so that it does not depend on the code under test.
const HISTORY: [&str; 3] = [
    "CREATE TABLE history (n INTEGER PRIMARY KEY, id TEXT, state TEXT, desired TEXT, new_state TEXT, new_desired TEXT, \
     at BIGINT, cpu BIGINT, memory BIGINT, disk BIGINT)",
    "CREATE TRIGGER history_insert AFTER INSERT ON sandboxes BEGIN INSERT INTO history (id, new_state, new_desired, at, \
     cpu, memory, disk) VALUES (NEW.id, NEW.state, NEW.desired_state, NEW.updated_at, NEW.cpu, NEW.memory_gib, \
     NEW.disk_gib); END",
    "CREATE TRIGGER history_update AFTER UPDATE OF state, desired_state ON sandboxes BEGIN INSERT INTO history (id, \
     state, desired, new_state, new_desired, at, cpu, memory, disk) VALUES (NEW.id, OLD.state, OLD.desired_state, \
     NEW.state, NEW.desired_state, NEW.updated_at, NEW.cpu, NEW.memory_gib, NEW.disk_gib); END",
];

impl Simulated {
    /// A fresh database with this version's tables.
    pub async fn open() -> Result<Self, StoreError> {
        let connection = in_one_poll(SqliteConnection::connect("sqlite::memory:"))?;
        let database = Self(Arc::new(Mutex::new(connection)));
        let store = database.store(Arc::new(|| Box::pin(async { Ok(()) })));
        migrate::run(&store.db).await?;
        for statement in HISTORY {
            store.db.execute(statement, vec![]).await?;
        }
        Ok(database)
    }

    /// What one process sees of it.
    pub fn store(&self, before: Before) -> Store {
        Store::on(Db::Simulated(Connection { connection: self.0.clone(), before }))
    }

    /// Every change so far, in order.
    pub async fn history(&self) -> Result<Vec<Moment>, StoreError> {
        let store = self.store(Arc::new(|| Box::pin(async { Ok(()) })));
        let sql = "SELECT id, state, desired, new_state, new_desired, at, cpu, memory, disk FROM history ORDER BY n";
        store.db.fetch(sql, vec![]).await?.iter().map(moment).collect()
    }
}

fn moment(row: &Row) -> Result<Moment, StoreError> {
    use crate::sandbox::{desired_of, id_of, state_of};
    let was = match row.text_or_null(1)? {
        Some(_) => Some((state_of(row, 1)?, desired_of(row, 2)?)),
        None => None,
    };
    Ok(Moment {
        sandbox: id_of(row, 0)?,
        was,
        now: (state_of(row, 3)?, desired_of(row, 4)?),
        at_ms: row.int(5)?,
        size: (row.int(6)?, row.int(7)?, row.int(8)?),
    })
}

#[derive(Clone)]
pub(crate) struct Connection {
    connection: Arc<Mutex<SqliteConnection>>,
    before: Before,
}

impl Connection {
    pub(crate) async fn execute(&self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<u64, StoreError> {
        let mut connection = self.taken().await?;
        Ok(in_one_poll(bound!(sql, args).execute(&mut *connection))?.rows_affected())
    }

    pub(crate) async fn fetch(&self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<Vec<Row>, StoreError> {
        let mut connection = self.taken().await?;
        let rows = in_one_poll(bound!(sql, args).fetch_all(&mut *connection))?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    pub(crate) async fn begin(&self) -> Result<Transaction, StoreError> {
        let mut connection = self.taken().await?;
        in_one_poll(sqlx::query("BEGIN").execute(&mut *connection))?;
        Ok(Transaction { connection, done: false })
    }

    /// Nobody waits inside an operation, so this never does either.
    async fn taken(&self) -> Result<OwnedMutexGuard<SqliteConnection>, StoreError> {
        (self.before)().await?;
        Ok(self.connection.clone().lock_owned().await)
    }
}

pub(crate) struct Transaction {
    connection: OwnedMutexGuard<SqliteConnection>,
    done: bool,
}

impl Transaction {
    pub(crate) fn execute(&mut self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<u64, StoreError> {
        Ok(in_one_poll(bound!(sql, args).execute(&mut *self.connection))?.rows_affected())
    }

    pub(crate) fn fetch(&mut self, sql: impl SqlSafeStr, args: Vec<Arg>) -> Result<Vec<Row>, StoreError> {
        let rows = in_one_poll(bound!(sql, args).fetch_all(&mut *self.connection))?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    pub(crate) fn commit(mut self) -> Result<(), StoreError> {
        self.done = true;
        in_one_poll(sqlx::query("COMMIT").execute(&mut *self.connection))?;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.done {
            // A failure leaves the transaction open, and the next BEGIN says so.
            let _ = in_one_poll(sqlx::query("ROLLBACK").execute(&mut *self.connection));
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for SQLite's own thread without giving the scheduler a turn.
fn in_one_poll<F: Future>(future: F) -> F::Output {
    let mut future = pin!(tokio::task::unconstrained(future));
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
