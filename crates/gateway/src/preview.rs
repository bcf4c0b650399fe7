//! Previews: a host name means a port of a sandbox, and the whole path belongs to what listens there.
//!
//! The first credential that is accepted opens it and goes no further; every other header is the application's own. What
//! was opened by a link or a query is kept open for a browser by a cookie of that host alone.

use crate::{
    Gateway,
    auth::{self, PREVIEW_TOKEN_HEADER},
    body::GatewayBody,
    error::{Context, Refusal},
    host::{PreviewHost, RECORDINGS_PORT, TERMINAL_PORT, TOOLBOX_PORT, Whose},
    target::{self, Route},
};
use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{AUTHORIZATION, COOKIE, SET_COOKIE},
};
use hyper::body::Incoming;
use infield_api::directory::{Credential, DirectoryError, Target};

const COOKIE_PREFIX: &str = "daytona-sandbox-auth-";
/// How long a cookie opens its host.
const COOKIE_SECONDS: u64 = 3600;

/// How a request got in.
struct Admitted {
    target: Target,
    by: By,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Public,
    Bearer,
    Header,
    Query,
    Cookie,
    Link,
}

impl Gateway {
    pub(crate) async fn relay_preview(
        &self,
        host: &PreviewHost,
        mut request: Request<Incoming>,
        refuse: &Context,
    ) -> Result<Response<GatewayBody>, Refusal> {
        let (inner, query_token) = inner_of(host, request.uri());
        let admitted = self.admit_preview(host, query_token.as_deref(), request.headers(), refuse).await?;
        let Target { sandbox, running, state } = admitted.target;
        if !running {
            return Err(refuse.not_started(&sandbox.to_string(), state));
        }
        if matches!(host.port, TERMINAL_PORT | RECORDINGS_PORT) {
            return Err(
                refuse.not_built("the web terminal and recordings are not built yet; see docs/compatibility.md")
            );
        }
        take_credentials(request.headers_mut(), admitted.by);
        let route = Route { sandbox: sandbox.to_string(), prefix: String::new(), inner, query_token: None };
        let mut response = self.pass(sandbox, &route, request, refuse).await?;
        if matches!(admitted.by, By::Link | By::Query) {
            let session = self.directory.session(sandbox, &host.scope(), COOKIE_SECONDS).await;
            let session = session.map_err(|e| refuse.denied(e, &route.sandbox))?;
            let cookie = format!(
                "{COOKIE_PREFIX}{}={session}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax",
                host.label()
            );
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
        }
        Ok(response)
    }

