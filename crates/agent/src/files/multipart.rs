//! `multipart/form-data` as a stream of events. Knows no files and no network: bytes are pushed in, events come out, and
//! what it holds is bounded by one pushed piece plus one header block.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use std::fmt;

/// Longest boundary RFC 2046 allows.
const BOUNDARY_BYTES_MAX: usize = 70;

/// Bounds on what is held back for parsing.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All headers of one part.
    pub header_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_bytes_max: 64 << 10 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A part begins. `name` is empty when the part has none.
    Part { name: String },
    /// Bytes of the current part, never empty.
    Data(Bytes),
    /// The current part is complete.
    PartEnd,
    /// The closing boundary; what follows is ignored.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    HeadersTooLong,
    Boundary,
    Truncated,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeadersTooLong => "the headers of a part are too long",
            Self::Boundary => "malformed boundary line",
            Self::Truncated => "unexpected end of the multipart body",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    AfterBoundary,
    Headers,
    Body,
    Done,
}

const HEADERS_END: &[u8] = b"\r\n\r\n";

pub struct Parser {
    /// CR LF `--` boundary.
    delimiter: memmem::Finder<'static>,
    held: BytesMut,
    state: State,
    limits: Limits,
}

/// The boundary of a `multipart/form-data` content type.
pub fn boundary_of(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters.as_bytes(), "boundary")?;
    let boundary = String::from_utf8(boundary).ok()?;
    let legal = !boundary.is_empty() && boundary.len() <= BOUNDARY_BYTES_MAX && !boundary.contains(['\r', '\n']);
    legal.then_some(boundary)
}

impl Parser {
    pub fn new(boundary: &str, limits: Limits) -> Self {
        let delimiter = memmem::Finder::new(&format!("\r\n--{boundary}")).into_owned();
        // The first boundary has no line break before it; with this one it looks like all others.
        Self { delimiter, held: BytesMut::from(&b"\r\n"[..]), state: State::Preamble, limits }
    }

    pub fn push(&mut self, piece: &[u8]) {
        if self.state != State::Done {
            self.held.extend_from_slice(piece);
        }
    }

    /// To be called when no more bytes come.
    pub fn finish(&self) -> Result<(), Malformed> {
        if self.state == State::Done { Ok(()) } else { Err(Malformed::Truncated) }
    }

    /// The next event, or `None` when more bytes are needed.
    pub fn next_event(&mut self) -> Result<Option<Event>, Malformed> {
        loop {
            let before = self.state;
            let event = match self.state {
                State::Preamble => {
                    self.skip_preamble();
                    None
                }
                State::AfterBoundary => self.after_boundary()?,
                State::Headers => self.headers()?,
                State::Body => self.body(),
                State::Done => None,
            };
            if event.is_some() || self.state == before {
                return Ok(event);
            }
        }
    }

    fn skip_preamble(&mut self) {
        match self.delimiter.find(&self.held) {
            Some(at) => {
                let _ = self.held.split_to(at + self.delimiter.needle().len());
                self.state = State::AfterBoundary;
            }
            None => {
                let keep = self.held.len().min(self.delimiter.needle().len() - 1);
                let _ = self.held.split_to(self.held.len() - keep);
            }
        }
    }

    fn after_boundary(&mut self) -> Result<Option<Event>, Malformed> {
        if self.held.starts_with(b"--") {
            self.state = State::Done;
            self.held.clear();
            return Ok(Some(Event::End));
        }
        let padding = self.held.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        match &self.held[padding..] {
            _ if padding > self.limits.header_bytes_max => Err(Malformed::HeadersTooLong),
            [b'\r', b'\n', ..] => {
                // The line break stays: a part without headers then begins with an empty line like any other.
                let _ = self.held.split_to(padding);
                self.state = State::Headers;
                Ok(None)
            }
            [] | [b'\r'] => Ok(None),
            [b'-'] if padding == 0 => Ok(None),
            _ => Err(Malformed::Boundary),
        }
    }

    fn headers(&mut self) -> Result<Option<Event>, Malformed> {
        let found = memmem::find(&self.held, HEADERS_END);
        // What has come of an end that is still cut off does not count.
        let length = found.unwrap_or((self.held.len() + 1).saturating_sub(HEADERS_END.len()));
        if length > self.limits.header_bytes_max {
            return Err(Malformed::HeadersTooLong);
        }
        let Some(at) = found else { return Ok(None) };
        let block = self.held.split_to(at + HEADERS_END.len());
        self.state = State::Body;
        Ok(Some(Event::Part { name: part_name(&block) }))
    }

    fn body(&mut self) -> Option<Event> {
        if let Some(at) = self.delimiter.find(&self.held) {
            if at > 0 {
                return Some(Event::Data(self.held.split_to(at).freeze()));
            }
            let _ = self.held.split_to(self.delimiter.needle().len());
            self.state = State::AfterBoundary;
            return Some(Event::PartEnd);
        }
        // Only a tail that may be the beginning of a delimiter has to wait.
        let window = self.held.len().saturating_sub(self.delimiter.needle().len() - 1);
        let safe = memchr::memchr_iter(b'\r', &self.held[window..])
            .map(|at| window + at)
            .find(|&at| self.delimiter.needle().starts_with(&self.held[at..]))
            .unwrap_or(self.held.len());
        (safe > 0).then(|| Event::Data(self.held.split_to(safe).freeze()))
    }
}

