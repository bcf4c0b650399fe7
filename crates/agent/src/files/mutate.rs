//! Folder, delete, move, permissions.

use super::blocking;
use crate::body::{self, empty};
use crate::error::{Answer, Failure, reason};
use crate::passwd::Accounts;
use crate::query::Query;
use http::StatusCode;
use infield_api::toolbox::DaemonErrorCode;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::Path;

const DEFAULT_FOLDER_MODE: u32 = 0o755;

fn octal(text: &str) -> Result<u32, Failure> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|m| *m <= 0o7777)
        .ok_or_else(|| Failure::bad_request(format!("invalid mode {text:?}: write it as octal digits, like 755")))
}

pub async fn create_folder(query: Query) -> Answer {
    let path = query.path("path")?;
    let mode = query.text("mode").map_or(Ok(DEFAULT_FOLDER_MODE), |m| octal(&m))?;
    blocking(move || {
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&path)
            .map_err(|e| Failure::bad_request(format!("mkdir {}: {}", path.display(), reason(&e))))?;
        Ok(empty(StatusCode::CREATED))
    })
    .await
}

pub async fn delete(query: Query) -> Answer {
    let path = query.path("path")?;
    let recursive = query.is_true("recursive");
    blocking(move || {
        let failed = |e: io::Error| Failure::file(&path, &e);
        if fs::symlink_metadata(&path).map_err(failed)?.is_dir() {
            if !recursive {
                return Err(Failure::bad_request("cannot delete directory without recursive flag"));
            }
            fs::remove_dir_all(&path).map_err(failed)?;
        } else {
            fs::remove_file(&path).map_err(failed)?;
        }
        Ok(empty(StatusCode::NO_CONTENT))
    })
    .await
}

pub async fn move_file(query: Query) -> Answer {
    let (source, destination) = (query.path("source")?, query.path("destination")?);
    blocking(move || {
        fs::symlink_metadata(&source).map_err(|e| Failure::file(&source, &e))?;
        let parent = destination.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::metadata(parent).map_err(|e| Failure::file(parent, &e))?;
        if fs::symlink_metadata(&destination).is_ok() {
            return Err(Failure::new(DaemonErrorCode::Conflict, "conflict: destination already exists"));
        }
        match rename_new(&source, &destination) {
            Ok(()) => Ok(empty(StatusCode::OK)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(Failure::new(DaemonErrorCode::Conflict, "conflict: destination already exists"))
            }
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => copy_then_remove(&source, &destination),
            Err(e) => Err(Failure::file(&source, &e)),
        }
    })
    .await
}

/// Renames, and never over something that appeared a moment ago. Some file systems cannot promise that.
fn rename_new(source: &Path, destination: &Path) -> io::Result<()> {
    match renameat_with(CWD, source, CWD, destination, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(source, destination),
        other => Ok(other?),
    }
}

fn copy_then_remove(source: &Path, destination: &Path) -> Answer {
    if let Err(e) = copy_tree(source, destination) {
        let _ = remove_any(destination);
        return Err(Failure::bad_request(format!("copy {}: {}", source.display(), reason(&e))));
    }
    Ok(match remove_any(source) {
        Ok(()) => empty(StatusCode::OK),
        Err(e) => body::ok(&serde_json::json!({
            "message": "file copied successfully, but the source could not be removed",
            "error": format!("{}: {}", source.display(), reason(&e)),
        })),
    })
}

fn remove_any(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Files, directories and links with their modes; anything else cannot go to another file system.
fn copy_tree(source: &Path, destination: &Path) -> io::Result<()> {
    let mut pending = vec![(source.to_owned(), destination.to_owned())];
    let mut modes = Vec::new();
    while let Some((from, to)) = pending.pop() {
        let metadata = fs::symlink_metadata(&from)?;
        if metadata.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else if metadata.is_dir() {
            fs::create_dir(&to)?;
            modes.push((to.clone(), metadata.permissions()));
            for entry in fs::read_dir(&from)? {
                let name = entry?.file_name();
                pending.push((from.join(&name), to.join(&name)));
            }
        } else if metadata.is_file() {
            fs::copy(&from, &to)?;
        } else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is a special file", from.display())));
        }
    }
    // Last, because a directory may be read-only.
    modes.into_iter().rev().try_for_each(|(path, mode)| fs::set_permissions(path, mode))
}

pub async fn set_permissions(query: Query) -> Answer {
    let path = query.path("path")?;
    let mode = query.text("mode").map(|m| octal(&m)).transpose()?;
    let (owner, group) = (query.text("owner"), query.text("group"));
    blocking(move || {
        let failed = |e: io::Error| Failure::file(&path, &e);
        fs::metadata(&path).map_err(failed)?;
        if let Some(mode) = mode {
            fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed)?;
        }
        if owner.is_some() || group.is_some() {
            let accounts = Accounts::of_image();
            let missing = |what: &str| Failure::bad_request(format!("{what} not found"));
            let uid = owner.map(|o| accounts.uid_of(&o).ok_or_else(|| missing("user"))).transpose()?;
            let gid = group.map(|g| accounts.gid_of(&g).ok_or_else(|| missing("group"))).transpose()?;
            chown(&path, uid, gid).map_err(failed)?;
        }
        Ok(empty(StatusCode::OK))
    })
    .await
}
