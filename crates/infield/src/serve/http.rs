//! Accepts connections and hands each request to the gateway (`/toolbox/…`, preview hosts) or the control plane (all else).

use anyhow::Result;
use axum::body::Body as ApiBody;
use http_body_util::Either;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HOST, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use infield_gateway::{Gateway, GatewayBody};
use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tower_service::Service;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 8192;
/// A client has this long to send the head of a request; an idle connection is closed after it.
const HEAD_READ_MAX: Duration = Duration::from_secs(75);
const HEADERS_MAX: usize = 128;
/// Read buffer of one connection: bounds the head, and lets big bodies flow in big pieces.
const CONNECTION_BUFFER_BYTES_MAX: usize = 512 << 10;
/// Pause after the kernel refused a connection (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long requests may go on after a stop was asked for.
const DRAIN_MAX: Duration = Duration::from_secs(8);

/// The two halves of the server.
#[derive(Clone)]
pub struct App {
    pub api: axum::Router,
    pub gateway: Gateway,
}

pub async fn serve(listener: TcpListener, app: App, stop: impl Future<Output = ()>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stopping, stopped) = watch::channel(false);
    tokio::pin!(stop);
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let (app, stopped) = (app.clone(), stopped.clone());
                    tokio::spawn(async move {
                        let _slot = slot;
                        connection(stream, peer, app, stopped).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let _ = tokio::time::timeout(DRAIN_MAX, slots.acquire_many(CONNECTIONS_MAX as u32)).await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, app: App, mut stopped: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(app.clone(), peer, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_READ_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(CONNECTION_BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop_asked(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn stop_asked(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

type Answer = Response<Either<GatewayBody, ApiBody>>;

async fn answer(mut app: App, peer: SocketAddr, mut request: Request<Incoming>) -> Result<Answer, Infallible> {
    request.extensions_mut().insert(peer);
    // Two names for one request could be understood as one here and as the other by whoever comes next.
    if request.headers().get_all(HOST).iter().nth(1).is_some() {
        return Ok(refuse_two_hosts());
    }
    if Gateway::is_for(&request) {
        return Ok(app.gateway.call(request).await.map(Either::Left));
    }
    request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
    Ok(app.api.call(request).await?.map(Either::Right))
}

fn refuse_two_hosts() -> Answer {
    let body = r#"{"statusCode":400,"error":"Bad Request","message":"the request names more than one Host"}"#;
    let mut answer = Response::new(Either::Right(ApiBody::from(body)));
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
