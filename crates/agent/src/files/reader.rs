//! A file as a stream of large pieces: the next one is read while the last one is being sent.

use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_blocking};

const PIECE_BYTES: u64 = 256 << 10;

pub struct Reader {
    file: Arc<File>,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reader {
    /// Reads exactly `bytes` from the file's current position; a file that ends before is an error.
    pub fn new(file: File, bytes: u64) -> Self {
        let mut reader = Self { file: Arc::new(file), left: bytes, reading: None };
        reader.read_ahead();
        reader
    }

    fn read_ahead(&mut self) {
        let wanted = self.left.min(PIECE_BYTES);
        if wanted == 0 {
            return;
        }
        self.left -= wanted;
        let file = self.file.clone();
        self.reading = Some(spawn_blocking(move || {
            let mut piece = Vec::with_capacity(wanted as usize);
            (&*file).take(wanted).read_to_end(&mut piece)?;
            if piece.len() as u64 != wanted {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
            }
            Ok(Bytes::from(piece))
        }));
    }

    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let piece = self.reading.take()?.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        if piece.is_ok() {
            self.read_ahead();
        }
        Some(piece)
    }
}
