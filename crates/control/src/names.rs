//! Which names people may give, and the host name made from one.

use crate::error::{ApiError, ApiResult};

/// Longest display name.
const NAME_CHARS_MAX: usize = 255;
/// Longest host name the kernel takes, with room to spare.
const HOSTNAME_BYTES_MAX: usize = 63;
/// Names that would turn into links or markup where they are shown.
const UNSAFE_PARTS: [&str; 12] =
    ["http:", "https:", "ftp:", "ssh:", "ws:", "wss:", "file:", "ldap:", "javascript:", "data:", "mailto:", "tel:"];

/// Refuses markup, link-like text and control characters; `field` names the culprit.
pub fn check_safe(field: &str, text: &str) -> ApiResult<()> {
    let lower = text.to_lowercase();
    let markup = lower.find('<').is_some_and(|at| lower[at..].contains('>'));
    let link = UNSAFE_PARTS.iter().any(|part| lower.contains(part)) || lower.contains("www.");
    if markup || link || text.chars().any(char::is_control) {
        return Err(ApiError::bad_request(format!("{field} must not contain markup, links or control characters")));
    }
    if text.chars().count() > NAME_CHARS_MAX {
        return Err(ApiError::bad_request(format!("{field} must be at most {NAME_CHARS_MAX} characters long")));
    }
    Ok(())
}

/// Names of snapshots are path-like: letters, digits and `_ . - : /`, perhaps ending in a digest.
pub fn check_snapshot_name(name: &str) -> ApiResult<()> {
    check_safe("name", name)?;
    let plain = name.split_once("@sha256:").map_or(name, |(plain, _)| plain);
    let fine = !plain.is_empty() && plain.chars().all(|c| c.is_ascii_alphanumeric() || "_.-:/".contains(c));
    if fine && name.split_once("@sha256:").is_none_or(|(_, digest)| is_digest(digest)) {
        return Ok(());
    }
    Err(ApiError::bad_request("name may hold letters, digits and _ . - : / (and end in @sha256:<64 hex digits>)"))
}

/// An image needs a tag other than `latest`, or a digest: what a name means must not change under a snapshot.
pub fn check_image_name(image: &str) -> ApiResult<()> {
    if let Some((_, digest)) = image.split_once("@sha256:") {
        return if is_digest(digest) { Ok(()) } else { Err(ApiError::bad_request("imageName has a malformed digest")) };
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((name, "latest")) if !name.is_empty() => {
            Err(ApiError::bad_request("imageName must not use the tag `latest`; name a version"))
        }
        Some((name, tag)) if !name.is_empty() && !tag.is_empty() => Ok(()),
        _ => Err(ApiError::bad_request("imageName needs a tag (image:1.2) or a digest (image@sha256:…)")),
    }
}

fn is_digest(digest: &str) -> bool {
    digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The nearest legal host name.
pub fn hostname(name: &str) -> String {
    let dashed: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let trimmed = dashed.trim_matches('-');
    let cut = &trimmed[..trimmed.len().min(HOSTNAME_BYTES_MAX)];
    let cut = cut.trim_end_matches('-');
    if cut.is_empty() { "sandbox".to_owned() } else { cut.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe() {
        for fine in ["a", "my box", "é", "a<b", "6b1f2c1e-7d6a-4c8e-9c7b-2f5a1a0d3e44"] {
            assert!(check_safe("name", fine).is_ok(), "{fine}");
        }
        for bad in ["<b>x</b>", "https://x", "see www.x.org", "a\u{0}b", "javascript:x", &"x".repeat(256)] {
            assert!(check_safe("name", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn images_are_pinned() {
        let digest = "a".repeat(64);
        for fine in ["debian:12", "host:5000/x/y:1", &format!("x@sha256:{digest}")] {
            assert!(check_image_name(fine).is_ok(), "{fine}");
        }
        for bad in ["debian", "debian:latest", "host:5000/x", "x@sha256:12", ":1", "", "x:"] {
            assert!(check_image_name(bad).is_err(), "{bad}");
        }
        assert!(check_snapshot_name("infield/base:1").is_ok());
        assert!(check_snapshot_name("a b").is_err());
    }

    #[test]
    fn any_name_has_a_host_name() {
        assert_eq!(hostname("my box"), "my-box");
        assert_eq!(hostname("--é--"), "sandbox");
        assert_eq!(hostname(&"x".repeat(100)).len(), 63);
    }
}
