//! Which shape of answer a client expects: the published clients changed their minds twice, and say which they are.

/// `X.Y.Z` and whether it is a release; a pre-release comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u64, u64, u64, bool);

/// What the client said about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Nameless { split: bool },
    Known(Version),
    Development,
    Unreadable,
}

/// How a client wants to see a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// JSON with `output` (prefixed), `stdout` and `stderr`.
    Apart,
    /// One text with prefixes.
    Prefixed,
    /// One text without.
    Stripped,
}

/// A client, by its headers or by the token of its WebSocket.
#[derive(Clone, Copy, Debug)]
pub struct Asker(Client);

impl Asker {
    /// `split` = it asks for prefixes; that counts only when it does not say its version.
    pub fn new(version: Option<&str>, split: bool) -> Self {
        Self(match version.map(str::trim) {
            None | Some("") => Client::Nameless { split },
            Some(text) if text.contains("dev") => Client::Development,
            Some(text) => parse(text).map_or(Client::Unreadable, Client::Known),
        })
    }

    pub fn shape(self) -> Shape {
        match self.0 {
            Client::Development => Shape::Apart,
            // Every 0.167.0 counts, its pre-releases too.
            Client::Known(v) if v >= Version(0, 167, 0, false) => Shape::Apart,
            Client::Known(v) if v < Version(0, 27, 0, true) => Shape::Stripped,
            Client::Known(_) | Client::Unreadable | Client::Nameless { split: true } => Shape::Prefixed,
            Client::Nameless { split: false } => Shape::Stripped,
        }
    }

    /// The same for a stream of bytes: clients that do not say who they are look for prefixes.
    pub fn streamed_shape(self) -> Shape {
        match self.0 {
            Client::Known(v) if v < Version(0, 27, 0, true) => Shape::Stripped,
            _ => Shape::Prefixed,
        }
    }

    /// Old clients expect their sessions to begin in the home directory.
    pub fn starts_at_home(self) -> bool {
        matches!(self.0, Client::Known(v) if v < Version(0, 103, 0, true))
    }
}

/// `1.2.3`, `v1.2.3`, `1.2.3-rc.4`, `1.2.3rc4`; build words after `+` mean nothing.
fn parse(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let text = text.split_once('+').map_or(text, |(t, _)| t);
    let core = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (core, rest) = text.split_at(core);
    let mut numbers = core.split('.');
    let mut number = || {
        let digits = numbers.next()?;
        let plain = !digits.is_empty() && digits.len() <= 9 && (digits == "0" || !digits.starts_with('0'));
        plain.then(|| digits.parse().ok()).flatten()
    };
    let (major, minor, patch) = (number()?, number()?, number()?);
    let word = rest.strip_prefix('-').unwrap_or(rest);
    let readable = word.split('.').all(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    (numbers.next().is_none() && (rest.is_empty() || readable)).then_some(Version(major, minor, patch, rest.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shapes() {
        let shape = |v: &str| Asker::new(Some(v), false).shape();
        for apart in ["0.167.0", "0.167.0-rc1", "0.167.0rc1", "0.226.1", "v1.0.0", "1.0.0+x", "0.1.0-dev", "0.0.0-dev"]
        {
            assert_eq!(shape(apart), Shape::Apart, "{apart}");
        }
        for prefixed in ["0.27.0", "0.166.9", "0.100.0rc4", "latest", "1.2", "1.2.3.4", "1.2.3-", "01.2.3"] {
            assert_eq!(shape(prefixed), Shape::Prefixed, "{prefixed}");
        }
        for stripped in ["0.26.9", "0.27.0-rc1", "0.27.0a1", ""] {
            assert_eq!(shape(stripped), Shape::Stripped, "{stripped}");
        }
        assert_eq!(Asker::new(None, true).shape(), Shape::Prefixed);
        assert_eq!(Asker::new(None, false).streamed_shape(), Shape::Prefixed);
        assert_eq!(Asker::new(Some("0.26.0"), false).streamed_shape(), Shape::Stripped);
        let home = |v: &str| Asker::new(Some(v), false).starts_at_home();
        assert!(home("0.102.9") && home("0.103.0rc1") && !home("0.103.0") && !home("nonsense") && !home(""));
    }

    proptest! {
        #[test]
        fn any_text_has_a_shape(text in "\\PC{0,40}") {
            let _ = Asker::new(Some(&text), false).shape();
        }

        #[test]
        fn numbers_order(a in 0u64..300, b in 0u64..300) {
            let version = |minor: u64| parse(&format!("0.{minor}.0")).unwrap();
            prop_assert_eq!(version(a) < version(b), a < b);
            let early = parse(&format!("0.{a}.0-rc.1")).unwrap();
            prop_assert!(early < version(a));
        }
    }
}
