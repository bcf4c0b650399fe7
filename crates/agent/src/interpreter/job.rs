//! One piece of code to run, and its client. A client that is slow slows the code down; one that is gone is not missed.

use super::wire::Answer;
use crate::json_text::{JsonText, json_of_lossy};
use crate::ws::Outgoing;
use axum::extract::ws::Message;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Of all pieces that run or wait, over all contexts.
const ALL_CODE_BYTES_MAX: usize = 64 << 20;

static ALL_CODE_BYTES: AtomicUsize = AtomicUsize::new(0);

pub struct Job {
    pub code: String,
    pub envs: BTreeMap<String, Option<String>>,
    pub limit: Option<Duration>,
    pub listener: Listener,
    counted: usize,
}

impl Job {
    /// `None`: too much code is waiting already.
    pub fn new(
        code: String,
        envs: BTreeMap<String, Option<String>>,
        limit: Option<Duration>,
        outgoing: Outgoing,
    ) -> Option<Self> {
        let counted = code.len() + envs.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, String::len)).sum::<usize>();
        let all = ALL_CODE_BYTES.fetch_add(counted, Ordering::Relaxed);
        let job = Self { code, envs, limit, listener: Listener::new(outgoing), counted };
        (all == 0 || all + counted <= ALL_CODE_BYTES_MAX).then_some(job)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        ALL_CODE_BYTES.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// Which output of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// Puts what happens into the client's words.
pub struct Listener {
    outgoing: Option<Outgoing>,
    out: JsonText,
    err: JsonText,
}

impl Listener {
    fn new(outgoing: Outgoing) -> Self {
        Self { outgoing: Some(outgoing), out: JsonText::default(), err: JsonText::default() }
    }

    /// Waits while the client is behind.
    async fn say(&mut self, text: Vec<u8>) {
        let Ok(text) = String::from_utf8(text) else { return };
        if let Some(outgoing) = &self.outgoing
            && outgoing.send(Message::Text(text.into())).await.is_err()
        {
            self.outgoing = None;
        }
    }

    pub async fn output(&mut self, stream: Stream, bytes: &[u8]) {
        if self.outgoing.is_none() {
            return;
        }
        let mut text = Vec::new();
        match stream {
            Stream::Out => self.out.push(&mut text, bytes),
            Stream::Err => self.err.push(&mut text, bytes),
        }
        if !text.is_empty() {
            self.say(output_message(stream, &text)).await;
        }
    }

    /// A character that was never completed.
    pub async fn output_ended(&mut self) {
        for stream in [Stream::Out, Stream::Err] {
            let mut text = Vec::new();
            match stream {
                Stream::Out => self.out.finish(&mut text),
                Stream::Err => self.err.finish(&mut text),
            }
            if !text.is_empty() {
                self.say(output_message(stream, &text)).await;
            }
        }
    }

    pub async fn error(&mut self, name: &str, value: &str, traceback: &str) {
        self.say(message("error", "", [name, value, traceback])).await;
    }

    pub async fn raised(&mut self, answer: &Answer) {
        self.error(&answer.name, &answer.value, &answer.traceback).await;
    }

    pub async fn control(&mut self, word: &str) {
        self.say(message("control", word, ["", "", ""])).await;
    }

    pub fn finish(&mut self, code: u16, reason: &str) {
        if let Some(outgoing) = self.outgoing.take() {
            outgoing.finish(code, reason);
        }
    }
}

/// `text` is JSON text already, without quotes.
fn output_message(stream: Stream, text: &[u8]) -> Vec<u8> {
    let head: &[u8] = match stream {
        Stream::Out => br#"{"type":"stdout","text":""#,
        Stream::Err => br#"{"type":"stderr","text":""#,
    };
    [head, text, br#"","name":"","value":"","traceback":""}"#].concat()
}

fn message(kind: &str, text: &str, [name, value, traceback]: [&str; 3]) -> Vec<u8> {
    let mut message = Vec::new();
    for (key, value) in [
        ("{\"type\":", kind),
        (",\"text\":", text),
        (",\"name\":", name),
        (",\"value\":", value),
        (",\"traceback\":", traceback),
    ] {
        message.extend_from_slice(key.as_bytes());
        message.extend(json_of_lossy([value.as_bytes()]));
    }
    message.push(b'}');
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_all_five_keys() {
        let out = output_message(Stream::Out, b"a\\n");
        assert_eq!(out, br#"{"type":"stdout","text":"a\n","name":"","value":"","traceback":""}"#);
        let error = message("error", "", ["E", "\"v\"", "t\n"]);
        assert_eq!(error, br#"{"type":"error","text":"","name":"E","value":"\"v\"","traceback":"t\n"}"#);
    }
}
