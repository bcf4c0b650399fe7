//! A conversation with a language server over any two streams: requests with their answers, notifications, and `null` for
//! whatever the other side asks. Knows neither processes nor what is asked.
//!
//! Nothing here waits without end or grows without limit, whatever the other side does or fails to do.

use super::framing::{Malformed, Parser, frame};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// Requests under way; more wait their turn.
const CALLS_MAX: usize = 16;
/// Messages that wait to be written; a caller makes its message only when there is room.
const OUTGOING_MESSAGES_MAX: usize = 2;
/// Answers to the other side's own requests that wait to be written; more are dropped.
const REPLIES_MAX: usize = 64;
/// An identifier that is given back to the other side.
const ID_BYTES_MAX: usize = 128;
const READ_BYTES: usize = 16 << 10;
/// Kept of an error text.
const ERROR_CHARS_MAX: usize = 1000;

/// The two reasons that say no more than that the other side is gone.
const CLOSED_OUTPUT: &str = "the language server closed its output";
const CLOSED_INPUT: &str = "the language server closed its input";

type Answer = Result<Box<RawValue>, CallError>;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The server's own.
    Refused {
        code: i64,
        message: String,
    },
    Silent {
        method: &'static str,
        seconds: f64,
    },
    /// The conversation ended, and why.
    Over(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message } => write!(f, "the language server answered with error {code}: {message}"),
            Self::Silent { method, seconds } => {
                write!(f, "the language server did not answer {method} within {seconds} seconds")
            }
            Self::Over(why) => f.write_str(why),
        }
    }
}

#[derive(Default)]
struct Table {
    last: i64,
    waiting: HashMap<i64, oneshot::Sender<Answer>>,
    over: Option<String>,
}

struct Shared {
    table: Mutex<Table>,
    over: watch::Sender<bool>,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first reason stays.
    fn end(&self, why: String) {
        let mut table = self.table();
        let why = table.over.get_or_insert(why).clone();
        for (_, caller) in table.waiting.drain() {
            let _ = caller.send(Err(CallError::Over(why.clone())));
        }
        drop(table);
        self.over.send_replace(true);
    }
}

pub struct Conversation {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Vec<u8>>,
    calls: Semaphore,
}

/// What comes in, as far as it matters.
#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Serialize)]
struct Outgoing<'a, P: Serialize> {
    jsonrpc: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    method: &'a str,
    params: P,
}

/// Takes a request out of the table when its caller stops waiting.
struct Waiting<'a>(&'a Shared, i64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.table().waiting.remove(&self.1);
    }
}

impl Conversation {
    /// Reads and writes in two tasks, until one of the streams ends.
    pub fn start<R, W>(reader: R, writer: W) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let shared = Arc::new(Shared { table: Mutex::default(), over: watch::Sender::new(false) });
        let (outgoing, messages) = mpsc::channel(OUTGOING_MESSAGES_MAX);
        let (replies, owed) = mpsc::channel(REPLIES_MAX);
        tokio::spawn(read(reader, shared.clone(), replies));
        tokio::spawn(write(writer, messages, owed, shared.clone()));
        Self { shared, outgoing, calls: Semaphore::new(CALLS_MAX) }
    }

    /// Asks and waits. `params` is made when there is room for the message.
    pub async fn call<P: Serialize>(&self, method: &'static str, params: P, limit: Duration) -> Answer {
        let deadline = Instant::now() + limit;
        let silent = || CallError::Silent { method, seconds: limit.as_secs_f64() };
        let Ok(Ok(_turn)) = timeout_at(deadline, self.calls.acquire()).await else { return Err(silent()) };
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut table = self.shared.table();
            if let Some(why) = &table.over {
                return Err(CallError::Over(why.clone()));
            }
            table.last += 1;
            let id = table.last;
            table.waiting.insert(id, sender);
            id
        };
        let _waiting = Waiting(&self.shared, id);
        self.send(Some(id), method, params, deadline, limit).await?;
        match timeout_at(deadline, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CallError::Over(self.over().unwrap_or_default())),
            Err(_) => {
                let params = serde_json::json!({ "id": id });
                let now = Instant::now();
                let _ = self.send(None, "$/cancelRequest", params, now, Duration::ZERO).await;
                Err(silent())
            }
        }
    }

    /// Tells something that has no answer. Returns when the message is queued.
    pub async fn notify<P: Serialize>(
        &self,
        method: &'static str,
        params: P,
        limit: Duration,
    ) -> Result<(), CallError> {
        self.send(None, method, params, Instant::now() + limit, limit).await
    }

    async fn send<P: Serialize>(
        &self,
        id: Option<i64>,
        method: &'static str,
        params: P,
        deadline: Instant,
        limit: Duration,
    ) -> Result<(), CallError> {
        let room = match timeout_at(deadline, self.outgoing.reserve()).await {
            Ok(Ok(room)) => room,
            Ok(Err(_)) => return Err(CallError::Over(self.over().unwrap_or_default())),
            Err(_) => return Err(CallError::Silent { method, seconds: limit.as_secs_f64() }),
        };
        let message = serde_json::to_vec(&Outgoing { jsonrpc: "2.0", id, method, params })
            .map_err(|e| CallError::Over(format!("cannot write the request: {e}")))?;
        room.send(frame(&message));
        Ok(())
    }

    /// Why the conversation ended, if it has.
    pub fn over(&self) -> Option<String> {
        self.shared.table().over.clone()
    }

    /// Ends it from this side.
    pub fn end(&self, why: &str) {
        self.shared.end(why.to_owned());
    }

    /// Whether nothing is known but that the other side is gone.
    pub fn is_unexplained(&self) -> bool {
        self.over().is_some_and(|why| why == CLOSED_OUTPUT || why == CLOSED_INPUT)
    }

    /// Ends it with the reason, or gives the reason for an end that had none.
    pub fn explain(&self, why: String) {
        if self.is_unexplained() {
            self.shared.table().over = Some(why.clone());
        }
        self.shared.end(why);
    }

    /// Becomes true when the conversation has ended.
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.shared.over.subscribe()
    }
}

