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
mod pair;
mod sandbox;
mod sandbox_change;
mod sandbox_list;
mod sandbox_sweep;
mod signed_preview;
mod signing_key;
mod simulated;
mod snapshot;
mod ssh_access;
mod usage;
mod volume;

pub use api_key::ApiKeyRow;
pub use changes::Changed;
pub use error::StoreError;
pub use organization::{OrganizationRow, UserRow};
pub use pair::{ALLOWED, Metered, Pair, allowed, metered};
pub use sandbox::{Interval, SandboxRow};
pub use sandbox_change::{Change, Job, Size};
pub use sandbox_list::{Cursor, Page, Range, RangeColumn, SandboxFilter, Sort, SortColumn, SortValue};
pub use sandbox_sweep::{Known, Wish};
pub use simulated::{Before, Moment, Simulated};
pub use snapshot::{SnapshotPage, SnapshotRow, SnapshotSort};
pub use usage::{PERIOD_MS_MAX, UsageNow, UsagePeriod};
pub use volume::VolumeRow;

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
        Ok(Self::on(db))
    }

    fn on(db: db::Db) -> Self {
        Self { db, changes: changes::Changes::new() }
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
