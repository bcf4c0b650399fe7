//! Why a query failed. Says what was being done; never holds a row's content or the database's password.

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A unique name is in use.
    #[error("the name is taken")]
    NameTaken,
    #[error("cannot open the database at {at}; check that it exists and may be written")]
    Open {
        at: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
    #[error("the database holds {what}, which this version cannot read; was it written by a newer one?")]
    Unreadable { what: String },
    /// A bug: the contract's table has no such pair.
    #[error("no sandbox may be {state} and wanted {desired}; {sandbox} is left as it was")]
    Impossible { sandbox: infield_api::SandboxId, state: &'static str, desired: &'static str },
}

impl StoreError {
    /// The server is ending and has closed its connections.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::PoolClosed))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(e: sqlx::Error) -> Self {
        match &e {
            sqlx::Error::Database(db) if db.is_unique_violation() => Self::NameTaken,
            _ => Self::Database(e),
        }
    }
}
