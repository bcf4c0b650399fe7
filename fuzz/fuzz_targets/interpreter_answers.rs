//! What a worker of the interpreter writes, in arbitrary pieces: the same answers as in one piece, or garbled either way.
#![no_main]

use infield_fuzz::wire::{Answer, Answers, Garbled};
use libfuzzer_sys::fuzz_target;

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Answer>, Option<Garbled>) {
    let (mut answers, mut got) = (Answers::default(), Vec::new());
    for piece in pieces {
        answers.push(piece);
        loop {
            match answers.next() {
                Ok(Some(answer)) => got.push(answer),
                Ok(None) => break,
                Err(garbled) => return (got, Some(garbled)),
            }
        }
    }
    (got, None)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, bytes) = input;
    assert_eq!(read(bytes.chunks(usize::from(cut) + 1)), read(std::iter::once(bytes)));
});
