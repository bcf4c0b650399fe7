//! Reading and writing one value of a Git configuration file.

use super::failure::{GitFailure, Result};
use super::places::Places;
use git2::{Config, ErrorCode};
use infield_api::toolbox::{DaemonErrorCode as Code, GitConfigResponse, GitConfigureUserRequest, GitSetConfigRequest};
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    pub key: String,
    pub path: Option<String>,
    pub scope: Option<String>,
}

/// `section.name` or `section.any thing.name`: what is between the first and the last dot is free.
pub fn is_key(key: &str) -> bool {
    let Some((section, rest)) = key.split_once('.') else { return false };
    let (sub, name) = rest.rsplit_once('.').unwrap_or(("", rest));
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let starts_right = name.starts_with(|c: char| c.is_ascii_alphabetic());
    word(section) && word(name) && starts_right && !sub.contains(['\n', '\0'])
}

fn check(key: &str) -> Result<()> {
    if is_key(key) {
        return Ok(());
    }
    let message = format!("not a valid configuration key: {key:?}; keys look like user.name or remote.origin.url");
    Err(GitFailure::new(Code::BadRequest, message))
}

fn failed(file: &Path, e: &git2::Error) -> GitFailure {
    let denied = ["permission denied", "read-only"].iter().any(|w| e.message().to_ascii_lowercase().contains(w));
    let code = if denied { Code::Forbidden } else { Code::Internal };
    GitFailure::new(code, format!("{}: {}", file.display(), e.message()))
}

pub fn get(places: &Places, question: &Question) -> Result<GitConfigResponse> {
    check(&question.key)?;
    let file = places.config(question.scope.as_deref(), question.path.as_deref())?;
    if !file.exists() {
        return Ok(GitConfigResponse { value: None });
    }
    let config = Config::open(&file).map_err(|e| failed(&file, &e))?;
    let value = match config.get_entry(&question.key) {
        // A name without "=" means true.
        Ok(entry) if !entry.has_value() => Some("true".to_owned()),
        Ok(entry) => Some(String::from_utf8_lossy(entry.value_bytes()).into_owned()),
        Err(e) if e.code() == ErrorCode::NotFound => None,
        Err(e) => return Err(failed(&file, &e)),
    };
    Ok(GitConfigResponse { value })
}

pub fn set(places: &Places, request: &GitSetConfigRequest) -> Result<()> {
    check(&request.key)?;
    let file = places.config(request.scope.as_deref(), request.path.as_deref())?;
    write(&file, &request.key, &request.value)
}

pub fn set_user(places: &Places, request: &GitConfigureUserRequest) -> Result<()> {
    let file = places.config(request.scope.as_deref(), request.path.as_deref())?;
    write(&file, "user.name", &request.name)?;
    write(&file, "user.email", &request.email)
}

/// Leaves exactly this value, also where there were several.
pub fn write(file: &Path, key: &str, value: &str) -> Result<()> {
    if value.contains('\0') {
        return Err(GitFailure::new(Code::BadRequest, format!("the value of {key} contains a NUL byte")));
    }
    let mut config = Config::open(file).map_err(|e| failed(file, &e))?;
    match config.set_str(key, value) {
        Err(_) if config.multivar(key, None).is_ok() => {
            config.remove_multivar(key, ".*").and_then(|()| config.set_str(key, value))
        }
        outcome => outcome,
    }
    .map_err(|e| failed(file, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for good in ["user.name", "a-b.c-d", "remote.origin.url", "url.git@x.y:.insteadOf", "a.ü b.c"] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", "user", "user.", ".name", "us er.name", "user.na me", "user.1x", "a.b\nc.d", "a..", "-"] {
            assert!(!is_key(bad), "{bad}");
        }
    }
}