    async fn admit_preview(
        &self,
        host: &PreviewHost,
        query_token: Option<&str>,
        headers: &HeaderMap,
        refuse: &Context,
    ) -> Result<Admitted, Refusal> {
        let label = host.label();
        let (cookie, scope) = (cookie_of(headers, &label), host.scope());
        let bearer = auth::bearer(headers);
        let header = headers.get(PREVIEW_TOKEN_HEADER).and_then(|v| v.to_str().ok()).map(str::trim);
        let of_sandbox = matches!(host.whose, Whose::Sandbox(_));
        let mut tries: Vec<(By, Credential<'_>)> = Vec::new();
        if of_sandbox {
            // A port of ours is never public.
            tries.extend((!host.is_ours()).then_some((By::Public, Credential::Public)));
            tries.extend(bearer.map(|key| (By::Bearer, Credential::Bearer(key))));
            tries.extend(header.map(|token| (By::Header, Credential::PreviewToken(token))));
            tries.extend(query_token.map(|token| (By::Query, Credential::PreviewToken(token))));
        }
        tries.extend(cookie.map(|cookie| (By::Cookie, Credential::Session { cookie, scope: &scope })));
        if !of_sandbox {
            tries.push((By::Link, Credential::Link(host.port)));
        }
        let mut verdict = None;
        for (by, credential) in tries {
            // A cookie names its sandbox itself; its signature says whether that is true.
            match self.directory.resolve(&label, credential).await {
                Ok(target) => return Ok(Admitted { target, by }),
                Err(e) => verdict = Some(auth::worse(verdict, e)),
            }
        }
        Err(match verdict.unwrap_or(DirectoryError::Unauthorized) {
            DirectoryError::Unauthorized if !of_sandbox => refuse.expired_link(),
            other => refuse.denied(other, &label),
        })
    }
}

/// The target inside the sandbox, and the token that stood in the query.
fn inner_of(host: &PreviewHost, uri: &http::Uri) -> (String, Option<String>) {
    let (query, token) = target::split_query(uri.query());
    let path = if uri.path().starts_with('/') { uri.path() } else { "/" };
    let mut inner = match host.port {
        TOOLBOX_PORT => path.to_owned(),
        port => format!("/proxy/{port}{path}"),
    };
    if let Some(query) = query {
        inner.push('?');
        inner.push_str(&query);
    }
    (inner, token)
}

/// The credential that opened the door stays at the door, and so do our cookies.
fn take_credentials(headers: &mut HeaderMap, by: By) {
    match by {
        By::Bearer => drop(headers.remove(AUTHORIZATION)),
        By::Header => drop(headers.remove(PREVIEW_TOKEN_HEADER)),
        _ => {}
    }
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    if !lines.iter().any(|line| contains(line.as_bytes(), COOKIE_PREFIX.as_bytes())) {
        return;
    }
    headers.remove(COOKIE);
    for line in lines {
        // What is no text is not passed on beside one of ours.
        let Ok(text) = line.to_str() else { continue };
        let kept: Vec<&str> = text.split(';').map(str::trim).filter(|pair| !pair.starts_with(COOKIE_PREFIX)).collect();
        if let Ok(kept) = HeaderValue::from_str(&kept.join("; "))
            && !kept.is_empty()
        {
            headers.append(COOKIE, kept);
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn cookie_of<'a>(headers: &'a HeaderMap, label: &str) -> Option<&'a str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|line| line.split(';'));
    pairs.filter_map(|pair| pair.trim().strip_prefix(COOKIE_PREFIX)?.strip_prefix(label)?.strip_prefix('=')).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_application_keeps_what_is_its_own() {
        let all = [
            ("authorization", "Bearer app"),
            ("x-daytona-preview-token", "t"),
            ("cookie", "a=1; daytona-sandbox-auth-x=s; b=2"),
            ("cookie", "daytona-sandbox-auth-y=s"),
        ];
        let mut open = headers(&all);
        take_credentials(&mut open, By::Public);
        assert_eq!(open["authorization"], "Bearer app");
        assert_eq!(open.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        let mut keyed = headers(&all);
        take_credentials(&mut keyed, By::Bearer);
        assert!(!keyed.contains_key(AUTHORIZATION) && keyed.contains_key(PREVIEW_TOKEN_HEADER));
    }

    #[test]
    fn a_cookie_is_of_one_label() {
        let all = headers(&[("cookie", "daytona-sandbox-auth-ab=1; daytona-sandbox-auth-a=2")]);
        assert_eq!(cookie_of(&all, "a"), Some("2"));
        assert_eq!(cookie_of(&all, "ab"), Some("1"));
        assert_eq!(cookie_of(&all, "b"), None);
    }

    #[test]
    fn paths_go_to_the_port() {
        let of = |host: &str, target: &'static str| {
            inner_of(&PreviewHost::of(host).unwrap(), &http::Uri::from_static(target))
        };
        let host = |port| format!("{port}-abcdef0123456789.x");
        assert_eq!(of(&host(3000), "/a%2F?b=1&DAYTONA_SANDBOX_AUTH_KEY=t").0, "/proxy/3000/a%2F?b=1");
        assert_eq!(of(&host(2280), "/process/x?DAYTONA_SANDBOX_AUTH_KEY=t"), ("/process/x".into(), Some("t".into())));
        assert_eq!(of(&host(2280), "http://evil/toolbox").0, "/toolbox");
    }
}
