//! One file from a request body: the part of all uploads that meets the disk, and the single-file routes.

use super::multipart::{Event, Limits, Malformed, Parser, boundary_of};
use super::path;
use super::target::Target;
use crate::body::{self, empty};
use crate::error::{Answer, Failure, reason};
use crate::query::Query;
use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use infield_api::toolbox::{DaemonErrorCode, UploadFileResponse};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_blocking};

/// Written in one go; small pieces of the body are gathered up to this.
const BATCH_BYTES: usize = 512 << 10;

/// A file that is being received. Dropped before [`Incoming::finish`], it leaves nothing behind.
pub struct Incoming {
    target: Arc<Target>,
    batch: Vec<Bytes>,
    batch_bytes: usize,
    /// The previous batch, still on its way to the disk while the next one is received.
    writing: Option<JoinHandle<io::Result<()>>>,
    pub bytes: u64,
}

/// Which step failed, for the error texts, and why.
pub struct UploadError {
    pub step: String,
    pub source: io::Error,
}

impl UploadError {
    fn at(step: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { step: step.to_owned(), source }
    }

    pub fn text(&self, path: &Path) -> String {
        format!("{}: {}: {}", path.display(), self.step, reason(&self.source))
    }

    fn failure(&self, path: &Path) -> Failure {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => Failure::new(DaemonErrorCode::FileAccessDenied, self.text(path)),
            _ => Failure::bad_request(self.text(path)),
        }
    }
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

impl Incoming {
    pub async fn open(path: PathBuf) -> Result<Self, UploadError> {
        let opened = spawn_blocking(move || Target::open(&path)).await;
        let target = match opened {
            Ok(result) => result.map_err(|e| UploadError { step: e.step, source: e.source })?,
            Err(e) => return Err(UploadError { step: "create".to_owned(), source: io::Error::other(e) }),
        };
        Ok(Self { target: Arc::new(target), batch: Vec::new(), batch_bytes: 0, writing: None, bytes: 0 })
    }

    pub async fn write(&mut self, piece: Bytes) -> Result<(), UploadError> {
        self.bytes += piece.len() as u64;
        self.batch_bytes += piece.len();
        self.batch.push(piece);
        if self.batch_bytes >= BATCH_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), UploadError> {
        self.written().await?;
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            self.batch_bytes = 0;
            let target = self.target.clone();
            self.writing = Some(spawn_blocking(move || target.write(&batch)));
        }
        Ok(())
    }

    async fn written(&mut self) -> Result<(), UploadError> {
        match self.writing.take() {
            Some(writing) => {
                writing.await.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(UploadError::at("write"))
            }
            None => Ok(()),
        }
    }

    /// Everything has arrived: the file appears.
    pub async fn finish(mut self) -> Result<u64, UploadError> {
        self.flush().await?;
        self.written().await?;
        let target = self.target;
        on_disk(move || target.commit()).await.map_err(UploadError::at("close"))?;
        Ok(self.bytes)
    }
}

/// Why a body could not be read as multipart to its end.
#[derive(Debug)]
pub enum BodyError {
    Malformed(Malformed),
    Broken(axum::Error),
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(e) => e.fmt(f),
            Self::Broken(e) => write!(f, "the request body ended early: {e}"),
        }
    }
}

/// Multipart events of a request body.
pub struct Parts {
    body: Body,
    parser: Parser,
}

impl Parts {
    /// `None` when the request is not multipart; it is given back.
    pub fn of(request: Request) -> Result<Self, Box<Request>> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        match content_type.and_then(boundary_of) {
            Some(boundary) => Ok(Self { body: request.into_body(), parser: Parser::new(&boundary, Limits::default()) }),
            None => Err(Box::new(request)),
        }
    }

    pub async fn next(&mut self) -> Result<Option<Event>, BodyError> {
        loop {
            match self.parser.next_event().map_err(BodyError::Malformed)? {
                Some(Event::End) => return Ok(None),
                Some(event) => return Ok(Some(event)),
                None => {}
            }
            match next_piece(&mut self.body).await? {
                Some(piece) => self.parser.push(&piece),
                None => return self.parser.finish().map(|()| None).map_err(BodyError::Malformed),
            }
        }
    }

    /// Reads the rest, so that the client hears the answer instead of a broken pipe.
    pub async fn drain(mut self) {
        drain(&mut self.body).await;
    }
}

async fn next_piece(body: &mut Body) -> Result<Option<Bytes>, BodyError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

async fn drain(body: &mut Body) {
    while let Ok(Some(_)) = next_piece(body).await {}
}

/// `POST /files/upload-v2`: a part named `file`, or the raw body.
pub async fn upload(query: Query, request: Request) -> Answer {
    let path = receive(&query, request).await?;
    let (name, path) = (path::base(&path), path.to_string_lossy().into_owned());
    let name = String::from_utf8_lossy(&name).into_owned();
    Ok(body::ok(&UploadFileResponse { name, path, kind: "file".to_owned() }))
}

/// `POST /files/upload`, from before the published contract.
pub async fn upload_legacy(query: Query, request: Request) -> Answer {
    receive(&query, request).await.map(|_| empty(StatusCode::OK))
}

async fn receive(query: &Query, request: Request) -> Result<PathBuf, Failure> {
    let path = match query.path("path") {
        Ok(path) => path,
        Err(failure) => {
            drain(&mut request.into_body()).await;
            return Err(failure);
        }
    };
    match Parts::of(request) {
        Ok(mut parts) => {
            let outcome = receive_part(&path, &mut parts).await;
            parts.drain().await;
            outcome?;
        }
        Err(raw) => {
            let mut body = raw.into_body();
            let outcome = receive_raw(&path, &mut body).await;
            drain(&mut body).await;
            outcome?;
        }
    }
    Ok(path)
}

async fn receive_raw(path: &Path, body: &mut Body) -> Result<(), Failure> {
    let failed = |e: UploadError| e.failure(path);
    let mut incoming = Incoming::open(path.to_owned()).await.map_err(failed)?;
    while let Some(piece) = next_piece(body).await.map_err(|e| Failure::bad_request(e.to_string()))? {
        incoming.write(piece).await.map_err(failed)?;
    }
    incoming.finish().await.map_err(failed)?;
    Ok(())
}

async fn receive_part(path: &Path, parts: &mut Parts) -> Result<(), Failure> {
    let failed = |e: UploadError| e.failure(path);
    let mut incoming = None;
    while let Some(event) = parts.next().await.map_err(|e| Failure::bad_request(e.to_string()))? {
        match (event, incoming.as_mut()) {
            (Event::Part { name }, _) if name == "file" => {
                incoming = Some(Incoming::open(path.to_owned()).await.map_err(failed)?);
            }
            (Event::Data(data), Some(file)) => Incoming::write(file, data).await.map_err(failed)?,
            (Event::PartEnd, Some(_)) => break,
            _ => {}
        }
    }
    match incoming {
        Some(file) => file.finish().await.map(|_| ()).map_err(failed),
        None => Err(Failure::bad_request("the form has no part named \"file\"")),
    }
}
