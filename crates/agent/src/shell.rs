//! Which shell runs a command: looked up for every request, so that a shell installed later is found.

use crate::env::Vars;
use crate::{direct, small_file};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const SHELLS_FILE_BYTES_MAX: u64 = 64 << 10;
/// In this order, when `/etc/shells` names them.
const PREFERRED: [&str; 4] = ["/usr/bin/zsh", "/bin/zsh", "/usr/bin/bash", "/bin/bash"];

/// A shell that exists in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shell {
    pub path: PathBuf,
    /// argv[0], which scripts see as `$0`.
    pub name: String,
}

/// Families whose behaviour the direct way knows exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Bash,
    Dash,
    Other,
}

impl Shell {
    pub fn program(&self) -> Option<CString> {
        CString::new(self.path.as_os_str().as_bytes()).ok()
    }

    /// What stands behind the name, so that `/bin/sh` counts as what it links to.
    pub fn family(&self) -> Family {
        let real = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        match real.file_name().map(OsStrExt::as_bytes) {
            Some(b"bash") => Family::Bash,
            Some(b"dash") => Family::Dash,
            _ => Family::Other,
        }
    }
}

/// The sandbox's shell, or `None` in an image without any.
pub fn find(vars: &Vars) -> Option<Shell> {
    if let Ok(listed) = small_file::read(Path::new("/etc/shells"), SHELLS_FILE_BYTES_MAX) {
        let listed = String::from_utf8_lossy(&listed);
        if let Some(shell) = preferred(&listed).filter(|p| direct::is_executable(Path::new(p))) {
            return Some(Shell { path: shell.into(), name: shell.into() });
        }
        if let Some(shell) = vars.get("SHELL").filter(|s| s.starts_with('/') && direct::is_executable(Path::new(s))) {
            return Some(Shell { path: shell.into(), name: shell.clone() });
        }
    }
    let path =
        direct::search("sh", vars).or_else(|| Some(PathBuf::from("/bin/sh")).filter(|p| direct::is_executable(p)))?;
    Some(Shell { path, name: "sh".to_owned() })
}

fn preferred(listed: &str) -> Option<&'static str> {
    let lines = || listed.lines().filter(|l| !l.trim_start().starts_with('#'));
    PREFERRED.into_iter().find(|shell| lines().any(|l| l.contains(shell)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zsh_wins_and_comments_do_not_count() {
        assert_eq!(preferred("/bin/sh\n/bin/bash\n/usr/bin/zsh\n"), Some("/usr/bin/zsh"));
        assert_eq!(preferred("# /bin/zsh\n/bin/sh\n/bin/bash\n"), Some("/bin/bash"));
        assert_eq!(preferred("/bin/sh\n"), None);
    }
}