fn part_name(block: &[u8]) -> String {
    block
        .split(|b| *b == b'\n')
        .find_map(|line| {
            let colon = line.iter().position(|b| *b == b':')?;
            let (name, value) = line.split_at(colon);
            let is_it = name.trim_ascii().eq_ignore_ascii_case(b"content-disposition");
            let value = value[1..].trim_ascii();
            let semicolon = value.iter().position(|b| *b == b';')?;
            is_it.then(|| parameter(&value[semicolon + 1..], "name")).flatten()
        })
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// The value of a `; name=value` or `; name="value"` parameter.
fn parameter(mut text: &[u8], wanted: &str) -> Option<Vec<u8>> {
    loop {
        text = text.trim_ascii_start();
        while let [b';' | b' ' | b'\t', rest @ ..] = text {
            text = rest;
        }
        let equals = text.iter().position(|b| *b == b'=')?;
        let name = text[..equals].trim_ascii();
        let (value, rest) = parameter_value(text[equals + 1..].trim_ascii_start());
        if name.eq_ignore_ascii_case(wanted.as_bytes()) {
            return Some(value);
        }
        text = rest;
    }
}

fn parameter_value(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let [b'"', quoted @ ..] = text else {
        let end = text.iter().position(|b| *b == b';').unwrap_or(text.len());
        return (text[..end].trim_ascii().to_vec(), &text[end..]);
    };
    let mut value = Vec::new();
    let mut at = 0;
    while let Some(&b) = quoted.get(at) {
        match (b, quoted.get(at + 1)) {
            (b'"', _) => return (value, &quoted[at + 1..]),
            (b'\\', Some(&escaped @ (b'"' | b'\\'))) => {
                value.push(escaped);
                at += 2;
            }
            _ => {
                value.push(b);
                at += 1;
            }
        }
    }
    (value, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(body: &[u8], boundary: &str, cut: usize) -> Result<Vec<(String, Vec<u8>)>, Malformed> {
        let mut parser = Parser::new(boundary, Limits::default());
        let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
        for piece in body.chunks(cut) {
            parser.push(piece);
            while let Some(event) = parser.next_event()? {
                match event {
                    Event::Part { name } => parts.push((name, Vec::new())),
                    Event::Data(data) => parts.last_mut().unwrap().1.extend_from_slice(&data),
                    Event::PartEnd | Event::End => {}
                }
            }
        }
        parser.finish().map(|()| parts)
    }

    fn write(parts: &[(String, Vec<u8>)], boundary: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, data) in parts {
            let name = name.replace('\\', "\\\\").replace('"', "\\\"");
            let head =
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"x\"\r\n\r\n");
            out.extend(head.into_bytes());
            out.extend_from_slice(data);
            out.extend_from_slice(b"\r\n");
        }
        out.extend(format!("--{boundary}--\r\n").into_bytes());
        out
    }

    #[test]
    fn nearly_a_boundary_is_data() {
        let data = b"\r\n--bound\r\n--boundarx\r".to_vec();
        let body = write(&[("a".into(), data.clone())], "boundary");
        for cut in 1..40 {
            assert_eq!(parse(&body, "boundary", cut), Ok(vec![("a".into(), data.clone())]));
        }
    }

    #[test]
    fn preamble_missing_headers_and_padding() {
        let body = b"ignored\r\n--b  \r\n\r\nx\r\n--b\r\ncontent-disposition: form-data;NAME=y\r\n\r\n\r\n--b--";
        for cut in 1..20 {
            assert_eq!(parse(body, "b", cut), Ok(vec![(String::new(), b"x".to_vec()), ("y".into(), vec![])]));
        }
        assert_eq!(parse(b"--b\r\n\r\nx", "b", 3), Err(Malformed::Truncated));
        assert_eq!(parse(b"--bx\r\n\r\nx", "b", 3), Err(Malformed::Boundary));
    }

    #[test]
    fn the_length_of_headers_is_judged_the_same_however_they_are_cut() {
        let limit = Limits::default().header_bytes_max;
        for (extra, fits) in [(0, true), (1, false)] {
            let headers = format!("\r\nx: {}", "a".repeat(limit - 5 + extra));
            let body = format!("--b{headers}\r\n\r\ndata\r\n--b--");
            for cut in (1..9).chain([limit, limit + 3, limit + 5, limit + 7, body.len()]) {
                let parsed = parse(body.as_bytes(), "b", cut);
                assert_eq!(parsed.is_ok(), fits, "{extra} too long, in pieces of {cut}: {parsed:?}");
            }
        }
    }

    #[test]
    fn boundaries() {
        assert_eq!(boundary_of("multipart/form-data; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(boundary_of("Multipart/Form-Data; charset=x; Boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(boundary_of("multipart/mixed; boundary=abc"), None);
        assert_eq!(boundary_of("multipart/form-data"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            parts in proptest::collection::vec(("[^\r\n\0]{0,12}", proptest::collection::vec(any::<u8>(), 0..200)), 0..4),
            cut in 1usize..64,
        ) {
            let boundary = "a1b2c3d4e5f6";
            let body = write(&parts, boundary);
            prop_assert_eq!(parse(&body, boundary, cut).unwrap(), parts);
        }

        #[test]
        fn any_bytes_in_any_pieces_give_the_same(
            body in proptest::collection::vec(proptest::sample::select(b"\r\n-bx: ;=\"".to_vec()), 0..120),
            cut in 1usize..16,
        ) {
            prop_assert_eq!(parse(&body, "b", cut), parse(&body, "b", body.len().max(1)));
        }
    }
}
