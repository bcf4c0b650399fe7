//! What a command's log is made of. Kept are frames: which stream, how long, the bytes. Clients see each frame as three
//! prefix bytes and the bytes. Frames are cut at line ends and never inside a character, so that a client that takes every
//! message on its own still understands it; and because the length is kept, a command that prints prefix bytes itself cannot
//! move its output to the other stream. Knows no files.

/// Prefixes as the published clients look for them.
const OUT_PREFIX: [u8; 3] = [1; 3];
const ERR_PREFIX: [u8; 3] = [2; 3];
/// Stream and length.
const HEAD_BYTES: usize = 5;
pub const PAYLOAD_BYTES_MAX: usize = 16 << 10;
/// The longest frame.
pub const FRAME_BYTES_MAX: usize = HEAD_BYTES + PAYLOAD_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

impl Stream {
    fn tag(self) -> u8 {
        match self {
            Self::Out => 1,
            Self::Err => 2,
        }
    }

    fn prefix(self) -> [u8; 3] {
        match self {
            Self::Out => OUT_PREFIX,
            Self::Err => ERR_PREFIX,
        }
    }
}

/// What of the frames is wanted, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Both streams, each frame with its prefix.
    Prefixed,
    /// Both streams as they came, without prefixes.
    Stripped,
    Only(Stream),
}

/// Cuts one stream into frames, however its bytes arrive. An unfinished line is held until the rest comes or somebody
/// [flushes](Cutter::flush).
pub struct Cutter {
    stream: Stream,
    /// Shorter than a payload may be.
    held: Vec<u8>,
    in_line: bool,
}

impl Cutter {
    pub fn new(stream: Stream) -> Self {
        Self { stream, held: Vec::new(), in_line: false }
    }

    /// Appends the frames of these bytes to `frames`.
    pub fn push(&mut self, bytes: &[u8], frames: &mut Vec<u8>) {
        let joined;
        let mut bytes = bytes;
        if !self.held.is_empty() {
            let mut both = std::mem::take(&mut self.held);
            both.extend_from_slice(bytes);
            joined = both;
            bytes = &joined;
        }
        while !bytes.is_empty() {
            let line = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
            let unfinished = line == bytes.len() && bytes[line - 1] != b'\n';
            if unfinished && line < PAYLOAD_BYTES_MAX {
                self.held.extend_from_slice(bytes);
                return;
            }
            let mut take = line.min(PAYLOAD_BYTES_MAX);
            if take < line || unfinished {
                take -= cut_character(&bytes[..take]);
            }
            let (payload, rest) = bytes.split_at(take);
            self.write(payload, frames);
            bytes = rest;
        }
    }

    /// Whether [`Self::flush`] would do something.
    pub fn is_holding(&self) -> bool {
        self.held.len() > cut_character(&self.held)
    }

    /// Lets go of an unfinished line, but for a character whose rest has not come yet.
    pub fn flush(&mut self, frames: &mut Vec<u8>) {
        let rest = self.held.split_off(self.held.len() - cut_character(&self.held));
        let held = std::mem::replace(&mut self.held, rest);
        self.write(&held, frames);
    }

    /// The stream has ended: what was held back goes out, and a last line without an end gets one.
    pub fn finish(&mut self, frames: &mut Vec<u8>) {
        let mut rest = std::mem::take(&mut self.held);
        if self.in_line || !rest.is_empty() {
            rest.push(b'\n');
        }
        self.write(&rest, frames);
    }

    fn write(&mut self, payload: &[u8], frames: &mut Vec<u8>) {
        if let Some(last) = payload.last() {
            self.in_line = *last != b'\n';
            write(self.stream, payload, frames);
        }
    }
}

/// How many bytes at the end begin a character without ending it.
fn cut_character(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let length = match bytes[bytes.len() - back] {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if length > back { back } else { 0 };
    }
    0
}

/// One frame; longer text becomes several.
pub fn write(stream: Stream, payload: &[u8], frames: &mut Vec<u8>) {
    for piece in payload.chunks(PAYLOAD_BYTES_MAX) {
        frames.push(stream.tag());
        frames.extend_from_slice(&(piece.len() as u32).to_le_bytes());
        frames.extend_from_slice(piece);
    }
}

/// The first frame and how many bytes it takes; `None` while it is not whole.
pub fn first(bytes: &[u8]) -> Option<(Stream, &[u8], usize)> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let payload = rest.get(..length)?;
    let stream = if head[0] == Stream::Err.tag() { Stream::Err } else { Stream::Out };
    Some((stream, payload, HEAD_BYTES + length))
}

