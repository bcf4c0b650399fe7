//! Who is asking: a bearer API key becomes a [`Caller`] bound to one organization, with the key's permissions only.
//!
//! A wrong, expired, malformed or missing key are the same 401.

use crate::{
    app::App,
    cache::Cache,
    clock::now_ms,
    error::{ApiError, ApiResult},
    secret,
};
use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use infield_api::api_key::Permission;
use infield_store::{ApiKeyRow, Store, StoreError};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a valid key is trusted without asking the database; deleting it here ends that at once.
const KEY_CACHE: Duration = Duration::from_secs(10);

/// The key behind a request.
#[derive(Clone)]
pub struct Caller {
    pub key: Arc<ApiKeyRow>,
    /// How long finding out took.
    pub auth_us: u64,
}

pub struct Auth {
    keys: Cache<String, Arc<ApiKeyRow>>,
}

impl Auth {
    pub fn new() -> Self {
        Self { keys: Cache::new(KEY_CACHE) }
    }

    /// The key's row, if the key is valid now.
    pub async fn check(&self, store: &Store, key: &str) -> Result<Option<Arc<ApiKeyRow>>, StoreError> {
        if !key.starts_with(secret::KEY_PREFIX) || key.len() > secret::CREDENTIAL_BYTES_MAX {
            return Ok(None);
        }
        let hash = secret::hash(key);
        let found = match self.keys.get(&hash) {
            Some(found) => found,
            None => {
                let Some(found) = store.api_key_by_hash(&hash).await? else { return Ok(None) };
                let found = Arc::new(found);
                self.keys.put(hash.clone(), found.clone());
                note_use(store.clone(), hash);
                found
            }
        };
        Ok(found.expires_ms.is_none_or(|at| at > now_ms()).then_some(found))
    }

    pub fn forget(&self, hash: &str) {
        self.keys.remove(hash);
    }
}

/// The cache's time bounds how often this runs for one key.
fn note_use(store: Store, hash: String) {
    tokio::spawn(async move {
        if let Err(e) = store.api_key_used(&hash, now_ms()).await {
            tracing::warn!(error = %e, "cannot note the use of an API key");
        }
    });
}

impl Caller {
    pub fn organization(&self) -> &str {
        &self.key.organization_id
    }

    /// Refuses unless the key carries the permission: 403 as the contract has it, even for an owner's key.
    pub fn need(&self, permission: Permission) -> ApiResult<()> {
        if self.key.permissions.contains(&permission) {
            return Ok(());
        }
        let word = serde_json::to_value(permission).unwrap_or_default();
        Err(ApiError::forbidden(format!(
            "Access denied: the API key {:?} lacks the permission {}; make a key that has it",
            self.key.name,
            word.as_str().unwrap_or_default()
        )))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let began = Instant::now();
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let key = header.and_then(bearer).ok_or_else(ApiError::unauthorized)?;
        let key = app.auth.check(&app.store, key).await.map_err(|e| {
            tracing::error!(error = %e, "cannot check a key");
            ApiError::unavailable("Cannot check credentials now; try again")
        })?;
        let key = key.ok_or_else(ApiError::unauthorized)?;
        Ok(Self { key, auth_us: began.elapsed().as_micros() as u64 })
    }
}

/// The token of `Bearer <token>`, any case of the scheme.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
