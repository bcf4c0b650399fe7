//! `POST /files/bulk-upload`: pairs of `files[i].path` and `files[i].file`, each file for itself.

use super::multipart::Event;
use super::upload::{Incoming, Parts};
use crate::body::with_status;
use crate::error::{Answer, Failure};
use crate::query::path_of;
use axum::extract::{OriginalUri, Request};
use bytes::BytesMut;
use http::StatusCode;
use infield_api::toolbox::{UploadFilesResponse, UploadedFile};
use std::collections::HashMap;
use std::path::PathBuf;

/// Longer than any path the kernel takes.
const PATH_BYTES_MAX: usize = 64 << 10;
/// Paths that wait for their file.
const PATHS_MAX: usize = 100_000;
const ERRORS_MAX: usize = 1_000;

/// What the current part is.
enum Part {
    Ignored,
    Path { index: String, text: BytesMut },
    File { path: PathBuf, incoming: Incoming },
}

#[derive(Default)]
struct Batch {
    paths: HashMap<String, PathBuf>,
    done: UploadFilesResponse,
}

pub async fn bulk_upload(OriginalUri(uri): OriginalUri, request: Request) -> Answer {
    let Ok(mut parts) = Parts::of(request) else {
        return Err(Failure::bad_request("invalid multipart form"));
    };
    let mut batch = Batch::default();
    let mut part = Part::Ignored;
    loop {
        match parts.next().await {
            Ok(Some(Event::Part { name })) => part = batch.begin(&name).await,
            Ok(Some(Event::Data(data))) => batch.data(&mut part, data).await,
            Ok(Some(Event::PartEnd)) => batch.end(std::mem::replace(&mut part, Part::Ignored)).await,
            Ok(Some(Event::End) | None) => break,
            Err(e) => {
                batch.error(format!("reading part: {e}"));
                break;
            }
        }
    }
    drop(part);
    parts.drain().await;
    Ok(batch.answer(uri.path()))
}

impl Batch {
    fn error(&mut self, text: String) {
        if self.done.errors.len() < ERRORS_MAX {
            self.done.errors.push(text);
        }
    }

    async fn begin(&mut self, name: &str) -> Part {
        let Some((index, field)) = name.strip_prefix("files[").and_then(|n| n.split_once("].")) else {
            return Part::Ignored;
        };
        match field {
            "path" => Part::Path { index: index.to_owned(), text: BytesMut::new() },
            "file" => {
                let Some(path) = self.paths.remove(index) else {
                    self.error(format!("file[{index}]: missing .path metadata"));
                    return Part::Ignored;
                };
                match Incoming::open(path.clone()).await {
                    Ok(incoming) => Part::File { path, incoming },
                    Err(e) => {
                        self.error(e.text(&path));
                        Part::Ignored
                    }
                }
            }
            _ => Part::Ignored,
        }
    }

    async fn data(&mut self, part: &mut Part, data: bytes::Bytes) {
        match part {
            Part::Ignored => {}
            Part::Path { text, .. } => {
                if text.len() + data.len() <= PATH_BYTES_MAX {
                    text.extend_from_slice(&data);
                }
            }
            Part::File { path, incoming } => {
                if let Err(e) = incoming.write(data).await {
                    self.error(e.text(path));
                    *part = Part::Ignored;
                }
            }
        }
    }

    async fn end(&mut self, part: Part) {
        match part {
            Part::Ignored => {}
            Part::Path { index, text } => match path_of(text.trim_ascii().to_vec(), "path") {
                Ok(path) if path.as_os_str().is_empty() => self.error(format!("path[{index}]: empty path")),
                Ok(_) if self.paths.len() >= PATHS_MAX => self.error(format!("path[{index}]: too many paths")),
                Ok(path) => drop(self.paths.insert(index, path)),
                Err(e) => self.error(format!("path[{index}]: {}", e.message)),
            },
            Part::File { path, incoming } => match incoming.finish().await {
                Ok(bytes) => self.done.files.push(UploadedFile { path: path.to_string_lossy().into_owned(), bytes }),
                Err(e) => self.error(e.text(&path)),
            },
        }
    }

    fn answer(mut self, request_path: &str) -> axum::response::Response {
        if self.done.errors.is_empty() {
            return with_status(StatusCode::OK, &self.done);
        }
        let failure = Failure::bad_request(self.done.errors.join("; "));
        self.done.failure = Some(failure.body(request_path, "POST"));
        with_status(StatusCode::BAD_REQUEST, &self.done)
    }
}
