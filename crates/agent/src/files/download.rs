//! `GET /files/download`: one file, also in part and only when it changed.

use super::range::parse_range;
use super::reader::Reader;
use super::{disposition, path};
use crate::error::{Answer, Failure};
use crate::query::Query;
use crate::{small_file, timestamp};
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub async fn download(query: Query, headers: HeaderMap) -> Answer {
    let path = query.path("path")?;
    let opened = tokio::task::spawn_blocking(move || open(path)).await;
    let (path, file, size, modified) = opened.map_err(Failure::internal)??;
    let mut response = Response::default();
    common_headers(response.headers_mut(), &path, modified);
    let since = text(&headers, header::IF_MODIFIED_SINCE).and_then(timestamp::parse_http_date);
    if since.is_some_and(|since| modified <= since) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let range = text(&headers, header::RANGE).filter(|_| range_still_applies(&headers, modified));
    let (start, bytes) = match range.map_or(Ok(None), |range| parse_range(range, size)) {
        Ok(None) => (0, size),
        Ok(Some((start, bytes))) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let shown = format!("bytes {start}-{}/{size}", start + bytes - 1);
            response.headers_mut().insert(header::CONTENT_RANGE, value(&shown));
            (start, bytes)
        }
        Err(()) => return Ok(unsatisfiable(size)),
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    *response.body_mut() = stream(file, start, bytes).map_err(|e| Failure::file(&path, &e))?;
    Ok(response)
}

fn open(path: PathBuf) -> Result<(PathBuf, File, u64, i64), Failure> {
    let opened = small_file::open_regular(&path).and_then(|file| Ok((file.metadata()?, file)));
    match opened {
        Ok((metadata, file)) => Ok((path, file, metadata.size(), metadata.mtime())),
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => Err(Failure::bad_request("path must be a file")),
        Err(e) => Err(Failure::file(&path, &e)),
    }
}

fn stream(mut file: File, start: u64, bytes: u64) -> io::Result<Body> {
    file.seek(SeekFrom::Start(start))?;
    let pieces = futures_util::stream::unfold(Reader::new(file, bytes), |mut reader| async {
        let piece = reader.next().await?;
        Some((piece, reader))
    });
    Ok(Body::from_stream(pieces))
}

fn common_headers(headers: &mut HeaderMap, path: &Path, modified: i64) {
    let fixed = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (HeaderName::from_static("content-description"), "File Transfer"),
        (HeaderName::from_static("content-transfer-encoding"), "binary"),
        (header::EXPIRES, "0"),
        (header::CACHE_CONTROL, "must-revalidate"),
        (header::PRAGMA, "public"),
        (header::ACCEPT_RANGES, "bytes"),
    ];
    for (name, text) in fixed {
        headers.insert(name, HeaderValue::from_static(text));
    }
    headers.insert(header::CONTENT_DISPOSITION, disposition::attachment(&path::base(path)));
    headers.insert(header::LAST_MODIFIED, value(&timestamp::http_date(modified)));
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// `If-Range` with another date means that the client holds an older version.
fn range_still_applies(headers: &HeaderMap, modified: i64) -> bool {
    text(headers, header::IF_RANGE).is_none_or(|date| timestamp::parse_http_date(date) == Some(modified))
}

fn unsatisfiable(size: u64) -> Response {
    let mut response = Response::new(Body::from("invalid range: failed to overlap\n"));
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    response.headers_mut().insert(header::CONTENT_RANGE, value(&format!("bytes */{size}")));
    response
}
