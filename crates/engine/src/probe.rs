//! The engine's one question to an agent: `GET /version`. Everything that comes back is hostile input, so it is bounded.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A fresh agent has this long to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 16 << 10;
const VERSION_CHARS_MAX: usize = 64;
const REASON_CHARS_MAX: usize = 512;
/// The status of an agent that could not become the sandbox's user.
const REFUSED: &str = "503";
const REQUEST: &[u8] = b"GET /version HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n";

/// Why there is no version.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nothing, or nothing that makes sense.
    Silent(io::Error),
    /// The agent runs and says that the sandbox cannot: its files name no usable user, for instance.
    Refused(String),
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> Self {
        Self::Silent(error)
    }
}

/// A question that waits for its answer.
pub(crate) struct Question(UnixStream);

/// Connects and asks. The agent need not be running yet: the socket's queue holds the question.
pub(crate) fn ask(socket: &Path) -> io::Result<Question> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(REQUEST)?;
    Ok(Question(stream))
}

impl Question {
    /// The agent's version.
    pub(crate) fn answer(mut self) -> Result<String, NoAnswer> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut text = Vec::new();
        let mut part = [0; 4096];
        loop {
            if let Some(version) = parse(&text)? {
                return Ok(version);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || text.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no complete answer").into());
            }
            self.0.set_read_timeout(Some(left))?;
            match self.0.read(&mut part)? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended or hung up").into()),
                n => text.extend_from_slice(&part[..n]),
            }
        }
    }
}

/// The version out of an HTTP answer, `None` while it is incomplete.
fn parse(text: &[u8]) -> Result<Option<String>, NoAnswer> {
    let wrong = |why: &str| NoAnswer::Silent(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()));
    let Some(head_end) = text.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&text[..head_end]).map_err(|_| wrong("answer is not HTTP"))?;
    let body = &text[head_end + 4..];
    let status = head.split(' ').nth(1);
    if !matches!(status, Some("200" | REFUSED)) {
        return Err(wrong("answer is neither yes nor no"));
    }
    let length = head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.filter(|l| *l <= ANSWER_BYTES_MAX).ok_or_else(|| wrong("answer has no acceptable length"))?;
    if body.len() < length {
        return Ok(None);
    }
    let body: serde_json::Value = serde_json::from_slice(&body[..length]).map_err(|_| wrong("answer is not JSON"))?;
    let word = |name: &str, chars_max: usize| -> Option<String> {
        Some(body.get(name)?.as_str()?.chars().filter(|c| !c.is_control()).take(chars_max).collect())
    };
    match status {
        Some("200") => word("version", VERSION_CHARS_MAX).map(Some).ok_or_else(|| wrong("answer names no version")),
        _ => Err(word("message", REASON_CHARS_MAX).map_or_else(|| wrong("answer gives no reason"), NoAnswer::Refused)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_refusal_is_kept() {
        let body = r#"{"message":"this sandbox did not start:\n user a is not in /etc/passwd"}"#;
        let text = format!("HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert!(parse(&text.as_bytes()[..text.len() - 1]).unwrap().is_none());
        let Err(NoAnswer::Refused(why)) = parse(text.as_bytes()) else { panic!("a refusal is expected") };
        assert_eq!(why, "this sandbox did not start: user a is not in /etc/passwd");
    }

    #[test]
    fn answers_are_read_and_bounded() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"version\":\"1.2\"}";
        assert_eq!(parse(whole).unwrap().as_deref(), Some("1.2"));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]).unwrap(), None);
        }
        for bad in [
            "HTTP/1.1 500 no\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 503 no\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
