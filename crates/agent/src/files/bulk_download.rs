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
            return Some(Ok(closing().into()));
        };
        let before = if self.first { "" } else { "\r\n" };
        self.first = false;
        let mut part = boundary_line(before);
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
        Ok((size, file)) => Opened { head: file_head(&path, size), reader: Some((file, size)) },
        Err(failure) => Opened { head: error_part(&path, &failure), reader: None },
    }
}

fn boundary_line(before: &str) -> Vec<u8> {
    format!("{before}--{DOWNLOAD_BOUNDARY}\r\n").into_bytes()
}

fn closing() -> Vec<u8> {
    format!("\r\n--{DOWNLOAD_BOUNDARY}--\r\n").into_bytes()
}

fn file_head(path: &str, size: u64) -> Vec<u8> {
    let mut head = disposition_line("file", path);
    let content_type = content_type_of(path);
    head.extend(format!("Content-Length: {size}\r\nContent-Type: {content_type}\r\n\r\n").into_bytes());
    head
}

fn error_part(path: &str, failure: &Failure) -> Vec<u8> {
    let mut part = disposition_line("error", path);
    part.extend_from_slice(b"Content-Type: application/json; charset=utf-8\r\n\r\n");
    part.extend(serde_json::to_vec(&failure.body(path, "POST")).unwrap_or_default());
    part
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::multipart::{Event, Limits, Parser};
    use proptest::prelude::*;

    /// A file's content, or a failure.
    type Item = (String, Option<Vec<u8>>);

    fn written(items: &[Item]) -> Vec<u8> {
        let mut out = Vec::new();
        for (n, (path, content)) in items.iter().enumerate() {
            out.extend(boundary_line(if n == 0 { "" } else { "\r\n" }));
            match content {
                Some(content) => {
                    out.extend(file_head(path, content.len() as u64));
                    out.extend_from_slice(content);
                }
                None => out.extend(error_part(path, &Failure::bad_request("no"))),
            }
        }
        out.extend(closing());
        out
    }

    proptest! {
        /// Whatever the paths and the files hold, a parser finds one part for each, in order and with its exact bytes.
        #[test]
        fn each_path_is_one_part(
            items in proptest::collection::vec(
                ("\\PC{0,20}|[\r\n\"\\\\;=a]{1,9}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..99))), 1..5),
        ) {
            let mut parser = Parser::new(DOWNLOAD_BOUNDARY, Limits::default());
            parser.push(&written(&items));
            let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
            while let Some(event) = parser.next_event().unwrap() {
                match event {
                    Event::Part { name } => parts.push((name, Vec::new())),
                    Event::Data(data) => parts.last_mut().unwrap().1.extend_from_slice(&data),
                    Event::PartEnd | Event::End => {}
                }
            }
            prop_assert!(parser.finish().is_ok());
            prop_assert_eq!(parts.len(), items.len());
            for ((name, data), (path, content)) in parts.iter().zip(&items) {
                match content {
                    Some(content) => prop_assert_eq!((name.as_str(), data), ("file", content)),
                    None => {
                        let body: serde_json::Value = serde_json::from_slice(data).unwrap();
                        prop_assert_eq!((name.as_str(), body["path"].as_str()), ("error", Some(path.as_str())));
                    }
                }
            }
        }
    }
}
