//! A JSON array whose length nobody knows: its elements are found and sent piece by piece, so that neither a huge folder nor a
//! client that reads slowly costs memory or holds a thread. A failure in the middle breaks the answer off.

use crate::error::{Answer, Failure, reason};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde::Serialize;
use std::io;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

const PIECE_BYTES: usize = 128 << 10;
/// A search that finds nothing looks this often whether its client is still there.
const SLICE: Duration = Duration::from_millis(100);

struct Writer<I> {
    elements: I,
    any: bool,
    tail: &'static str,
    ended: bool,
}

/// `head`, the elements with commas, `tail`; an element of `None` says that there is nothing yet. What `open` answers, and
/// failures among the first elements, are ordinary errors.
pub async fn answer<T, I>(
    head: &'static str,
    tail: &'static str,
    open: impl FnOnce() -> Result<I, Failure> + Send + 'static,
) -> Answer
where
    T: Serialize,
    I: Iterator<Item = io::Result<Option<T>>> + Send + 'static,
{
    let opened = spawn_blocking(open).await.map_err(Failure::internal)??;
    let writer = Writer { elements: opened, any: false, tail, ended: false };
    let (piece, writer) = next_piece(head.into(), writer).await.map_err(|e| Failure::bad_request(reason(&e)))?;
    if writer.ended {
        return Ok(response(piece.into()));
    }
    let rest = futures_util::stream::unfold(Some((piece, writer)), |state| async {
        let (piece, writer) = state?;
        let next = match writer.ended {
            true if piece.is_empty() => return None,
            true => Ok((Vec::new(), writer)),
            false => next_piece(Vec::new(), writer).await,
        };
        Some(match next {
            Ok(next) => (Ok(Bytes::from(piece)), Some(next)),
            Err(e) => (Err(e), None),
        })
    });
    Ok(response(Body::from_stream(rest)))
}

fn response(body: Body) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"))], body).into_response()
}

/// Adds to `piece` until it is large or the array has ended.
async fn next_piece<T, I>(mut piece: Vec<u8>, mut writer: Writer<I>) -> io::Result<(Vec<u8>, Writer<I>)>
where
    T: Serialize,
    I: Iterator<Item = io::Result<Option<T>>> + Send + 'static,
{
    while piece.len() < PIECE_BYTES && !writer.ended {
        let slice = spawn_blocking(move || {
            writer.fill(&mut piece)?;
            io::Result::Ok((piece, writer))
        });
        (piece, writer) = slice.await.unwrap_or_else(|e| Err(io::Error::other(e)))?;
    }
    Ok((piece, writer))
}

impl<I> Writer<I> {
    fn fill<T: Serialize>(&mut self, piece: &mut Vec<u8>) -> io::Result<()>
    where
        I: Iterator<Item = io::Result<Option<T>>>,
    {
        let began = Instant::now();
        while piece.len() < PIECE_BYTES && began.elapsed() < SLICE {
            match self.elements.next() {
                Some(found) => {
                    let Some(element) = found? else { continue };
                    if std::mem::replace(&mut self.any, true) {
                        piece.push(b',');
                    }
                    serde_json::to_writer(&mut *piece, &element)?;
                }
                None => {
                    piece.extend_from_slice(self.tail.as_bytes());
                    self.ended = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
