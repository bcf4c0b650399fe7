//! Logs: both streams come back whole however their bytes arrive, every message begins with a prefix, and bytes that are no
//! log at all are read without harm.
#![no_main]

use infield_fuzz::session::frames::{Cutter, PAYLOAD_BYTES_MAX, Stream, View, first, render};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<(bool, Vec<u8>)>, Vec<u8>, u16)| {
    let (pieces, garbage, enough) = input;
    let mut cutters = [Cutter::new(Stream::Out), Cutter::new(Stream::Err)];
    let (mut frames, mut plain) = (Vec::new(), [Vec::new(), Vec::new()]);
    for (err, bytes) in &pieces {
        let cutter = &mut cutters[usize::from(*err)];
        cutter.push(bytes, &mut frames);
        if bytes.len() % 3 == 0 && cutter.is_holding() {
            cutter.flush(&mut frames);
        }
        plain[usize::from(*err)].extend_from_slice(bytes);
    }
    for (cutter, plain) in cutters.iter_mut().zip(&mut plain) {
        cutter.finish(&mut frames);
        if plain.last().is_some_and(|b| *b != b'\n') {
            plain.push(b'\n');
        }
    }
    for (stream, plain) in [Stream::Out, Stream::Err].into_iter().zip(&plain) {
        let mut seen = Vec::new();
        assert_eq!(render(&frames, View::Only(stream), usize::MAX, &mut seen), frames.len());
        assert_eq!(&seen, plain);
    }
    let enough = usize::from(enough) + 1;
    let mut at = 0;
    while at < frames.len() {
        let mut message = Vec::new();
        let taken = render(&frames[at..], View::Prefixed, enough, &mut message);
        assert!(taken > 0 && (message.starts_with(&[1; 3]) || message.starts_with(&[2; 3])));
        assert!(message.len() < enough + PAYLOAD_BYTES_MAX + 3);
        at += taken;
    }
    let mut rest = &garbage[..];
    while let Some((_, payload, taken)) = first(rest) {
        assert!(payload.len() < taken && taken <= rest.len());
        rest = &rest[taken..];
    }
});
