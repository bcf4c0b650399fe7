//! `/git/credentials`: the one way to leave a password in the sandbox, in the file of `git credential-store`, which the
//! image's own `git` reads as well. Transfers without credentials of their own look there, if the configuration says `store`.

use super::config;
use super::credential_line::Entry;
use super::failure::{GitFailure, Result};
use super::places::Places;
use crate::small_file;
use git2::Config;
use infield_api::toolbox::{DaemonErrorCode as Code, GitAuthenticateRequest};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const DEFAULT_HOST: &str = "github.com";
const DEFAULT_PROTOCOL: &str = "https";
const FILE_BYTES_MAX: u64 = 1 << 20;
pub fn store(places: &Places, request: &GitAuthenticateRequest) -> Result<()> {
    let entry = checked(request)?;
    config::write(&places.global_config()?, "credential.helper", "store")?;
    let files = places.credential_files()?;
    let file = files.iter().find(|f| f.exists()).or(files.first()).cloned().unwrap_or_default();
    // A link stays a link: what it leads to is replaced.
    let file = std::fs::canonicalize(&file).unwrap_or(file);
    let failed = |e: io::Error| {
        let code = if e.kind() == io::ErrorKind::PermissionDenied { Code::Forbidden } else { Code::Internal };
        GitFailure::new(code, format!("{}: {}", file.display(), crate::error::reason(&e)))
    };
    let old = match read(&file) {
        Ok(old) => old,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(failed(e)),
    };
    let mut new = entry.line();
    for line in old.split_inclusive('\n') {
        let same = Entry::parse(line)
            .is_some_and(|other| other.is_of(&entry.protocol, &entry.host) && other.username == entry.username);
        if !same {
            new.push_str(line);
        }
    }
    replace(&file, new.as_bytes()).map_err(failed)
}

fn checked(request: &GitAuthenticateRequest) -> Result<Entry> {
    let or = |given: &Option<String>, default: &str| given.clone().filter(|g| !g.is_empty()).unwrap_or(default.into());
    let entry = Entry {
        protocol: or(&request.protocol, DEFAULT_PROTOCOL),
        host: or(&request.host, DEFAULT_HOST),
        username: request.username.clone(),
        password: request.password.0.clone(),
    };
    let refuse = |what: &str| Err(GitFailure::new(Code::BadRequest, what));
    let Entry { protocol, host, username, password } = &entry;
    if [protocol, host, username, password].iter().any(|field| field.contains(['\n', '\r', '\0'])) {
        return refuse("username, password, host and protocol must not contain line breaks or NUL bytes");
    }
    if !protocol.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b)) {
        return refuse("protocol must be a word like https");
    }
    if host.contains(['/', '@', ' ', '?', '#']) {
        return refuse("host must be a host name, with a port if it has one, and nothing else");
    }
    Ok(entry)
}

fn read(file: &Path) -> io::Result<String> {
    let bytes = small_file::read(file, FILE_BYTES_MAX + 1)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes; clean it up first")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// All at once, and readable by its owner only from the first moment.
fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut new = File::from(rustix::fs::open(&lock, flags, Mode::RUSR | Mode::WUSR)?);
    let written = new.write_all(content).and_then(|()| std::fs::rename(&lock, file));
    if written.is_err() {
        let _ = std::fs::remove_file(&lock);
    }
    written
}

/// User and password that the sandbox's user stored for this place. `username` = the one the URL names.
pub fn stored(places: &Places, url: &str, username: Option<&str>) -> Option<(String, String)> {
    let (protocol, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let files = helper_files(places)?;
    files.iter().find_map(|file| {
        let text = read(file).ok()?;
        let fits = |e: &Entry| e.is_of(protocol, host) && username.is_none_or(|u| u == e.username);
        let found = text.lines().filter_map(Entry::parse).find(fits)?;
        Some((found.username, found.password))
    })
}

/// The files of the helper `store`, if the user's configuration has it.
fn helper_files(places: &Places) -> Option<Vec<PathBuf>> {
    let config = Config::open(&places.global_config().ok()?).ok()?;
    let helper = config.get_string("credential.helper").ok()?;
    let mut words = helper.split_whitespace();
    if words.next() != Some("store") {
        return None;
    }
    match words.next().and_then(|w| w.strip_prefix("--file=")) {
        Some(file) => Some(vec![PathBuf::from(file)]),
        None => places.credential_files().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused() {
        let request = |host: &str, username: &str| GitAuthenticateRequest {
            username: username.into(),
            host: Some(host.into()),
            ..Default::default()
        };
        assert!(
            checked(&request("h:80", "u")).is_ok() && checked(&request("", "u")).is_ok_and(|e| e.host == DEFAULT_HOST)
        );
        for (host, user) in [("h", "a\nb"), ("h\r", "u"), ("h/x", "u"), ("u@h", "u"), ("h\0", "u")] {
            assert!(checked(&request(host, user)).is_err_and(|e| e.code == Code::BadRequest));
        }
    }
}
