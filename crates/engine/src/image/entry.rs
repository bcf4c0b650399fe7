//! Decides what one archive member means for a layer: a pure function from what the header says to an action or a
//! refusal. Knows no file system; everything it lets through is still resolved inside the layer's own root later.

use super::tarfile::Member;
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

/// Longest path or link target in a layer, as in Linux.
pub const PATH_BYTES_MAX: usize = 4_095;
/// Longest single name, as in Linux.
pub const NAME_BYTES_MAX: usize = 255;
/// A sandbox has ids 0..=65535, so an image cannot use others.
pub const OWNER_ID_MAX: u64 = 65_535;

const WHITEOUT: &[u8] = b".wh.";
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A path inside a layer: relative, without `.`, `..` and empty components. Empty means the layer's root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LayerPath(Vec<OsString>);

impl LayerPath {
    /// A leading `/` means the layer's root, as every other tool reads it; `..` is refused even where it would stay inside.
    pub fn parse(raw: &[u8]) -> Result<Self, String> {
        if raw.len() > PATH_BYTES_MAX {
            return Err(format!("the path is longer than {PATH_BYTES_MAX} bytes"));
        }
        let mut parts = Vec::new();
        for part in raw.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err("the path contains `..`".into()),
                _ if part.contains(&0) => return Err("the path contains a NUL byte".into()),
                _ if part.len() > NAME_BYTES_MAX => {
                    return Err(format!("a name in the path is longer than {NAME_BYTES_MAX} bytes"));
                }
                _ => parts.push(OsString::from_vec(part.to_vec())),
            }
        }
        Ok(Self(parts))
    }

    pub fn parts(&self) -> &[OsString] {
        &self.0
    }

    /// The containing directory and the last name; `None` for the root.
    pub fn split(&self) -> Option<(LayerPath, &OsStr)> {
        let (name, parent) = self.0.split_last()?;
        Some((LayerPath(parent.to_vec()), name))
    }

    /// `.` for the root.
    pub fn to_path(&self) -> PathBuf {
        if self.0.is_empty() { PathBuf::from(".") } else { self.0.iter().collect() }
    }

    fn sibling(&self, name: &[u8]) -> LayerPath {
        let mut parts = self.0.clone();
        parts.pop();
        parts.push(OsString::from_vec(name.to_vec()));
        LayerPath(parts)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Means nothing in a layer, or something a sandbox gets elsewhere.
    Skip,
    Directory(LayerPath),
    File(LayerPath),
    Symlink(LayerPath, OsString),
    Hardlink(LayerPath, LayerPath),
    Fifo(LayerPath),
    /// Hides what lower layers have at this path.
    Whiteout(LayerPath),
    /// Hides everything lower layers have in this directory.
    Opaque(LayerPath),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrAction {
    Keep,
    Drop,
}

/// The whole policy for members. `Err` is the reason of a refusal, for people.
pub fn decide(member: &Member) -> Result<Action, String> {
    let path = LayerPath::parse(&member.path)?;
    if let Some(action) = decide_whiteout(&path)? {
        return Ok(action);
    }
    let is_root = path.parts().is_empty();
    let action = match member.kind {
        b'5' => Action::Directory(path),
        _ if is_root => return Err("the root of a layer must be a directory".into()),
        // Old archives mark a directory by a trailing slash only.
        0 | b'0' if member.path.last() == Some(&b'/') => Action::Directory(path),
        0 | b'0' | b'7' | b'S' => Action::File(path),
        b'1' => Action::Hardlink(path, decide_link(&member.link)?),
        b'2' => Action::Symlink(path, symlink_target(&member.link)?),
        b'6' => Action::Fifo(path),
        b'3' if member.device == (0, 0) => Action::Whiteout(path),
        b'3' | b'4' => return decide_device(path, member),
        other => return Err(format!("type {:?} is unknown", char::from(other))),
    };
    match action {
        Action::Whiteout(_) => Ok(action),
        _ => decide_owner(member).map(|()| action),
    }
}

fn decide_owner(member: &Member) -> Result<(), String> {
    for (what, id) in [("user", member.uid), ("group", member.gid)] {
        if id > OWNER_ID_MAX {
            return Err(format!(
                "it belongs to {what} {id}, but a sandbox has only ids 0 to {OWNER_ID_MAX}; rebuild the image with a lower id"
            ));
        }
    }
    Ok(())
}

/// Sandboxes get their own `/dev` mounted over the image's, so nodes directly below it are dropped without loss.
fn decide_device(path: LayerPath, member: &Member) -> Result<Action, String> {
    if path.parts().first().is_some_and(|first| first == "dev") {
        return Ok(Action::Skip);
    }
    let (major, minor) = member.device;
    Err(format!("device nodes ({major}:{minor}) outside dev/ are not allowed in an image"))
}

fn decide_link(raw: &[u8]) -> Result<LayerPath, String> {
    let target = LayerPath::parse(raw).map_err(|why| format!("its hard link target is unusable: {why}"))?;
    if target.parts().is_empty() {
        return Err("its hard link target is empty".into());
    }
    Ok(target)
}

/// Symbolic links are plain data: they are followed only inside a sandbox, or inside the layer's root.
fn symlink_target(raw: &[u8]) -> Result<OsString, String> {
    match raw {
        [] => Err("its link target is empty".into()),
        _ if raw.len() > PATH_BYTES_MAX => Err(format!("its link target is longer than {PATH_BYTES_MAX} bytes")),
        _ if raw.contains(&0) => Err("its link target contains a NUL byte".into()),
        _ => Ok(OsStr::from_bytes(raw).to_owned()),
    }
}

fn decide_whiteout(path: &LayerPath) -> Result<Option<Action>, String> {
    let Some((parent, name)) = path.split() else { return Ok(None) };
    // Bookkeeping of the aufs file system that leaked into old images.
    let is_aufs = |part: &OsStr| part.as_bytes().starts_with(AUFS) && part.as_bytes() != OPAQUE;
    if path.parts().iter().any(|part| is_aufs(part)) {
        return Ok(Some(Action::Skip));
    }
    if parent.parts().iter().any(|part| part.as_bytes().starts_with(WHITEOUT)) {
        return Err("a whiteout cannot be a directory".into());
    }
    let name = name.as_bytes();
    if name == OPAQUE {
        return Ok(Some(Action::Opaque(parent)));
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(None),
        Some(b"" | b"." | b"..") => Err("a whiteout must name a file".into()),
        Some(hidden) => Ok(Some(Action::Whiteout(path.sibling(hidden)))),
    }
}

/// File capabilities and `user.*` travel with an image; host policy labels do not; what overlayfs would obey is hostile.
pub fn decide_xattr(key: &[u8]) -> Result<XattrAction, String> {
    let shown = String::from_utf8_lossy(key);
    if key.starts_with(b"trusted.") || key.starts_with(b"user.overlay.") {
        return Err(format!("extended attribute {shown} is reserved for the host"));
    }
    let keep = key == b"security.capability" || key.starts_with(b"user.");
    if key.contains(&0) || key.len() > NAME_BYTES_MAX {
        return Err("an extended attribute has an impossible name".into());
    }
    Ok(if keep { XattrAction::Keep } else { XattrAction::Drop })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(kind: u8, path: &[u8], link: &[u8]) -> Member {
        Member { kind, path: path.to_vec(), link: link.to_vec(), ..Member::default() }
    }

    fn is_inside(path: &LayerPath) -> bool {
        path.parts().iter().all(|part| {
            let part = part.as_bytes();
            !part.is_empty() && part != b"." && part != b".." && !part.contains(&b'/') && !part.contains(&0)
        })
    }

    /// Bytes that often form the dangerous cases.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let pieces: [&[u8]; 9] = [b"/", b"..", b".", b"a", b".wh.", b".wh..wh..opq", b"\0", b"\xff", b"dev"];
        let piece = proptest::sample::select(pieces.to_vec());
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn every_path_let_through_stays_inside(path in hostile(), link in hostile(), kind in any::<u8>(), known in 0usize..9) {
            let kinds = [kind, b'0', b'1', b'2', b'3', b'4', b'5', b'6', b'S'];
            match decide(&member(kinds[known], &path, &link)) {
                Ok(Action::Hardlink(path, target)) => prop_assert!(is_inside(&path) && is_inside(&target)),
                Ok(Action::Symlink(path, target)) => prop_assert!(is_inside(&path) && !target.is_empty()),
                Ok(Action::Directory(path) | Action::Opaque(path)) => prop_assert!(is_inside(&path)),
                Ok(Action::File(path) | Action::Fifo(path) | Action::Whiteout(path)) => {
                    prop_assert!(is_inside(&path) && !path.parts().is_empty());
                }
                Ok(Action::Skip) => {}
                Err(why) => prop_assert!(!why.is_empty()),
            }
        }

        #[test]
        fn a_parsed_path_parses_to_itself(raw in hostile()) {
            if let Ok(path) = LayerPath::parse(&raw) {
                let again = LayerPath::parse(path.to_path().as_os_str().as_bytes());
                prop_assert_eq!(again, Ok(path));
            }
        }

        #[test]
        fn nothing_the_host_would_obey_is_kept(key in "(trusted|user|security|system)\\.[a-z.]{0,20}") {
            let reserved = key.starts_with("trusted.") || key.starts_with("user.overlay.");
            prop_assert_eq!(decide_xattr(key.as_bytes()).is_err(), reserved);
        }
    }
}
