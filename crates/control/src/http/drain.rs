//! Bodies that nobody read. An error often needs no body, but a connection on which one is left over has to be closed, and
//! clients that reuse connections then see their next request fail. So the rest is read, within bounds.

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

/// More than this is not worth a connection.
const REST_BYTES_MAX: usize = 256 << 10;
/// Nor is a client that sends slower than this.
const REST_TIME_MAX: Duration = Duration::from_secs(2);

/// A body that is still there when its reader is gone.
struct Lent(Arc<Mutex<Body>>);

impl Lent {
    fn with<T>(&self, act: impl FnOnce(&mut Body) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}

/// Middleware: whatever the handlers leave of the request's body is read before the answer goes out.
pub async fn drain(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body));
    let response = next.run(Request::from_parts(parts, Body::new(Lent(body.clone())))).await;
    // Too long or too slow: the connection closes, as it would have.
    let _ = tokio::time::timeout(REST_TIME_MAX, rest(Lent(body))).await;
    response
}

async fn rest(mut body: Lent) {
    let mut left = REST_BYTES_MAX;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame.into_data() else { return };
        match left.checked_sub(data.len()) {
            Some(fewer) => left = fewer,
            None => return,
        }
    }
}
