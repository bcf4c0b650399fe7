//! `POST /files/bulk-download`: every requested path becomes one part, a file or an error. A file that breaks off in the
//! middle ends the answer without its closing boundary, which clients take for what it is.

use super::disposition;
use super::reader::Reader;
use crate::body;
use crate::error::{Answer, Failure, reason};
use crate::small_file;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use infield_api::toolbox::{DOWNLOAD_BOUNDARY, DaemonErrorCode, FilesDownloadRequest};
use std::io;
use std::path::Path;
use std::vec::IntoIter;

pub async fn bulk_download(request: Request) -> Answer {
    let request: FilesDownloadRequest = body::json(request).await?;
    if request.paths.is_empty() {
        return Err(Failure::bad_request("request body must be {\"paths\": [ ... ]} and non-empty"));
    }
    let state = State { paths: request.paths.into_iter(), reader: None, first: true, closed: false };
    let pieces = futures_util::stream::unfold(state, |mut state| async {
        let piece = state.next().await?;
        Some((piece, state))
    });
    Ok(answer(Body::from_stream(pieces)))
}

fn answer(body: Body) -> Response {
    let content_type = HeaderValue::from_static("multipart/form-data; boundary=DAYTONA-FILE-BOUNDARY");
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

struct State {
    paths: IntoIter<String>,
    reader: Option<Reader>,
    first: bool,
    closed: bool,
}

impl State {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if let Some(reader) = &mut self.reader {
            match reader.next().await {
                Some(Err(e)) => {
                    self.closed = true;
                    return Some(Err(e));
                }
                Some(piece) => return Some(piece),
                None => self.reader = None,
            }
        }
        if self.closed {
            return None;
        }
        let Some(path) = self.paths.next() else {
            self.closed = true;
            return Some(Ok(Bytes::from(format!("\r\n--{DOWNLOAD_BOUNDARY}--\r\n"))));
        };
        let before = if self.first { "" } else { "\r\n" };
        self.first = false;
        let mut part = format!("{before}--{DOWNLOAD_BOUNDARY}\r\n").into_bytes();
        match tokio::task::spawn_blocking(move || open(path)).await {
            Ok(Opened { head, reader }) => {
                part.extend(head);
                self.reader = reader.map(|(file, size)| Reader::new(file, size));
                Some(Ok(part.into()))
            }
            Err(e) => Some(Err(io::Error::other(e))),
        }
    }
}

/// The part's headers, for an error also its body, and the file to follow.
struct Opened {
    head: Vec<u8>,
    reader: Option<(std::fs::File, u64)>,
}

fn open(path: String) -> Opened {
    let opened = if path.is_empty() || path.contains('\0') {
        Err(Failure::new(DaemonErrorCode::InvalidFilePath, "invalid file path: path is empty"))
    } else {
        small_file::open_regular(Path::new(&path))
            .and_then(|file| Ok((file.metadata()?.len(), file)))
            .map_err(|e| failure(&path, &e))
    };
    match opened {
        Ok((size, file)) => {
            let mut head = disposition_line("file", &path);
            let content_type = content_type_of(&path);
            head.extend(format!("Content-Length: {size}\r\nContent-Type: {content_type}\r\n\r\n").into_bytes());
            Opened { head, reader: Some((file, size)) }
        }
        Err(failure) => {
            let mut head = disposition_line("error", &path);
            head.extend_from_slice(b"Content-Type: application/json; charset=utf-8\r\n\r\n");
            head.extend(serde_json::to_vec(&failure.body(&path, "POST")).unwrap_or_default());
            Opened { head, reader: None }
        }
    }
}

fn disposition_line(name: &str, path: &str) -> Vec<u8> {
    let mut line = b"Content-Disposition: ".to_vec();
    line.extend(disposition::header(&format!("form-data; name=\"{name}\""), path.as_bytes()));
    line.extend_from_slice(b"\r\n");
    line
}

fn failure(path: &str, e: &io::Error) -> Failure {
    use DaemonErrorCode as Code;
    match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Failure::new(Code::FileNotFound, format!("file not found: {path}"))
        }
        io::ErrorKind::PermissionDenied => Failure::new(Code::FileAccessDenied, format!("permission denied: {path}")),
        io::ErrorKind::IsADirectory => {
            Failure::new(Code::InvalidFilePath, format!("invalid file path: path points to a directory: {path}"))
        }
        _ => Failure::new(Code::FileReadFailed, format!("failed to open file: {path}: {}", reason(e))),
    }
}

/// The types Go knows without any file of the system.
fn content_type_of(path: &str) -> &'static str {
    let extension = path.rsplit('/').next().and_then(|n| n.rsplit_once('.')).map_or("", |(_, e)| e);
    match extension.to_ascii_lowercase().as_str() {
        "avif" => "image/avif",
        "css" => "text/css; charset=utf-8",
        "gif" => "image/gif",
        "htm" | "html" => "text/html; charset=utf-8",
        "jpeg" | "jpg" => "image/jpeg",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        "wasm" => "application/wasm",
        "webp" => "image/webp",
        "xml" => "text/xml; charset=utf-8",
        _ => "application/octet-stream",
    }
}
