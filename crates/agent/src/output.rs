//! What a command printed, kept in memory within bounds: one command cannot use up the agent, nor can many together.

use crate::json_text::{JsonText, json_of_lossy};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header};
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Kept of one command's output; the rest is read and thrown away.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 64 << 20;
/// Kept of all running commands' output together.
pub const ALL_OUTPUT_BYTES_MAX: usize = 192 << 20;
/// Answers up to this size are built in one piece.
const WHOLE_ANSWER_BYTES_MAX: usize = 256 << 10;
const FIRST_PIECE_BYTES: usize = 4 << 10;
/// What a pipe holds.
const PIECE_BYTES: usize = 64 << 10;

static ALL_OUTPUT_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Output in arrival order.
#[derive(Default)]
pub struct Output {
    pieces: Vec<Bytes>,
    filling: BytesMut,
    bytes: usize,
    truncated: bool,
}

impl Output {
    /// Reads once; 0 at the end of the stream. Cancel safe.
    pub async fn read_from(&mut self, pipe: &mut pipe::Receiver) -> io::Result<usize> {
        if self.filling.capacity() - self.filling.len() < FIRST_PIECE_BYTES {
            let piece = self.filling.split().freeze();
            let next = if piece.is_empty() { FIRST_PIECE_BYTES } else { PIECE_BYTES };
            if !piece.is_empty() {
                self.pieces.push(piece);
            }
            self.filling = BytesMut::with_capacity(next);
        }
        let before = self.filling.len();
        let n = pipe.read_buf(&mut self.filling).await?;
        let kept = self.reserve(n);
        self.filling.truncate(before + kept);
        Ok(n)
    }

    pub fn append(&mut self, text: &[u8]) {
        let kept = self.reserve(text.len());
        self.filling.extend_from_slice(&text[..kept]);
    }

    fn reserve(&mut self, wanted: usize) -> usize {
        let kept = wanted.min(EXEC_OUTPUT_BYTES_MAX - self.bytes);
        let all = ALL_OUTPUT_BYTES.fetch_add(kept, Ordering::Relaxed);
        let over = (all + kept).saturating_sub(ALL_OUTPUT_BYTES_MAX).min(kept);
        ALL_OUTPUT_BYTES.fetch_sub(over, Ordering::Relaxed);
        self.bytes += kept - over;
        self.truncated |= kept - over < wanted;
        kept - over
    }

    /// Everything kept, in one piece, and a note when that is not all.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.note_truncation();
        let last = self.filling.split().freeze();
        let pieces = std::mem::take(&mut self.pieces);
        let mut bytes = Vec::with_capacity(self.bytes);
        pieces.iter().chain([&last]).for_each(|piece| bytes.extend_from_slice(piece));
        bytes
    }

    /// The answer of execute and code-run.
    pub fn into_answer(mut self, exit_code: i32) -> Response {
        self.note_truncation();
        let last = self.filling.split().freeze();
        self.pieces.push(last);
        let head = format!("{{\"exitCode\":{exit_code},\"result\":");
        let body = if self.bytes <= WHOLE_ANSWER_BYTES_MAX {
            let mut json = head.into_bytes();
            json.extend(json_of_lossy(self.pieces.iter().map(|p| &p[..])));
            json.push(b'}');
            Body::from(json)
        } else {
            self.stream(head)
        };
        let content_type = HeaderValue::from_static("application/json; charset=utf-8");
        ([(header::CONTENT_TYPE, content_type)], body).into_response()
    }

    fn note_truncation(&mut self) {
        if self.truncated {
            let note = format!("\n[output truncated: the sandbox kept the first {} bytes]\n", self.bytes);
            self.filling.extend_from_slice(note.as_bytes());
        }
    }

    fn stream(mut self, head: String) -> Body {
        let pieces = std::mem::take(&mut self.pieces).into_iter();
        // The bytes stay counted until the last one is sent: `self` travels with the stream.
        let start = (Some(head), pieces, JsonText::default(), self);
        Body::from_stream(futures_util::stream::unfold(Some(start), |state| async {
            let (head, mut pieces, mut text, counted) = state?;
            let mut out = Vec::new();
            if let Some(head) = head {
                out.extend_from_slice(head.as_bytes());
                out.push(b'"');
            }
            match pieces.next() {
                Some(piece) => {
                    text.push(&mut out, &piece);
                    Some((Ok::<_, Infallible>(Bytes::from(out)), Some((None, pieces, text, counted))))
                }
                None => {
                    text.finish(&mut out);
                    out.extend_from_slice(b"\"}");
                    Some((Ok(Bytes::from(out)), None))
                }
            }
        }))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        ALL_OUTPUT_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_output_is_bounded_and_says_so() {
        let mut output = Output::default();
        let block = vec![b'x'; 1 << 20];
        for _ in 0..65 {
            output.append(&block);
        }
        assert_eq!(output.bytes, EXEC_OUTPUT_BYTES_MAX);
        assert!(output.truncated);
    }
}
