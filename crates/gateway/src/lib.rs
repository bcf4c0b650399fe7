//! Bytes in, bytes out: the toolbox relay, `/toolbox/{sandbox}/{path…}` → the sandbox's agent; previews, where a host
//! name means a port of a sandbox; and SSH.
//!
//! Two hops and no more: ask the [`Directory`] who may reach what, splice to the agent's stream from the [`Runner`].
//!
//! Architecture Invariant: no request or response body is ever decoded, buffered whole or understood here, and no toolbox
//! route is known by name; the toolbox grows without this crate learning of it. (`ssh/` is a client of the toolbox with a
//! protocol of its own to translate, and the exception.) It knows no rows and no lifecycle.

mod activity;
mod auth;
mod body;
mod cors;
mod error;
mod headers;
mod host;
mod page;
mod pool;
mod preview;
pub mod ssh;
mod target;
mod upgrade;

use activity::Activity;
use body::{Outgoing, RelayBody};
use error::Refusal;
use host::PreviewHost;
use http::{Request, Response, StatusCode, header::HOST};
use hyper::body::Incoming;
use infield_api::{SandboxId, directory::Directory, runner::Runner};
use pool::Pool;
use std::{sync::Arc, time::Duration};

pub use body::GatewayBody;
pub use target::is_toolbox_path;

/// Bounds of the relay. Every number has its unit in its name.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Idle connections kept open to one sandbox.
    pub idle_per_sandbox_max: usize,
    /// An idle connection older than this is closed; must be below the agent's own idle timeout (70 s).
    pub idle_max: Duration,
    /// How long the runner may take to hand over a stream.
    pub connect_max: Duration,
    /// How often an open request counts as activity.
    pub touch_every: Duration,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            idle_per_sandbox_max: 16,
            idle_max: Duration::from_secs(55),
            connect_max: Duration::from_secs(10),
            touch_every: Duration::from_secs(50),
        }
    }
}

/// The relay. Cheap to clone; every clone shares one pool of connections.
#[derive(Clone)]
pub struct Gateway {
    directory: Arc<dyn Directory>,
    pool: Arc<Pool>,
    activity: Activity,
}

impl Gateway {
    /// Must be called inside a tokio runtime: two small background tasks end when the last clone is dropped.
    pub fn new(directory: Arc<dyn Directory>, runner: Arc<dyn Runner>, config: GatewayConfig) -> Self {
        let activity = Activity::start(directory.clone(), config.touch_every);
        Self { directory, pool: Pool::start(runner, config), activity }
    }

    /// Whether a request is the gateway's to answer.
    pub fn is_for(request: &Request<Incoming>) -> bool {
        is_toolbox_path(request.uri().path()) || preview_host(request).is_some()
    }

    /// Answers one request (see [`Gateway::is_for`]). Never fails: what goes wrong becomes a status and the JSON error
    /// body, or a page for a browser that asked for a preview.
    pub async fn call(&self, request: Request<Incoming>) -> Response<GatewayBody> {
        if let Some(preflight) = cors::preflight(&request) {
            return preflight;
        }
        let cors = cors::Policy::of(&request);
        let refuse = error::Context::of(&request);
        let host = preview_host(&request);
        let as_page = host.is_some() && page::is_wanted(request.headers());
        let answer = match host {
            Some(host) => self.relay_preview(&host, request, &refuse).await,
            None => self.relay(request, &refuse).await,
        };
        let mut response = match answer {
            Ok(response) => response,
            Err(refusal) if as_page => refusal.into_page(),
            Err(refusal) => refusal.into_response(),
        };
        cors.apply(response.headers_mut());
        response
    }

    async fn relay(
        &self,
        mut request: Request<Incoming>,
        refuse: &error::Context,
    ) -> Result<Response<GatewayBody>, Refusal> {
        let mut route = target::Route::of(request.uri()).ok_or_else(|| refuse.not_found("no such route"))?;
        let admit = auth::admit(&*self.directory, &mut route, request.method(), request.headers(), refuse);
        let sandbox = admit.await?;
        auth::strip(request.headers_mut());
        self.pass(sandbox, &route, request, refuse).await
    }

    /// Over to the agent and back; who asks was decided before.
    async fn pass(
        &self,
        sandbox: SandboxId,
        route: &target::Route,
        request: Request<Incoming>,
        refuse: &error::Context,
    ) -> Result<Response<GatewayBody>, Refusal> {
        let open = self.activity.open(sandbox, request.headers());

        let (mut parts, incoming) = request.into_parts();
        let upgrading = upgrade::wanted(&parts);
        let client_side = upgrading.then(|| parts.extensions.remove::<hyper::upgrade::OnUpgrade>()).flatten();
        headers::to_agent(&mut parts, route, upgrading);

        let body = RelayBody::new(incoming);
        let reply =
            self.pool.send(sandbox, &parts, body, upgrading).await.map_err(|e| refuse.bad_gateway(sandbox, &e))?;
        let (mut head, agent_body, agent_side) = reply.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS && (client_side.is_none() || agent_side.is_none()) {
            return Err(refuse.uninvited_upgrade(sandbox));
        }
        headers::to_client(&mut head, route, agent_side.is_some());
        if let (Some(client), Some(agent)) = (client_side, agent_side) {
            upgrade::splice(client, agent, open);
            return Ok(Response::from_parts(head, GatewayBody::empty()));
        }
        Ok(Response::from_parts(head, GatewayBody::relay(Outgoing::new(agent_body, open))))
    }
}

/// A request line that names a host itself wins over the header, as RFC 9112 has it.
fn preview_host(request: &Request<Incoming>) -> Option<PreviewHost> {
    let header = || request.headers().get(HOST)?.to_str().ok();
    PreviewHost::of(request.uri().authority().map(|a| a.as_str()).or_else(header)?)
}
