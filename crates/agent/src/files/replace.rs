//! `POST /files/replace`: literal replacement in files, each replaced as a whole or not at all.

use super::blocking;
use super::target::Target;
use crate::body;
use crate::error::{Answer, Failure, reason};
use crate::small_file;
use axum::extract::Request;
use infield_api::toolbox::{ReplaceRequest, ReplaceResult};
use memchr::memmem;
use std::io::{self, Read};
use std::path::Path;

/// Larger files are refused: they are held in memory.
const REPLACE_FILE_BYTES_MAX: u64 = 128 << 20;

pub async fn replace(request: Request) -> Answer {
    let request: ReplaceRequest = body::json(request).await?;
    let missing = |what: &str| Failure::invalid_body(format!("{what} is required"));
    let files = request.files.ok_or_else(|| missing("files"))?;
    let new_value = request.new_value.ok_or_else(|| missing("newValue"))?;
    if request.pattern.is_empty() {
        return Err(missing("pattern"));
    }
    blocking(move || {
        let one = |file: String| {
            let error = replace_in(Path::new(&file), request.pattern.as_bytes(), new_value.as_bytes()).err();
            let error = error.map(|e| format!("{file}: {}", reason(&e)));
            ReplaceResult { file, success: error.is_none(), error }
        };
        Ok(body::ok(&files.into_iter().map(one).collect::<Vec<_>>()))
    })
    .await
}

fn replace_in(path: &Path, pattern: &[u8], new_value: &[u8]) -> io::Result<()> {
    let file = small_file::open_regular(path)?;
    if file.metadata()?.len() > REPLACE_FILE_BYTES_MAX {
        return Err(io::Error::other(format!("the file is larger than {REPLACE_FILE_BYTES_MAX} bytes")));
    }
    let mut old = Vec::new();
    file.take(REPLACE_FILE_BYTES_MAX).read_to_end(&mut old)?;
    let mut new = Vec::with_capacity(old.len());
    let mut from = 0;
    for at in memmem::find_iter(&old, pattern) {
        new.extend_from_slice(&old[from..at]);
        new.extend_from_slice(new_value);
        from = at + pattern.len();
        if new.len() as u64 > REPLACE_FILE_BYTES_MAX {
            return Err(io::Error::other(format!("the result is larger than {REPLACE_FILE_BYTES_MAX} bytes")));
        }
    }
    new.extend_from_slice(&old[from..]);
    let target = Target::open(path).map_err(|e| e.source)?;
    target.write(&[new.into()])?;
    target.commit()
}
