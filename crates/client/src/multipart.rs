//! Builds `multipart/form-data` for `/files/bulk-upload`: file contents stream from disk, nothing is held whole.

use crate::{error::ClientError, transport::Body};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::{collections::VecDeque, io, path::PathBuf};
use tokio::{fs::File, io::AsyncReadExt};

const CHUNK_BYTES: usize = 256 << 10;

/// One file for the sandbox.
pub struct Upload {
    /// Where it goes: absolute, or relative to the sandbox's working directory.
    pub path: String,
    pub content: Content,
}

pub enum Content {
    Bytes(Bytes),
    File(PathBuf),
}

enum Piece {
    Bytes(Bytes),
    File(PathBuf),
    Open(File),
}

/// The content type with its boundary, and the body.
pub async fn encode(files: Vec<Upload>) -> Result<(String, Body), ClientError> {
    let boundary = uuid::Uuid::new_v4().simple().to_string();
    let mut pieces = VecDeque::new();
    for (index, file) in files.into_iter().enumerate() {
        let name = file.path.rsplit('/').next().unwrap_or("file").to_owned();
        pieces.push_back(Piece::Bytes(field(&boundary, &format!("files[{index}].path"), None, &file.path)?));
        pieces.push_back(Piece::Bytes(field(&boundary, &format!("files[{index}].file"), Some(&name), "")?));
        pieces.push_back(match file.content {
            Content::Bytes(bytes) => Piece::Bytes(bytes),
            Content::File(path) => Piece::File(path),
        });
        pieces.push_back(Piece::Bytes(Bytes::from_static(b"\r\n")));
    }
    pieces.push_back(Piece::Bytes(Bytes::from(format!("--{boundary}--\r\n"))));
    let frames = stream::try_unfold(pieces, next_frame);
    Ok((format!("multipart/form-data; boundary={boundary}"), StreamBody::new(frames).boxed_unsync()))
}

async fn next_frame(mut pieces: VecDeque<Piece>) -> io::Result<Option<(Frame<Bytes>, VecDeque<Piece>)>> {
    loop {
        let mut file = match pieces.pop_front() {
            None => return Ok(None),
            Some(Piece::Bytes(bytes)) => return Ok(Some((Frame::data(bytes), pieces))),
            Some(Piece::File(path)) => File::open(path).await?,
            Some(Piece::Open(file)) => file,
        };
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        if file.read_buf(&mut chunk).await? > 0 {
            pieces.push_front(Piece::Open(file));
            return Ok(Some((Frame::data(chunk.freeze()), pieces)));
        }
    }
}

/// A field's head and, for plain fields, its value.
fn field(boundary: &str, name: &str, filename: Option<&str>, value: &str) -> Result<Bytes, ClientError> {
    if [Some(value), filename].into_iter().flatten().any(|text| text.contains(['\r', '\n', '"', '\0'])) {
        return Err(ClientError::Invalid(format!("{value:?} cannot be the path of an upload")));
    }
    let text = match filename {
        Some(filename) => format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        ),
        None => format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"),
    };
    Ok(Bytes::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_and_bytes_become_one_body() {
        let path = std::env::temp_dir().join(format!("infield-upload-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, vec![7u8; CHUNK_BYTES + 1]).expect("write");
        let files = vec![
            Upload { path: "/a/b".into(), content: Content::Bytes(Bytes::from_static(b"hi")) },
            Upload { path: "c".into(), content: Content::File(path.clone()) },
        ];
        let (kind, body) = encode(files).await.expect("encode");
        let bytes = body.collect().await.expect("collect").to_bytes();
        std::fs::remove_file(path).expect("remove");
        let boundary = kind.strip_prefix("multipart/form-data; boundary=").expect("boundary");
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches(boundary).count(), 5);
        assert!(text.contains("name=\"files[0].path\"\r\n\r\n/a/b\r\n"));
        assert!(text.contains("filename=\"b\"\r\nContent-Type: application/octet-stream\r\n\r\nhi\r\n"));
        assert_eq!(bytes.iter().filter(|b| **b == 7).count(), CHUNK_BYTES + 1);
    }

    #[tokio::test]
    async fn a_path_cannot_break_out_of_its_field() {
        let files = vec![Upload { path: "a\r\n\r\nb".into(), content: Content::Bytes(Bytes::new()) }];
        assert!(encode(files).await.is_err());
    }
}
