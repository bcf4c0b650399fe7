//! Query parameters as bytes: a path may hold any byte but NUL, so nothing is taken to be UTF-8.

use crate::error::Failure;
use crate::query_pairs;
use axum::extract::FromRequestParts;
use http::request::Parts;
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Decoded `name=value` pairs in their order.
#[derive(Debug, Default)]
pub struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    pub fn parse(raw: &str) -> Self {
        Self(query_pairs::pairs(raw))
    }

    /// The first value of that name; an empty one counts as absent.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n == name.as_bytes()).map(|(_, v)| &v[..]).filter(|v| !v.is_empty())
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.bytes(name).map(|v| String::from_utf8_lossy(v).into_owned())
    }

    /// Only the literal `true` counts.
    pub fn is_true(&self, name: &str) -> bool {
        self.bytes(name) == Some(b"true")
    }

    pub fn required(&self, name: &str) -> Result<&[u8], Failure> {
        self.bytes(name).ok_or_else(|| Failure::bad_request(format!("{name} is required")))
    }

    /// A required path. Relative ones mean the working directory, which is this process's own.
    pub fn path(&self, name: &str) -> Result<PathBuf, Failure> {
        path_of(self.required(name)?.to_vec(), name)
    }
}

/// Refuses the one byte that no path has.
pub fn path_of(bytes: Vec<u8>, what: &str) -> Result<PathBuf, Failure> {
    if bytes.contains(&0) {
        return Err(Failure::bad_request(format!("{what} contains a NUL byte")));
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or("")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStrExt;

    proptest! {
        #[test]
        fn any_file_name_survives(name in proptest::collection::vec(1u8..=255, 1..40)) {
            let encoded = percent_encoding::percent_encode(&name, percent_encoding::NON_ALPHANUMERIC).to_string();
            let query = Query::parse(&format!("a=b&path={encoded}"));
            let path = query.path("path").unwrap();
            prop_assert_eq!(path.as_os_str().as_bytes(), &name[..]);
        }

        #[test]
        fn no_query_breaks_it(raw in "\\PC*") {
            let _ = Query::parse(&raw).path("path");
        }
    }

    #[test]
    fn forms() {
        let query = Query::parse("path=a+b%2Bc&empty=&recursive=True&x");
        assert_eq!(query.text("path").as_deref(), Some("a b+c"));
        assert!(query.bytes("empty").is_none() && !query.is_true("recursive") && query.bytes("x").is_none());
        assert!(Query::parse("path=%00").path("path").is_err());
    }
}
