//! Answers the gateway: may this credential reach this sandbox, and does it run.
//!
//! Only running sandboxes are remembered, briefly, and every change made by this process is forgotten at once; so an
//! exec costs no query and a start is visible immediately.

use crate::{
    app::App,
    cache::Cache,
    clock::now_ms,
    lifecycle::rules,
    secret,
    signed_url::{Claim, Refused, is_session_by, session_of, sign_session},
};
use infield_api::{
    SandboxId,
    directory::{Credential, Directory, DirectoryError, DirectoryFuture, SignedFile, Target},
    state::SandboxState,
};
use infield_store::{SandboxRow, StoreError};
use std::{sync::Arc, time::Duration};

/// How long a running sandbox is taken to run and to keep its token and owner.
const SANDBOX_CACHE: Duration = Duration::from_secs(2);

/// Recently resolved running sandboxes.
pub struct Sandboxes {
    rows: Cache<SandboxId, Arc<SandboxRow>>,
    /// (organization, name) to id; only a hint, checked against the row.
    names: Cache<(String, String), SandboxId>,
}

impl Sandboxes {
    pub fn new() -> Self {
        Self { rows: Cache::new(SANDBOX_CACHE), names: Cache::new(SANDBOX_CACHE) }
    }

    pub fn forget(&self, id: SandboxId) {
        self.rows.remove(&id);
    }

    fn remembered(&self, organization: &str, id_or_name: &str) -> Option<Arc<SandboxRow>> {
        let id = match id_or_name.parse::<SandboxId>() {
            Ok(id) => id,
            Err(_) => self.names.get(&(organization.to_owned(), id_or_name.to_owned()))?,
        };
        let row = self.rows.get(&id)?;
        let named = row.name == id_or_name || id_or_name.eq_ignore_ascii_case(&row.id.to_string());
        (named && row.organization_id == organization).then_some(row)
    }

    fn remember(&self, row: &Arc<SandboxRow>) {
        if rules::shown((row.state, row.desired)) == SandboxState::Started {
            self.names.put((row.organization_id.clone(), row.name.clone()), row.id);
            self.rows.put(row.id, row.clone());
        }
    }
}

impl App {
    async fn by_key(&self, key: &str, sandbox: &str) -> Result<Arc<SandboxRow>, DirectoryError> {
        let key = self.auth.check(&self.store, key).await.map_err(unavailable)?.ok_or(DirectoryError::Unauthorized)?;
        if let Some(row) = self.sandboxes.remembered(&key.organization_id, sandbox) {
            return Ok(row);
        }
        let row = self.store.find_sandbox(&key.organization_id, sandbox).await.map_err(unavailable)?;
        let row = Arc::new(row.ok_or(DirectoryError::NotFound)?);
        self.sandboxes.remember(&row);
        Ok(row)
    }

    /// A sandbox's own token opens that sandbox, named by its id. An unknown id looks like a wrong token.
    async fn by_token(&self, token: &str, sandbox: &str) -> Result<Arc<SandboxRow>, DirectoryError> {
        let id: SandboxId = sandbox.parse().map_err(|_| DirectoryError::Unauthorized)?;
        let row = self.by_id(id).await?;
        if !secret::same(&row.auth_token, token) {
            return Err(DirectoryError::Unauthorized);
        }
        self.sandboxes.remember(&row);
        Ok(row)
    }
}

impl App {
    /// A signed URL opens a sandbox, named by its id, for what was signed. The key is always the stored one: whatever an
    /// older one has signed is refused from the moment it is replaced.
    async fn by_signature(&self, asked: &SignedFile<'_>, sandbox: &str) -> Result<Arc<SandboxRow>, DirectoryError> {
        let claim = Claim::of(asked, now_ms() / 1000).map_err(|refused| match refused {
            Refused::NoPath => DirectoryError::Incomplete("path"),
            Refused::Worthless => DirectoryError::Unauthorized,
        })?;
        let id: SandboxId = sandbox.parse().map_err(|_| DirectoryError::Unauthorized)?;
        let key = self.store.signing_key(id).await.map_err(unavailable)?;
        if !key.is_some_and(|key| claim.is_by(&key)) {
            return Err(DirectoryError::Unauthorized);
        }
        self.by_id(id).await
    }

