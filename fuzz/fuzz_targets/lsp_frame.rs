//! What a language server prints, in arbitrary pieces: the same messages however it is cut, never more than announced, and
//! answers that become symbols and completions or an error.
#![no_main]

use arbitrary::Arbitrary;
use infield_fuzz::lsp::answers::{COMPLETIONS_MAX, SYMBOLS_MAX, completions, symbols};
use infield_fuzz::lsp::framing::{MESSAGE_BYTES_MAX, Malformed, Parser, frame};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    output: &'a [u8],
    message: &'a [u8],
    cuts: Vec<u8>,
}

fn messages<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut parser = Parser::default();
    let mut found = Vec::new();
    for piece in pieces {
        parser.push(piece);
        while let Some(message) = parser.next_message()? {
            assert!(message.len() <= MESSAGE_BYTES_MAX);
            found.push(message);
        }
    }
    Ok(found)
}

fn cut<'a>(bytes: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for cut in cuts {
        let (piece, after) = rest.split_at(rest.len().min(usize::from(*cut)));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

fuzz_target!(|input: Input| {
    let (whole, pieces) = (messages([input.output]), messages(cut(input.output, &input.cuts)));
    assert_eq!(whole.is_ok(), pieces.is_ok(), "{whole:?} {pieces:?}");
    if let (Ok(whole), Ok(pieces)) = (&whole, &pieces) {
        assert_eq!(whole, pieces);
    }
    let framed = frame(input.message);
    assert_eq!(messages(cut(&framed, &input.cuts)), Ok(vec![input.message.to_vec()]));
    if let Ok(raw) = serde_json::from_slice::<Box<RawValue>>(input.message) {
        assert!(symbols(&raw, "file:///x").is_ok_and(|s| s.len() <= SYMBOLS_MAX) || symbols(&raw, "").is_err());
        if let Ok(list) = completions(&raw) {
            assert!(list.items.len() <= COMPLETIONS_MAX && serde_json::to_vec(&list).is_ok());
        }
    }
});
