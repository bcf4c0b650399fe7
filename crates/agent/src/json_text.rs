//! Bytes of any kind as a JSON string: what is not UTF-8 becomes U+FFFD. Works piece by piece, so that a large output is
//! never held twice.

/// Writes one JSON string from pieces that may cut characters in two. The caller adds the quotes.
#[derive(Default)]
pub struct JsonText {
    /// The beginning of a character whose rest has not come yet.
    cut: Vec<u8>,
}

impl JsonText {
    pub fn push(&mut self, out: &mut Vec<u8>, piece: &[u8]) {
        if self.cut.is_empty() {
            self.escape(out, piece);
        } else {
            let mut joined = std::mem::take(&mut self.cut);
            joined.extend_from_slice(piece);
            self.escape(out, &joined);
        }
    }

    /// No more pieces: what is still cut stays cut.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        for _ in std::mem::take(&mut self.cut) {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>, mut bytes: &[u8]) {
        out.reserve(bytes.len() + bytes.len() / 16);
        loop {
            match std::str::from_utf8(bytes) {
                Ok(text) => return escape_text(out, text),
                Err(e) => {
                    let (valid, rest) = bytes.split_at(e.valid_up_to());
                    escape_text(out, std::str::from_utf8(valid).unwrap_or_default());
                    let Some(wrong) = e.error_len() else {
                        self.cut = rest.to_vec();
                        return;
                    };
                    for _ in 0..wrong {
                        out.extend_from_slice("\u{fffd}".as_bytes());
                    }
                    bytes = &rest[wrong..];
                }
            }
        }
    }
}

fn escape_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (at, &b) in bytes.iter().enumerate() {
        if b >= 0x20 && b != b'"' && b != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain_from..at]);
        plain_from = at + 1;
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[plain_from..]);
}

/// A whole string with its quotes.
pub fn json_of_lossy<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = vec![b'"'];
    let mut text = JsonText::default();
    for piece in pieces {
        text.push(&mut out, piece);
    }
    text.finish(&mut out);
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_valid_json(bytes: Vec<u8>, cut in 1usize..9) {
            let json = json_of_lossy(bytes.chunks(cut));
            let read: String = serde_json::from_slice(&json).unwrap();
            let whole: String = serde_json::from_slice(&json_of_lossy([&bytes[..]])).unwrap();
            prop_assert_eq!(&read, &whole);
            if let Ok(text) = std::str::from_utf8(&bytes) {
                prop_assert_eq!(text, read);
            }
        }

        #[test]
        fn text_survives(text: String, cut in 1usize..5) {
            let json = json_of_lossy(text.as_bytes().chunks(cut));
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }
    }
}