    /// A link opens the sandbox it was made for, on its port alone.
    async fn by_link(&self, token: &str, port: u16) -> Result<Arc<SandboxRow>, DirectoryError> {
        let found = self.store.signed_preview(&secret::hash(token), port, now_ms()).await.map_err(unavailable)?;
        self.by_id(found.ok_or(DirectoryError::Unauthorized)?).await
    }

    /// A token for SSH opens the sandbox it was made for.
    async fn by_ssh(&self, token: &str) -> Result<Arc<SandboxRow>, DirectoryError> {
        let found = self.store.ssh_access(&secret::hash(token), now_ms()).await.map_err(unavailable)?;
        self.by_id(found.ok_or(DirectoryError::Unauthorized)?).await
    }

    /// A cookie opens the sandbox it names, under the id in the host or under the link that it was given for.
    async fn by_session(&self, cookie: &str, scope: &str, label: &str) -> Result<Arc<SandboxRow>, DirectoryError> {
        let (named, expires_s) = session_of(cookie, now_ms() / 1000).ok_or(DirectoryError::Unauthorized)?;
        let id: SandboxId = named.parse().map_err(|_| DirectoryError::Unauthorized)?;
        if label.parse::<SandboxId>().is_ok_and(|host| host != id) {
            return Err(DirectoryError::Unauthorized);
        }
        let key = self.store.signing_key(id).await.map_err(unavailable)?;
        if !key.is_some_and(|key| is_session_by(&key, cookie, named, scope, expires_s)) {
            return Err(DirectoryError::Unauthorized);
        }
        self.by_id(id).await
    }

    async fn by_public(&self, sandbox: &str) -> Result<Arc<SandboxRow>, DirectoryError> {
        let id: SandboxId = sandbox.parse().map_err(|_| DirectoryError::Unauthorized)?;
        let row = self.by_id(id).await?;
        if !row.public {
            return Err(DirectoryError::Unauthorized);
        }
        self.sandboxes.remember(&row);
        Ok(row)
    }

    async fn by_id(&self, id: SandboxId) -> Result<Arc<SandboxRow>, DirectoryError> {
        if let Some(row) = self.sandboxes.rows.get(&id) {
            return Ok(row);
        }
        let row = self.store.sandbox(id).await.map_err(unavailable)?;
        let row = row.filter(|row| row.state != SandboxState::Destroyed);
        Ok(Arc::new(row.ok_or(DirectoryError::Unauthorized)?))
    }
}

impl Directory for App {
    fn resolve<'a>(&'a self, sandbox: &'a str, credential: Credential<'a>) -> DirectoryFuture<'a, Target> {
        Box::pin(async move {
            let row = match credential {
                Credential::None => return Err(DirectoryError::Unauthorized),
                Credential::Bearer(key) => self.by_key(key, sandbox).await?,
                Credential::PreviewToken(token) => self.by_token(token, sandbox).await?,
                Credential::SignedFile(asked) => self.by_signature(&asked, sandbox).await?,
                Credential::Public => self.by_public(sandbox).await?,
                Credential::Link(port) => self.by_link(sandbox, port).await?,
                Credential::Ssh => self.by_ssh(sandbox).await?,
                Credential::Session { cookie, scope } => self.by_session(cookie, scope, sandbox).await?,
            };
            let shown = rules::shown((row.state, row.desired));
            Ok(Target { sandbox: row.id, running: shown == SandboxState::Started, state: shown.as_str() })
        })
    }

    fn session<'a>(&'a self, sandbox: SandboxId, scope: &'a str, seconds: u64) -> DirectoryFuture<'a, String> {
        Box::pin(async move {
            let key = self.store.signing_key_or(sandbox, &secret::signing_key()).await.map_err(unavailable)?;
            let key = key.ok_or(DirectoryError::NotFound)?;
            let expires_s = now_ms() / 1000 + i64::try_from(seconds).unwrap_or(0);
            Ok(sign_session(&key, &sandbox.to_string(), scope, expires_s))
        })
    }

    fn touch(&self, sandbox: SandboxId) {
        self.activity.touch(sandbox);
    }
}

fn unavailable(e: StoreError) -> DirectoryError {
    tracing::error!(error = %e, "cannot look up a sandbox");
    DirectoryError::Unavailable("the database failed".to_owned())
}