async fn write<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut messages: mpsc::Receiver<Vec<u8>>,
    mut replies: mpsc::Receiver<Vec<u8>>,
    shared: Arc<Shared>,
) {
    let mut over = shared.over.subscribe();
    loop {
        let message = tokio::select! {
            biased;
            _ = over.wait_for(|over| *over) => return,
            Some(reply) = replies.recv() => reply,
            message = messages.recv() => match message {
                Some(message) => message,
                None => return,
            },
        };
        let written = tokio::select! {
            _ = over.wait_for(|over| *over) => return,
            written = writer.write_all(&message) => written,
        };
        if written.is_err() {
            // Its end of the other stream, or its exit, says more; this is for servers that only stop reading.
            return shared.end(CLOSED_INPUT.to_owned());
        }
    }
}

async fn read<R: AsyncRead + Unpin>(mut reader: R, shared: Arc<Shared>, replies: mpsc::Sender<Vec<u8>>) {
    let mut parser = Parser::default();
    let mut piece = vec![0; READ_BYTES];
    let mut over = shared.over.subscribe();
    loop {
        let read = tokio::select! {
            _ = over.wait_for(|over| *over) => return,
            read = reader.read(&mut piece) => read.unwrap_or(0),
        };
        if read == 0 {
            return shared.end(CLOSED_OUTPUT.to_owned());
        }
        parser.push(&piece[..read]);
        if let Err(why) = take_all(&mut parser, &shared, &replies) {
            return shared.end(format!("the language server does not speak its protocol: {why}"));
        }
        // One that never stops talking does not keep the others waiting.
        tokio::task::yield_now().await;
    }
}

fn take_all(parser: &mut Parser, shared: &Shared, replies: &mpsc::Sender<Vec<u8>>) -> Result<(), Malformed> {
    while let Some(message) = parser.next_message()? {
        // What is no JSON-RPC is passed over: the frames still tell where the next message begins.
        if let Ok(incoming) = serde_json::from_slice::<Incoming<'_>>(&message) {
            take(incoming, shared, replies);
        }
    }
    Ok(())
}