/// Renders the whole frames at the beginning of `bytes` until `out` holds `enough`; answers how many bytes they took.
pub fn render(bytes: &[u8], view: View, enough: usize, out: &mut Vec<u8>) -> usize {
    let mut at = 0;
    while out.len() < enough
        && let Some((stream, payload, taken)) = first(&bytes[at..])
    {
        at += taken;
        match view {
            View::Only(wanted) if wanted != stream => continue,
            View::Prefixed => out.extend_from_slice(&stream.prefix()),
            View::Stripped | View::Only(_) => {}
        }
        out.extend_from_slice(payload);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The published grammar: a payload runs to the next prefix, what comes before the first is dropped.
    fn demux(raw: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut err, mut now, mut at) = (Vec::new(), Vec::new(), None, 0);
        while at < raw.len() {
            if raw[at..].starts_with(&OUT_PREFIX) || raw[at..].starts_with(&ERR_PREFIX) {
                now = Some(if raw[at] == 1 { Stream::Out } else { Stream::Err });
                at += 3;
                continue;
            }
            match now {
                Some(Stream::Out) => out.push(raw[at]),
                Some(Stream::Err) => err.push(raw[at]),
                None => {}
            }
            at += 1;
        }
        (out, err)
    }

    fn chunks() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
        let bytes = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            "[aä€😀\n]{0,20}".prop_map(String::into_bytes),
            (0usize..40_000).prop_map(|n| vec![b'x'; n]),
        ];
        proptest::collection::vec((any::<bool>(), bytes), 0..12)
    }

    /// Every third piece is flushed.
    fn cut(chunks: &[(bool, Vec<u8>)]) -> (Vec<u8>, [Vec<u8>; 2]) {
        let mut cutters = [Cutter::new(Stream::Out), Cutter::new(Stream::Err)];
        let (mut frames, mut plain) = (Vec::new(), [Vec::new(), Vec::new()]);
        for (n, (err, bytes)) in chunks.iter().enumerate() {
            cutters[usize::from(*err)].push(bytes, &mut frames);
            if n % 3 == 0 && cutters[usize::from(*err)].is_holding() {
                cutters[usize::from(*err)].flush(&mut frames);
            }
            plain[usize::from(*err)].extend_from_slice(bytes);
        }
        for (cutter, plain) in cutters.iter_mut().zip(&mut plain) {
            cutter.finish(&mut frames);
            if plain.last().is_some_and(|b| *b != b'\n') {
                plain.push(b'\n');
            }
        }
        (frames, plain)
    }

    fn rendered(frames: &[u8], view: View) -> Vec<u8> {
        let mut out = Vec::new();
        assert_eq!(render(frames, view, usize::MAX, &mut out), frames.len());
        out
    }

    proptest! {
        #[test]
        fn streams_survive_any_bytes_in_any_pieces(chunks in chunks()) {
            let (frames, [out, err]) = cut(&chunks);
            prop_assert_eq!(&rendered(&frames, View::Only(Stream::Out)), &out);
            prop_assert_eq!(&rendered(&frames, View::Only(Stream::Err)), &err);
            prop_assert_eq!(rendered(&frames, View::Stripped).len(), out.len() + err.len());
        }

        #[test]
        fn clients_understand_every_message_alone(chunks in chunks(), enough in 1usize..50_000) {
            let harmless: Vec<_> = chunks.into_iter()
                .map(|(err, mut bytes)| { bytes.retain(|b| *b > 2); (err, bytes) }).collect();
            let (frames, [out, err]) = cut(&harmless);
            let (mut all_out, mut all_err, mut at) = (Vec::new(), Vec::new(), 0);
            while at < frames.len() {
                let mut message = Vec::new();
                at += render(&frames[at..], View::Prefixed, enough, &mut message);
                prop_assert!(message.len() < enough + PAYLOAD_BYTES_MAX + 3);
                let (o, e) = demux(&message);
                all_out.extend(o);
                all_err.extend(e);
            }
            prop_assert_eq!((all_out, all_err), (out, err));
        }

        #[test]
        fn text_is_never_cut_inside_a_character(text in "[aä€😀\n]{0,60}", size in 1usize..7) {
            let chunks: Vec<_> = text.as_bytes().chunks(size).map(|c| (false, c.to_vec())).collect();
            let (frames, _) = cut(&chunks);
            let mut rest = &frames[..];
            while let Some((_, payload, taken)) = first(rest) {
                prop_assert!(std::str::from_utf8(payload).is_ok());
                prop_assert!(memchr::memchr(b'\n', payload).is_none_or(|at| at + 1 == payload.len()));
                rest = &rest[taken..];
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn without_flushing_every_line_is_one_frame(lines in proptest::collection::vec("[aä€]{0,30}", 1..9), size in 1usize..9) {
            let text = lines.join("\n") + "\n";
            let (mut cutter, mut frames) = (Cutter::new(Stream::Err), Vec::new());
            text.as_bytes().chunks(size).for_each(|c| cutter.push(c, &mut frames));
            let expected: String = lines.iter().map(|l| format!("\u{2}\u{2}\u{2}{l}\n")).collect();
            prop_assert_eq!(rendered(&frames, View::Prefixed), expected.into_bytes());
        }

        #[test]
        fn nothing_breaks_the_reader(bytes: Vec<u8>, enough in 0usize..100) {
            let mut out = Vec::new();
            prop_assert!(render(&bytes, View::Prefixed, enough, &mut out) <= bytes.len());
        }
    }
}
