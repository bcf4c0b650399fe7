//! What is asked for and not there: an operation of the published contract is named in a 501, anything else is 404.

use crate::error::ApiError;
use axum::{extract::Request, http::Method};
use std::{collections::HashMap, sync::LazyLock};

/// `METHOD /path operationId` per line; made from the published specification by `scripts/operations.py`.
const OPERATIONS: &str = include_str!("../operations.txt");

static BY_METHOD: LazyLock<HashMap<&'static str, matchit::Router<&'static str>>> = LazyLock::new(|| {
    let mut routers: HashMap<&str, matchit::Router<&str>> = HashMap::new();
    for line in OPERATIONS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (Some(method), Some(path), Some(operation)) = (words.next(), words.next(), words.next()) else { continue };
        // A duplicate under other parameter names is the same operation to a caller.
        let _ = routers.entry(method).or_default().insert(numbered(path), operation);
    }
    routers
});

/// Parameters named by position: the specification calls one place `{sandboxId}` and `{sandboxIdOrName}`.
fn numbered(path: &str) -> String {
    let segments = path.split('/').enumerate();
    let named = segments.map(|(at, s)| if s.starts_with('{') { format!("{{p{at}}}") } else { s.to_owned() });
    named.collect::<Vec<String>>().join("/")
}

/// The operation a request means, if the contract knows it.
pub fn find(method: &Method, path: &str) -> Option<&'static str> {
    BY_METHOD.get(method.as_str())?.at(path).ok().map(|found| *found.value)
}

/// Fallback for routes and methods that are not there.
pub async fn unknown(request: Request) -> ApiError {
    let path = request.uri().path();
    match find(request.method(), path) {
        Some(operation) => ApiError::not_built(&format!("The operation {operation}")),
        None => ApiError::not_found(format!("Cannot {} /api{path}", request.method())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_of_the_contract_is_found() {
        let mut count = 0;
        for line in OPERATIONS.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let method: Method = words[0].parse().unwrap();
            let path = words[1].replace(['{', '}'], "");
            assert_eq!(find(&method, &path), Some(words[2]), "{line}");
            count += 1;
        }
        assert!(count >= 196, "{count}");
        assert_eq!(find(&Method::GET, "/nothing"), None);
    }
}
