//! The frames in which language servers speak: headers, an empty line, as many bytes as `Content-Length` says. The other
//! side is any program of the image, so every length is checked and nothing is allocated on its word.

use std::fmt;

/// All headers of one message.
pub const HEADER_BYTES_MAX: usize = 4 << 10;
/// One message. The largest honest ones are completion lists with thousands of items.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Memory kept between messages.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// What is not this protocol. There is no way to find the next message after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A line that is no `Name: value`.
    Line(String),
    HeadersTooLong,
    /// Missing, not a number, or given twice differently.
    Length(String),
    TooLarge(u64),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "it printed {line:?} where a message should begin"),
            Self::HeadersTooLong => write!(f, "it sent headers of more than {HEADER_BYTES_MAX} bytes"),
            Self::Length(what) => write!(f, "it sent a message with {what}"),
            Self::TooLarge(bytes) => {
                write!(f, "it announced a message of {bytes} bytes; at most {MESSAGE_BYTES_MAX} are taken")
            }
        }
    }
}

/// Collects pieces and gives whole messages.
#[derive(Default)]
pub struct Parser {
    bytes: Vec<u8>,
    /// Of the message whose headers have been read.
    length: Option<usize>,
}

impl Parser {
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// The next whole message, `None` when more bytes are needed.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        if self.length.is_none() {
            let Some((headers, rest)) = self.headers()? else { return Ok(None) };
            self.length = Some(length_of(&self.bytes[..headers])?);
            self.bytes.drain(..rest);
        }
        let Some(length) = self.length.filter(|length| self.bytes.len() >= *length) else { return Ok(None) };
        self.length = None;
        let rest = self.bytes.split_off(length);
        let message = std::mem::replace(&mut self.bytes, rest);
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes.shrink_to_fit();
        }
        Ok(Some(message))
    }

    /// Where the headers end and where the body begins, once all of them are here.
    fn headers(&self) -> Result<Option<(usize, usize)>, Malformed> {
        let seen = &self.bytes[..self.bytes.len().min(HEADER_BYTES_MAX)];
        match memchr::memmem::find(seen, b"\r\n\r\n") {
            Some(at) => Ok(Some((at, at + 4))),
            None if self.bytes.len() >= HEADER_BYTES_MAX => Err(Malformed::HeadersTooLong),
            None => {
                // Said at once: a program that prints something else would otherwise be waited for.
                match memchr::memchr(b'\n', seen) {
                    Some(end) => header_of(&seen[..end]).map(|_| None),
                    None => Ok(None),
                }
            }
        }
    }
}

fn header_of(line: &[u8]) -> Result<(String, String), Malformed> {
    let text = String::from_utf8_lossy(line);
    let shown: String = text.trim_end().chars().take(100).collect();
    let (name, value) = text.split_once(':').ok_or(Malformed::Line(shown))?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

fn length_of(headers: &[u8]) -> Result<usize, Malformed> {
    let mut length: Option<u64> = None;
    for line in headers.split(|b| *b == b'\n') {
        let (name, value) = header_of(line)?;
        if name != "content-length" {
            continue;
        }
        let digits = !value.is_empty() && value.len() <= 18 && value.bytes().all(|b| b.is_ascii_digit());
        let number: Option<u64> = if digits { value.parse().ok() } else { None };
        let shown: String = value.chars().take(40).collect();
        let number = number.ok_or_else(|| Malformed::Length(format!("the length {shown:?}")))?;
        if length.is_some_and(|other| other != number) {
            return Err(Malformed::Length("two different lengths".to_owned()));
        }
        length = Some(number);
    }
    let length = length.ok_or_else(|| Malformed::Length("no length".to_owned()))?;
    usize::try_from(length).ok().filter(|l| *l <= MESSAGE_BYTES_MAX).ok_or(Malformed::TooLarge(length))
}

/// A message as it goes out.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut out = format!("Content-Length: {}\r\n\r\n", message.len()).into_bytes();
    out.extend_from_slice(message);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut parser = Parser::default();
        let mut messages = Vec::new();
        for piece in pieces {
            parser.push(piece);
            while let Some(message) = parser.next_message()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    proptest! {
        #[test]
        fn frames_read_back_however_they_are_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..6), cut in 1usize..40
        ) {
            let wire: Vec<u8> = messages.iter().flat_map(|m| frame(m)).collect();
            let pieces: Vec<&[u8]> = wire.chunks(cut).collect();
            prop_assert_eq!(all(&pieces), Ok(messages));
        }

        #[test]
        fn nothing_breaks_it(bytes: Vec<u8>, cut in 1usize..9) {
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            let (whole, cut) = (all(&[&bytes]), all(&pieces));
            prop_assert_eq!(whole.is_ok(), cut.is_ok());
            if whole.is_ok() {
                prop_assert_eq!(whole, cut);
            }
        }

        #[test]
        fn headers_of_any_kind(lines in proptest::collection::vec("(Content-Length|Content-Type|x)?:? ?[0-9a-z]{0,20}\r\n", 0..5)) {
            let text = lines.concat() + "\r\nbody";
            let _ = all(&[text.as_bytes()]);
        }
    }

    #[test]
    fn lies_are_found() {
        let error = |text: &str| all(&[text.as_bytes()]).unwrap_err();
        assert_eq!(
            error("Traceback (most recent call last)\n"),
            Malformed::Line("Traceback (most recent call last)".into())
        );
        assert_eq!(error("Content-Length: 99999999999\r\n\r\n"), Malformed::TooLarge(99_999_999_999));
        assert_eq!(error(&"A: b\r\n".repeat(1000)), Malformed::HeadersTooLong);
        assert_eq!(error(&"x".repeat(5000)), Malformed::HeadersTooLong);
        for length in ["-1", "+1", "1e3", "", "0x10", "18446744073709551616", "1 2"] {
            assert!(matches!(error(&format!("Content-Length: {length}\r\n\r\n")), Malformed::Length(_)), "{length}");
        }
        assert!(matches!(error("A: b\r\n\r\n"), Malformed::Length(_)));
        assert!(matches!(error("Content-Length: 1\r\nContent-Length: 2\r\n\r\nx"), Malformed::Length(_)));
        assert_eq!(all(&[b"content-length: 2\r\nX: y\r\n\r\n{}"]), Ok(vec![b"{}".to_vec()]));
    }

    #[test]
    fn a_large_message_is_not_kept() {
        let mut parser = Parser::default();
        parser.push(&frame(&vec![b'x'; 1 << 20]));
        assert_eq!(parser.next_message().unwrap().map(|m| m.len()), Some(1 << 20));
        assert!(parser.bytes.capacity() <= KEPT_BYTES_MAX);
    }
}
