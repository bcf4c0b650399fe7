//! What a caller's SDK is, as far as answers depend on it. Only one kind matters: Go clients before 0.188.0 refuse answers
//! with fields that they do not know.

use http::HeaderMap;

const SOURCE: &str = "x-daytona-source";
const VERSION: &str = "x-daytona-sdk-version";
/// The first Go client that passes over unknown fields.
const TOLERANT_GO: (u64, u64, u64) = (0, 188, 0);

/// Whether fields that were added later must stay out of the answer.
pub fn is_strict_go(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    if text(SOURCE) != "sdk-go" {
        return false;
    }
    match parse(text(VERSION)) {
        // Builds from source call themselves 0.0.0-something.
        Some(((0, 0, 0), true)) | None => false,
        Some((version, preview)) => version < TOLERANT_GO || (version == TOLERANT_GO && preview),
    }
}

/// The three numbers, and whether something follows that makes it earlier than they say.
fn parse(text: &str) -> Option<((u64, u64, u64), bool)> {
    let text = text.strip_prefix('v').unwrap_or(text).split('+').next()?;
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let mut parts = numbers.split('.').map(|n| n.parse().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some((version, !rest.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_go_is_strict() {
        let strict = |source: &'static str, version: &'static str| {
            let pairs = [(SOURCE, source), (VERSION, version)];
            is_strict_go(&pairs.into_iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect())
        };
        assert!(strict("sdk-go", "0.187.9") && strict("sdk-go", "v0.100.0") && strict("sdk-go", "0.188.0rc1"));
        for newer in ["0.188.0", "0.226.1", "1.0.0", "0.0.0-dev", "", "x", "0.187", "0.1.2.3"] {
            assert!(!strict("sdk-go", newer), "{newer}");
        }
        assert!(!strict("sdk-python", "0.100.0"));
    }
}
