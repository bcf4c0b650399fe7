//! Frames between the agent and a worker: a length, a job's number, and fields with their lengths; all little-endian. Pure.
//! What comes from a worker is written by hostile code as often as not.

use std::collections::BTreeMap;

/// A longer frame is no answer of our worker, which cuts its texts.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
const LENGTH_BYTES: usize = 4;
const JOB_BYTES: usize = 8;

/// How a piece of code ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub job: u64,
    pub kind: Kind,
    /// Of an uncaught exception; empty without one.
    pub name: String,
    pub value: String,
    pub traceback: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The worker has started.
    Ready,
    Completed,
    Interrupted,
    Raised,
}

/// Not something our worker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbled;

/// What a worker is asked to do. `None` = unset the variable.
pub fn request(job: u64, envs: &BTreeMap<String, Option<String>>, code: &str) -> Vec<u8> {
    let mut frame = vec![0; LENGTH_BYTES];
    frame.extend(job.to_le_bytes());
    frame.extend(length(envs.len()));
    for (name, value) in envs {
        field(&mut frame, name);
        frame.push(u8::from(value.is_some()));
        field(&mut frame, value.as_deref().unwrap_or_default());
    }
    field(&mut frame, code);
    let rest = length(frame.len() - LENGTH_BYTES);
    frame[..LENGTH_BYTES].copy_from_slice(&rest);
    frame
}

fn length(n: usize) -> [u8; LENGTH_BYTES] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

fn field(frame: &mut Vec<u8>, text: &str) {
    frame.extend(length(text.len()));
    frame.extend(text.as_bytes());
}

/// Puts answers together from pieces.
#[derive(Default)]
pub struct Answers {
    buffer: Vec<u8>,
}

impl Answers {
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole answer.
    pub fn next(&mut self) -> Result<Option<Answer>, Garbled> {
        let Some(head) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes(*head) as usize;
        if len > ANSWER_BYTES_MAX {
            return Err(Garbled);
        }
        let Some(frame) = self.buffer.get(LENGTH_BYTES..LENGTH_BYTES + len) else { return Ok(None) };
        let answer = read(frame).ok_or(Garbled)?;
        self.buffer.drain(..LENGTH_BYTES + len);
        Ok(Some(answer))
    }
}

fn read(frame: &[u8]) -> Option<Answer> {
    let (job, rest) = frame.split_first_chunk::<JOB_BYTES>()?;
    let (kind, mut rest) = rest.split_first()?;
    let kind = match kind {
        0 => Kind::Ready,
        1 => Kind::Completed,
        2 => Kind::Interrupted,
        3 => Kind::Raised,
        _ => return None,
    };
    let mut text = || {
        let (len, after) = rest.split_first_chunk::<LENGTH_BYTES>()?;
        let (text, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        rest = after;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    let (name, value, traceback) = (text()?, text()?, text()?);
    rest.is_empty().then_some(Answer { job: u64::from_le_bytes(*job), kind, name, value, traceback })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(job: u64, kind: u8, texts: [&str; 3]) -> Vec<u8> {
        let mut frame = vec![0; LENGTH_BYTES];
        frame.extend(job.to_le_bytes());
        frame.push(kind);
        texts.iter().for_each(|t| field(&mut frame, t));
        let rest = length(frame.len() - LENGTH_BYTES);
        frame[..LENGTH_BYTES].copy_from_slice(&rest);
        frame
    }

    proptest! {
        #[test]
        fn answers_in_any_pieces(jobs: Vec<(u64, String, String)>, cut in 1usize..9) {
            let bytes: Vec<u8> = jobs.iter().flat_map(|(job, a, b)| frame(*job, 3, [a, b, "t"])).collect();
            let mut answers = Answers::default();
            let mut got = Vec::new();
            for piece in bytes.chunks(cut) {
                answers.push(piece);
                while let Some(answer) = answers.next().unwrap() {
                    got.push((answer.job, answer.name, answer.value));
                }
            }
            prop_assert_eq!(got, jobs);
        }

        #[test]
        fn nothing_breaks_it(pieces: Vec<Vec<u8>>) {
            let mut answers = Answers::default();
            for piece in pieces {
                answers.push(&piece);
                while let Ok(Some(_)) = answers.next() {}
            }
        }
    }

    #[test]
    fn what_is_no_answer() {
        for (bytes, garbled) in [
            (vec![255; 8], true),
            (frame(1, 9, ["", "", ""]), true),
            ([3, 0, 0, 0, 1, 2, 3].to_vec(), true),
            ([frame(1, 1, ["", "", ""])[..20].to_vec()].concat(), false),
        ] {
            let mut answers = Answers::default();
            answers.push(&bytes);
            assert_eq!(answers.next().is_err(), garbled);
        }
        let envs = BTreeMap::from([("A".to_owned(), Some("1".to_owned())), ("B".to_owned(), None)]);
        assert_eq!(request(1, &envs, "x").len(), 4 + 8 + 4 + (5 + 1 + 5) + (5 + 1 + 4) + 5);
    }
}
