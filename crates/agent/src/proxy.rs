//! `/proxy/{port}/…`: HTTP and WebSockets to a port inside the sandbox. What listens there is the user's, so it may be slow,
//! wrong or hostile: nothing is buffered beyond one head, and a conversation lasts as long as both sides want it.
//!
//! Knows nothing of who may ask; that was decided before the request came here.

use crate::error::{Answer, Failure, reason};
use crate::proxy_target::target_of;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::response::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri, Version};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A listener of this machine answers at once, unless its queue is full.
const CONNECT_SECONDS_MAX: u64 = 5;
/// Conversations at a time; each costs a socket and two buffers.
const CONVERSATIONS_MAX: usize = 1024;
/// Ports named to a person.
const PORTS_SHOWN_MAX: usize = 32;
/// The head of an answer, and what is read ahead of its body.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 200;
/// One direction of an upgraded connection.
const UPGRADED_BUFFER_BYTES: usize = 16 << 10;
/// Meant for one connection only (RFC 9110, 7.6.1); `Connection` may name more.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const KEEP_ALIVE: [&str; 2] = ["keep-alive", "proxy-connection"];
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

static CONVERSATIONS: AtomicUsize = AtomicUsize::new(0);

/// One of [`CONVERSATIONS_MAX`].
struct Place;

impl Place {
    fn take() -> Result<Self, Failure> {
        if CONVERSATIONS.fetch_add(1, Ordering::Relaxed) >= CONVERSATIONS_MAX {
            CONVERSATIONS.fetch_sub(1, Ordering::Relaxed);
            let message = format!("this sandbox already carries {CONVERSATIONS_MAX} connections to its ports");
            return Err(Failure::plain(503, message));
        }
        Ok(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        CONVERSATIONS.fetch_sub(1, Ordering::Relaxed);
    }
}

pub async fn forward(mut request: Request) -> Answer {
    let (port, target) = target_of(request.uri()).map_err(Failure::bad_request)?;
    let place = Place::take()?;
    let stream = match connect(port).await {
        Ok(stream) => stream,
        Err(_) if reads_html(request.headers()) => return Ok(nothing_listens(port).await),
        Err(e) => {
            let why = reason(&e);
            return Err(upstream(format!(
                "nothing answers on port {port} of this sandbox ({why}); start the server first"
            )));
        }
    };
    let wanted = upgrade_of(request.headers());
    let client = wanted.is_some().then(|| hyper::upgrade::on(&mut request));
    rewrite(&mut request, target, wanted.as_ref());
    let mut settings = http1::Builder::new();
    settings.preserve_header_case(true).max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let broken = |e: hyper::Error| upstream(format!("port {port} of this sandbox: {}", root_of(&e)));
    let (mut sender, connection) = settings.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(async move {
        // The connection ends with the conversation; its error reaches whoever waits for the answer.
        let _ = connection.with_upgrades().await;
        drop(place);
    });
    let mut answer = sender.send_request(request).await.map_err(broken)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Err(upstream(format!("port {port} of this sandbox changed the protocol without being asked")));
        };
        splice(client, hyper::upgrade::on(&mut answer))?;
    }
    Ok(answer_of(answer))
}

/// `GET /port/{port}/connect`: raw bytes to a port, over an upgraded connection (an Infield extension, for SSH).
pub async fn connect_raw(Path(port): Path<String>, mut request: Request) -> Answer {
    let wants_tcp = upgrade_of(request.headers()).is_some_and(|wanted| wanted.as_bytes().eq_ignore_ascii_case(b"tcp"));
    let port = port.parse::<u16>().ok().filter(|port| wants_tcp && *port > 0);
    let port = port.ok_or_else(|| Failure::bad_request("this takes a port and `Upgrade: tcp`"))?;
    let place = Place::take()?;
    let mut stream = connect(port).await.map_err(|e| upstream(format!("port {port}: {}", reason(&e))))?;
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(client) = client.await {
            let (mut client, size) = (TokioIo::new(client), UPGRADED_BUFFER_BYTES);
            let _ = copy_bidirectional_with_sizes(&mut client, &mut stream, size, size).await;
        }
        drop(place);
    });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    Ok(answer)
}

