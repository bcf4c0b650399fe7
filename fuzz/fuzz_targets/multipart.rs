//! Form data in arbitrary pieces gives the same events as in one piece, holds a bounded amount back, and always ends.
#![no_main]

use arbitrary::Arbitrary;
use infield_fuzz::multipart::{Event, Limits, Malformed, Parser, boundary_of};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    content_type: &'a str,
    body: &'a [u8],
    cuts: Vec<u8>,
}

const LIMITS: Limits = Limits { header_bytes_max: 128 };

/// Events with neighbouring data joined.
fn parse(pieces: &[&[u8]], boundary: &str) -> Result<Vec<(String, Vec<u8>, bool)>, Malformed> {
    let mut parser = Parser::new(boundary, LIMITS);
    let mut parts: Vec<(String, Vec<u8>, bool)> = Vec::new();
    for piece in pieces {
        parser.push(piece);
        while let Some(event) = parser.next_event()? {
            match event {
                Event::Part { name } => parts.push((name, Vec::new(), false)),
                Event::Data(bytes) => {
                    assert!(!bytes.is_empty());
                    parts.last_mut().expect("data belongs to a part").1.extend_from_slice(&bytes);
                }
                Event::PartEnd => parts.last_mut().expect("an end belongs to a part").2 = true,
                Event::End => {}
            }
        }
    }
    parser.finish()?;
    assert!(parts.iter().all(|part| part.2), "a finished form has finished parts");
    Ok(parts)
}

fuzz_target!(|input: Input| {
    let _ = boundary_of(input.content_type);
    let boundary = "b";
    let mut pieces = Vec::new();
    let mut rest = input.body;
    for cut in &input.cuts {
        let (piece, after) = rest.split_at(rest.len().min(usize::from(*cut)));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    let (whole, cut) = (parse(&[input.body], boundary), parse(&pieces, boundary));
    if let (Ok(whole), Ok(cut)) = (&whole, &cut) {
        assert_eq!(whole, cut);
    } else {
        assert_eq!(whole.is_ok(), cut.is_ok(), "{whole:?} {cut:?}");
    }
});