fn take(incoming: Incoming<'_>, shared: &Shared, replies: &mpsc::Sender<Vec<u8>>) {
    let Some(id) = incoming.id else { return };
    if incoming.method.is_some() {
        if id.get().len() <= ID_BYTES_MAX {
            let reply = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":null}}", id.get());
            let _ = replies.try_send(frame(reply.as_bytes()));
        }
        return;
    }
    let Ok(id) = id.get().trim_matches('"').parse::<i64>() else { return };
    let Some(caller) = shared.table().waiting.remove(&id) else { return };
    let answer = match incoming.error {
        Some(Refusal { code, message }) => {
            let message = message.chars().take(ERROR_CHARS_MAX).collect();
            Err(CallError::Refused { code, message })
        }
        None => Ok(incoming.result.map_or_else(null, ToOwned::to_owned)),
    };
    let _ = caller.send(answer);
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex, split};

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(30);

    /// Runs a conversation against whatever `other` does with the other end.
    fn with<F>(other: impl FnOnce(DuplexStream) -> F, test: impl AsyncFnOnce(Conversation))
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, theirs) = duplex(64 << 10);
            let (reader, writer) = split(ours);
            let other = tokio::spawn(other(theirs));
            test(Conversation::start(reader, writer)).await;
            other.abort();
        });
    }

    async fn next(stream: &mut DuplexStream, parser: &mut Parser) -> serde_json::Value {
        loop {
            if let Some(message) = parser.next_message().unwrap() {
                return serde_json::from_slice(&message).unwrap();
            }
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).await.unwrap();
            assert!(read > 0);
            parser.push(&piece[..read]);
        }
    }

    #[test]
    fn answers_find_their_callers_and_questions_get_null() {
        let other = |mut stream: DuplexStream| async move {
            let mut parser = Parser::default();
            let (first, second) = (next(&mut stream, &mut parser).await, next(&mut stream, &mut parser).await);
            let ask = frame(br#"{"jsonrpc":"2.0","id":"q1","method":"workspace/configuration","params":{}}"#);
            let noise = frame(b"not json");
            let unknown = frame(br#"{"jsonrpc":"2.0","id":77,"result":1}"#);
            let answer = |to: &serde_json::Value| {
                frame(format!(r#"{{"id":{},"result":{{"of":{}}}}}"#, to["id"], to["method"]).as_bytes())
            };
            for bytes in [ask, noise, unknown, answer(&second)] {
                stream.write_all(&bytes).await.unwrap();
            }
            let reply = next(&mut stream, &mut parser).await;
            assert_eq!(reply, serde_json::json!({"jsonrpc": "2.0", "id": "q1", "result": null}));
            let refusal = format!(r#"{{"id":{},"error":{{"code":-32601,"message":"no"}}}}"#, first["id"]);
            stream.write_all(&frame(refusal.as_bytes())).await.unwrap();
            std::future::pending::<()>().await;
        };
        with(other, async |conversation| {
            let (one, two) = tokio::join!(conversation.call("one", (), LONG), conversation.call("two", (), LONG));
            assert!(matches!(one, Err(CallError::Refused { code: -32601, .. })), "{one:?}");
            assert_eq!(two.unwrap().get(), r#"{"of":"two"}"#);
            assert!(conversation.shared.table().waiting.is_empty());
        });
    }

    #[test]
    fn silence_ends_the_waiting_and_leaves_nothing() {
        let never = |stream: DuplexStream| async move {
            let _held = stream;
            std::future::pending::<()>().await;
        };
        with(never, async |conversation| {
            let calls = (0..40).map(|_| conversation.call("ask", (), SHORT));
            for outcome in futures_util::future::join_all(calls).await {
                assert!(matches!(outcome, Err(CallError::Silent { method: "ask", .. })));
            }
            assert!(conversation.shared.table().waiting.is_empty());
            // It reads nothing either: more than the stream and the queue hold is not accepted.
            let large = "x".repeat(100 << 10);
            let mut outcomes = Vec::new();
            for _ in 0..5 {
                outcomes.push(conversation.notify("tell", &large, SHORT).await);
            }
            assert!(outcomes.last().unwrap().is_err());
            assert!(conversation.over().is_none());
        });
    }

    #[test]
    fn lies_and_ends_reach_every_caller() {
        for (bytes, want) in [
            (&b"Content-Length: 99999999\r\n\r\n"[..], "announced a message of 99999999 bytes"),
            (b"Warning: x\nTraceback\n", "where a message should begin"),
            (b"hello\n", "where a message should begin"),
            (b"", "closed its"),
        ] {
            let once = move |mut stream: DuplexStream| async move {
                stream.write_all(bytes).await.unwrap();
                // Endless headers must not need the end of the stream.
                if !bytes.is_empty() {
                    stream.write_all(&b"A: b\r\n".repeat(1000)).await.unwrap();
                    std::future::pending::<()>().await;
                }
            };
            with(once, async |conversation| {
                let outcome = conversation.call("ask", (), LONG).await;
                let Err(CallError::Over(why)) = outcome else { panic!("{outcome:?}") };
                assert!(why.contains(want) || why.contains("headers of more than"), "{why}");
                assert!(conversation.call("again", (), LONG).await.is_err());
            });
        }
    }

    #[test]
    fn an_explanation_replaces_only_a_plain_end() {
        with(
            |stream| async move { drop(stream) },
            async |conversation| {
                let _ = conversation.call("ask", (), LONG).await;
                assert!(conversation.is_unexplained());
                conversation.explain("it crashed".to_owned());
                conversation.explain("later".to_owned());
                assert_eq!(conversation.over().as_deref(), Some("it crashed"));
            },
        );
    }
}
