//! Remote addresses: what kind they are, and how to show them without what is secret in them.

use super::failure::{GitFailure, Result};
use infield_api::toolbox::DaemonErrorCode as Code;
use std::path::Path;

/// Who does the transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Http,
    /// A directory of the sandbox.
    Local,
    /// `git://`.
    Git,
    /// Needs keys and a program of the image.
    Ssh,
}

/// The address with its scheme, and its kind. Without a scheme it is a path, an SSH address, or HTTPS.
pub fn classify(url: &str) -> Result<(String, Kind)> {
    if let Some((scheme, _)) = url.split_once("://") {
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => Kind::Http,
            "file" => Kind::Local,
            "git" => Kind::Git,
            "ssh" | "git+ssh" | "ssh+git" => Kind::Ssh,
            other => return Err(GitFailure::new(Code::BadRequest, format!("unsupported URL scheme {other}://"))),
        };
        return Ok((url.to_owned(), kind));
    }
    let is_path = url.starts_with(['/', '.']) || Path::new(url).is_dir();
    if is_path {
        return Ok((url.to_owned(), Kind::Local));
    }
    match url.split_once(':') {
        Some((host, path)) if host.contains('@') && !host.contains('/') && !path.starts_with("//") => {
            Ok((url.to_owned(), Kind::Ssh))
        }
        _ => Ok((format!("https://{url}"), Kind::Http)),
    }
}

/// `scheme://user:password@host/…` in parts: the URL without them, and both when both are there.
pub fn split_credentials(url: &str) -> (String, Option<(String, String)>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let host_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some(at) = rest[..host_end].rfind('@') else { return (url.to_owned(), None) };
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let given = rest[..at].split_once(':').map(|(user, password)| (decode(user), decode(password)));
    (format!("{scheme}://{}", &rest[at + 1..]), given)
}

/// The user that an address names without a password.
pub fn user_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let host_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let at = rest[..host_end].rfind('@')?;
    Some(&rest[..at]).filter(|user| !user.is_empty() && !user.contains(':'))
}

/// The user name stays, the password goes.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => {
            let user = rest[..at].split(':').next().unwrap_or("");
            format!("{scheme}://{user}{}", &rest[at..])
        }
        None => url.to_owned(),
    }
}

/// Any text with the user parts of the URLs in it taken out.
pub fn without_credentials(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/?#'\"".contains(c)).unwrap_or(after.len());
        let host = after[..end].rfind('@').map_or(0, |at| at + 1);
        out.push_str(&after[host..end]);
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds() {
        for (url, want, kind) in [
            ("https://h/x", "https://h/x", Kind::Http),
            ("github.com/a/b", "https://github.com/a/b", Kind::Http),
            ("/srv/x.git", "/srv/x.git", Kind::Local),
            ("file:///srv/x.git", "file:///srv/x.git", Kind::Local),
            ("git@github.com:a/b", "git@github.com:a/b", Kind::Ssh),
            ("ssh://h/x", "ssh://h/x", Kind::Ssh),
            ("git://h/x", "git://h/x", Kind::Git),
        ] {
            assert_eq!(classify(url).unwrap(), (want.to_owned(), kind));
        }
        assert!(classify("ext::sh -c x").is_ok_and(|(u, _)| u.starts_with("https://")));
        assert!(classify("ext://x").is_err());
    }

    #[test]
    fn credentials_come_off() {
        let (url, given) = split_credentials("https://u%40x:p%3Aw@host:1/a@b");
        assert_eq!((url.as_str(), given), ("https://host:1/a@b", Some(("u@x".into(), "p:w".into()))));
        assert_eq!(without_password("https://u:p@h/x"), "https://u@h/x");
        assert_eq!(
            (user_of("https://u@h/x"), user_of("https://u:p@h/x"), user_of("https://h/a@b")),
            (Some("u"), None, None)
        );
        assert_eq!(without_credentials("failed 'https://u:p@h/x' and http://k@l"), "failed 'https://h/x' and http://l");
    }

    proptest! {
        #[test]
        fn a_password_never_survives(user in "[a-z]{0,4}", password in "[a-zA-Z0-9:@]{1,8}SECRET", tail in "[a-z/@:]{0,8}") {
            let url = format!("https://{user}:{password}@host/{tail}");
            let text = without_credentials(&format!("cannot read {url}: no"));
            prop_assert!(!text.contains("SECRET"));
            prop_assert!(!without_password(&url).contains("SECRET"));
            prop_assert!(!split_credentials(&url).0.contains("SECRET"));
        }
    }
}
