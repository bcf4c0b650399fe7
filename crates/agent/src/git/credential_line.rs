//! A line of the file of `git credential-store`. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What `git credential-store` leaves as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const HOST_ENCODED: &AsciiSet = &ENCODED.remove(b':').remove(b'[').remove(b']');

/// One line of the file: whose password it is, and the line.
#[derive(PartialEq, Eq)]
pub struct Entry {
    pub protocol: String,
    pub host: String,
    pub username: String,
    pub password: String,
}

impl Entry {
    pub fn parse(line: &str) -> Option<Self> {
        let (protocol, rest) = line.trim_end().split_once("://")?;
        let (user, host) = rest.rsplit_once('@')?;
        let (username, password) = user.split_once(':')?;
        let decode = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|t| t.into_owned());
        let host = decode(host.trim_end_matches('/'))?;
        Some(Self { protocol: protocol.to_owned(), host, username: decode(username)?, password: decode(password)? })
    }

    pub fn line(&self) -> String {
        let Self { protocol, host, username, password } = self;
        let encode = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
        let host = utf8_percent_encode(host, HOST_ENCODED);
        format!("{protocol}://{}:{}@{host}\n", encode(username), encode(password))
    }

    pub fn is_of(&self, protocol: &str, host: &str) -> bool {
        self.protocol.eq_ignore_ascii_case(protocol) && self.host.eq_ignore_ascii_case(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_reads_back(username in "[^\\n\\r\\x00]{1,12}", password in "[^\\n\\r\\x00]{1,12}", host in "[a-z0-9.:-]{1,12}") {
            let entry = Entry { protocol: "https".into(), host, username, password };
            let line = entry.line();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(Entry::parse(&line).is_some_and(|read| read == entry));
        }

        #[test]
        fn no_line_breaks_it(line in "\\PC{0,60}") {
            let _ = Entry::parse(&line);
        }
    }
}
