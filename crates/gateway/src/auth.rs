//! Which credential opens a sandbox: bearer, then preview header, then query, then the signature of a URL; the first that
//! is accepted decides.
//!
//! Knows nothing of keys or organizations: each credential is put to the directory as it came.

use crate::{
    error::{Context, Refusal},
    target::{Route, Signed},
};
use http::{HeaderMap, Method, header::AUTHORIZATION};
use infield_api::{
    SandboxId,
    directory::{Credential, Directory, DirectoryError, Target},
};

pub const PREVIEW_TOKEN_HEADER: &str = "x-daytona-preview-token";

/// The running sandbox this request may reach, or the answer that says why not. A request that only its signature opened
/// goes on with nothing in its query but what was signed.
pub async fn admit(
    directory: &dyn Directory,
    route: &mut Route,
    method: &Method,
    headers: &HeaderMap,
    refuse: &Context,
) -> Result<SandboxId, Refusal> {
    let mut verdict = None;
    for credential in credentials(route, headers) {
        match directory.resolve(&route.sandbox, credential).await {
            Ok(target) => return running(target, route, refuse),
            Err(e) => verdict = Some(worse(verdict, e)),
        }
    }
    if let Some(signed) = Signed::of(&route.inner) {
        let claim = Credential::SignedFile(signed.claim(method.as_str(), &route.inner));
        match directory.resolve(&route.sandbox, claim).await {
            Ok(target) => {
                route.inner = signed.inner(&route.inner);
                return running(target, route, refuse);
            }
            Err(e) => verdict = Some(worse(verdict, e)),
        }
    }
    Err(refuse.denied(verdict.unwrap_or(DirectoryError::Unauthorized), &route.sandbox))
}

fn running(target: Target, route: &Route, refuse: &Context) -> Result<SandboxId, Refusal> {
    match target.running {
        true => Ok(target.sandbox),
        false => Err(refuse.not_started(&route.sandbox, target.state)),
    }
}

/// No credential goes on to the agent.
pub fn strip(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    headers.remove(PREVIEW_TOKEN_HEADER);
}

/// `NotFound` says more than `Unauthorized` (some credential was good), and an outage says more than either.
pub fn worse(before: Option<DirectoryError>, now: DirectoryError) -> DirectoryError {
    match (before, now) {
        (Some(e @ DirectoryError::Unavailable(_)), _) | (_, e @ DirectoryError::Unavailable(_)) => e,
        (Some(DirectoryError::NotFound), _) | (_, DirectoryError::NotFound) => DirectoryError::NotFound,
        (Some(e @ DirectoryError::Incomplete(_)), _) | (_, e @ DirectoryError::Incomplete(_)) => e,
        _ => DirectoryError::Unauthorized,
    }
}

fn credentials<'a>(route: &'a Route, headers: &'a HeaderMap) -> impl Iterator<Item = Credential<'a>> {
    let bearer = bearer(headers);
    let header = headers.get(PREVIEW_TOKEN_HEADER).and_then(|v| v.to_str().ok()).map(str::trim);
    let query = route.query_token.as_deref();
    let none = bearer.is_none() && header.is_none() && query.is_none();
    bearer
        .map(Credential::Bearer)
        .into_iter()
        .chain(header.map(Credential::PreviewToken))
        .chain(query.map(Credential::PreviewToken))
        .chain(none.then_some(Credential::None))
}

/// The token of `Authorization: Bearer …`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
