//! The only SQL of Infield: rows, queries and migrations on SQLite and PostgreSQL from one text.
//!
//! Architecture Invariant: knows neither HTTP nor the engine nor who is asking. Every write is one transaction; every
//! change of a state compares before it sets.

mod api_key;
mod changes;
mod db;
mod error;
mod meta;
mod migrate;
mod organization;
mod sandbox;
mod sandbox_list;
mod sandbox_sweep;
mod signed_preview;
mod signing_key;
mod snapshot;

pub use api_key::ApiKeyRow;
pub use changes::Changed;
pub use error::StoreError;
pub use organization::{OrganizationRow, UserRow};
pub use sandbox::{Interval, Pair, SandboxRow, Settled};
pub use sandbox_list::{Cursor, Page, Range, RangeColumn, SandboxFilter, Sort, SortColumn, SortValue};
pub use sandbox_sweep::Known;
pub use snapshot::{SnapshotPage, SnapshotRow, SnapshotSort};

/// An open database with this version's tables.
#[derive(Clone)]
pub struct Store {
    db: db::Db,
    changes: changes::Changes,
}

impl Store {
    /// Opens `sqlite:PATH` (made when absent) or `postgres://…` and brings its tables up to date.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let db = db::Db::open(url).await?;
        migrate::run(&db).await?;
        Ok(Self { db, changes: changes::Changes::new() })
    }

    /// Closes every connection; a SQLite database is then one file.
    pub async fn close(&self) {
        self.db.close().await;
    }

    /// Upkeep that would otherwise happen now and then in the middle of a write; to be called every few seconds.
    pub async fn keep_house(&self) -> Result<(), StoreError> {
        self.db.checkpoint().await
    }

    /// Answers when the database does.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.db.fetch("SELECT 1", vec![]).await.map(|_| ())
    }
}
