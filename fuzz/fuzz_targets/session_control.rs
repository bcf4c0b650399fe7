//! What hostile processes can say to the agent about themselves: answers on a session's control socket, and their line in
//! `/proc`; and what clients say their version is.
#![no_main]

use infield_fuzz::session::{control::Answers, version::Asker};
use infield_fuzz::stat::parse_stat;
use libfuzzer_sys::fuzz_target;

const NONCE: &str = "0123456789abcdef0123456789abcdef";

fuzz_target!(|input: (Vec<Vec<u8>>, &str, u8)| {
    let (pieces, version, code) = input;
    let said = pieces.concat();
    let mut answers = Answers::default();
    let found: Vec<i32> = pieces.iter().filter_map(|piece| answers.push(piece, NONCE)).collect();
    // Only a line that is exactly the answer counts.
    let lines = said.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n"));
    let exact = |line: &[u8]| line.starts_with(format!("{NONCE} ").as_bytes());
    assert!(found.is_empty() || lines.clone().any(exact));
    // After any noise that ends its line, the true answer is understood.
    answers.push(b"\n", NONCE);
    assert_eq!(answers.push(format!("{NONCE} {code}\n").as_bytes(), NONCE), Some(i32::from(code)));
    let _ = parse_stat(&said);
    let asker = Asker::new(Some(version), code & 1 == 1);
    let _ = (asker.shape(), asker.streamed_shape(), asker.starts_at_home());
});