fn upstream(what: String) -> Failure {
    Failure::plain(502, format!("proxy upstream error: {what}"))
}

fn reads_html(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).any(|accept| accept.contains("text/html"))
}

/// For a person with a browser: what does listen, to be tried instead.
async fn nothing_listens(port: u16) -> Response {
    let listening = crate::port::listening().await;
    let mut others: Vec<String> = listening.iter().take(PORTS_SHOWN_MAX).map(u16::to_string).collect();
    if listening.len() > PORTS_SHOWN_MAX {
        others.push("more".to_owned());
    }
    let others = match others.is_empty() {
        true => "Nothing else listens either: start the server first.".to_owned(),
        false => format!("What listens in this sandbox: {}.", others.join(", ")),
    };
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Nothing listens on port {port}</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:15vh auto;padding:0 1em}}</style></head>\
         <body><h1>Nothing listens on port {port}</h1><p>{others}</p></body></html>"
    );
    let mut answer = Response::new(Body::from(page));
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The innermost reason, which says more than "client error".
fn root_of(e: &dyn std::error::Error) -> String {
    let mut innermost = e;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    innermost.to_string()
}

/// Servers listen on either loopback address.
async fn connect(port: u16) -> io::Result<TcpStream> {
    let mut first = None;
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))] {
        match timeout(Duration::from_secs(CONNECT_SECONDS_MAX), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(e)) => first = first.or(Some(e)),
            Err(_) => first = first.or(Some(io::ErrorKind::TimedOut.into())),
        }
    }
    Err(first.unwrap_or_else(|| io::ErrorKind::NotConnected.into()))
}

/// The protocol a client asks for with `Connection: upgrade`.
fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = words(headers).iter().any(|word| word.eq_ignore_ascii_case("upgrade"));
    asked.then(|| headers.get(header::UPGRADE).cloned())?
}

fn words(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    lines.flat_map(|line| line.split(',').map(|w| w.trim().to_owned())).collect()
}

/// Takes out what is meant for this connection only.
fn strip(headers: &mut HeaderMap) {
    for named in words(headers) {
        // Nobody may take these out: they are what the message is about.
        let essential = ["host", "content-length", "content-type"];
        if !essential.iter().any(|e| named.eq_ignore_ascii_case(e)) {
            headers.remove(named.as_str());
        }
    }
    HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(name)));
    KEEP_ALIVE.iter().for_each(|name| drop(headers.remove(*name)));
}

fn rewrite(request: &mut Request, target: Uri, wanted: Option<&HeaderValue>) {
    *request.uri_mut() = target;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    let trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = wanted {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    if !headers.contains_key(FORWARDED_HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    headers.entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
}

fn answer_of(answer: http::Response<hyper::body::Incoming>) -> Response {
    let (mut head, body) = answer.into_parts();
    let switched = (head.status == StatusCode::SWITCHING_PROTOCOLS).then(|| head.headers.get(header::UPGRADE).cloned());
    strip(&mut head.headers);
    if let Some(protocol) = switched {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        protocol.map(|p| head.headers.insert(header::UPGRADE, p));
    }
    head.version = Version::HTTP_11;
    Response::from_parts(head, Body::new(body))
}

/// Bytes both ways until both sides have ended.
fn splice(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) -> Result<(), Failure> {
    let place = Place::take()?;
    tokio::spawn(async move {
        if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            let size = UPGRADED_BUFFER_BYTES;
            let _ = copy_bidirectional_with_sizes(&mut client, &mut server, size, size).await;
        }
        drop(place);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_stay_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret, content-length, host"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("content-length", "3"),
            ("host", "h"),
            ("cookie", "c"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "cookie", "host"]);
    }
}
