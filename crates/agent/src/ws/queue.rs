//! What waits to be written to one client: bounded in messages and bytes, and over all clients in bytes. Allocates nothing
//! until something waits. Knows no sockets.

use super::{Limits, code};
use axum::extract::ws::Message;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Over all sockets together. Beyond it each may have one message waiting.
const ALL_QUEUED_BYTES_MAX: usize = 64 << 20;

static ALL_QUEUED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The client cannot get anything any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Full,
    Gone,
}

struct Queue {
    state: Mutex<State>,
    /// Wakes the writer.
    filled: Notify,
    /// Wakes whoever waits for room or for the end.
    drained: Notify,
    messages_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Message>,
    /// Of the waiting messages and the one that is being written.
    bytes: usize,
    senders: usize,
    /// How the socket shall be closed once nothing waits any more.
    ending: Option<(u16, String)>,
    /// What waits shall not be written any more.
    cut: bool,
    /// Nothing can be written any more; reading ends at this moment.
    over: Option<Instant>,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self, state: &State) -> bool {
        let all_full = || ALL_QUEUED_BYTES.load(Ordering::Relaxed) >= ALL_QUEUED_BYTES_MAX;
        state.waiting.len() >= self.messages_max || state.bytes >= self.bytes_max || (state.bytes > 0 && all_full())
    }

    fn count(state: &mut State, bytes: usize) {
        state.bytes += bytes;
        ALL_QUEUED_BYTES.fetch_add(bytes, Ordering::Relaxed);
    }

    fn uncount(state: &mut State, bytes: usize) {
        state.bytes -= bytes;
        ALL_QUEUED_BYTES.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn end(&self, state: &mut State, code: u16, reason: &str, cut: bool) {
        if state.ending.is_none() {
            state.ending = Some((code, reason.to_owned()));
        }
        if cut {
            state.cut = true;
            let dropped = state.waiting.drain(..).map(|m| length(&m)).sum();
            Self::uncount(state, dropped);
            state.waiting = VecDeque::new();
        }
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    fn over_at(&self, moment: Instant) {
        let mut state = self.state();
        let bytes = state.bytes;
        Self::uncount(&mut state, bytes);
        state.waiting = VecDeque::new();
        state.cut = true;
        state.over.get_or_insert(moment);
        drop(state);
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    /// Waits until `ready` says something. It is asked again after every change.
    async fn when<T>(&self, ready: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let changed = self.drained.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(value) = ready(&self.state()) {
                return value;
            }
            changed.await;
        }
    }
}

/// The handlers' side. Clones share the queue; when the last one goes without a closing word, the client gets 1011.
pub struct Outgoing(Arc<Queue>);

impl Outgoing {
    /// Takes the message unless the client is behind.
    pub fn offer(&self, message: Message) -> Result<(), Refused> {
        let mut state = self.0.state();
        if state.over.is_some() || state.ending.is_some() {
            return Err(Refused::Gone);
        }
        if self.0.is_full(&state) {
            return Err(Refused::Full);
        }
        Queue::count(&mut state, length(&message));
        state.waiting.push_back(message);
        drop(state);
        self.0.filled.notify_one();
        Ok(())
    }

    /// Waits for room. Cancel safe: a message is taken whole or not at all.
    pub async fn send(&self, message: Message) -> Result<(), Gone> {
        loop {
            self.room().await?;
            match self.offer(message.clone()) {
                Ok(()) => return Ok(()),
                Err(Refused::Gone) => return Err(Gone),
                Err(Refused::Full) => {}
            }
        }
    }

    /// Waits until a message can be offered.
    pub async fn room(&self) -> Result<(), Gone> {
        let queue = &self.0;
        queue
            .when(|state| match state.over.is_some() || state.ending.is_some() {
                true => Some(Err(Gone)),
                false => (!queue.is_full(state)).then_some(Ok(())),
            })
            .await
    }

    /// Closes after everything that waits. The first closing word counts.
    pub fn finish(&self, code: u16, reason: &str) {
        self.0.end(&mut self.0.state(), code, reason, false);
    }

    /// Closes at once: what waits is thrown away.
    pub fn cut(&self, code: u16, reason: &str) {
        self.0.end(&mut self.0.state(), code, reason, true);
    }

    /// Waits until nothing can be sent any more, because we closed or the client left.
    pub async fn ended(&self) {
        self.0.when(|state| state.over.map(|_| ())).await;
    }
}

impl Clone for Outgoing {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Self(self.0.clone())
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.senders -= 1;
        if state.senders == 0 {
            self.0.end(&mut state, code::ERROR, "the sandbox has nothing more to say", false);
        }
    }
}

/// For our answer to the client's closing to get out.
const GOODBYE: Duration = Duration::from_secs(1);

/// The reader's side.
pub struct End(Arc<Queue>);

impl End {
    /// Returns when there is nothing left to read for.
    pub async fn over(&self) {
        let moment = self.0.when(|state| state.over).await;
        sleep_until(moment).await;
    }

    pub fn client_left(&self) {
        self.0.over_at(Instant::now() + GOODBYE);
    }

    pub fn cut(&self, code: u16, reason: &str) {
        self.0.end(&mut self.0.state(), code, reason, true);
    }
}

/// The writer's side. When it goes, nothing can be sent any more.
pub struct Written {
    queue: Arc<Queue>,
    writing: usize,
}

impl Written {
    pub fn end(&self) -> End {
        End(self.queue.clone())
    }

    /// The next message, once the one before is done; `None` = close now.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            {
                let mut state = self.queue.state();
                let done = std::mem::take(&mut self.writing);
                if state.over.is_some() {
                    return None;
                }
                Queue::uncount(&mut state, done);
                if state.cut {
                    return None;
                }
                let next = state.waiting.pop_front();
                if state.waiting.is_empty() {
                    state.waiting = VecDeque::new();
                }
                self.writing = next.as_ref().map_or(0, length);
                let ending = state.ending.is_some();
                drop(state);
                self.queue.drained.notify_waiters();
                if next.is_some() || ending {
                    return next;
                }
            }
            self.queue.filled.notified().await;
        }
    }

    /// Does the work unless everything is cut off meanwhile; then `None`.
    pub async fn unless_cut<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.queue.when(|state| state.cut.then_some(())) => None,
        }
    }

    /// The closing word; `None` when the client left by itself.
    pub fn farewell(&self) -> Option<(u16, String)> {
        let state = self.queue.state();
        state.over.is_none().then(|| state.ending.clone()).flatten()
    }

    /// The client has this long to answer.
    pub fn said_farewell(&self, limit: Duration) {
        self.queue.over_at(Instant::now() + limit);
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.queue.over_at(Instant::now());
    }
}

fn length(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.as_str().len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}

/// A queue with its first handler's end and its writer's.
pub fn queue(limits: &Limits) -> (Outgoing, Written) {
    let queue = Arc::new(Queue {
        state: Mutex::new(State { senders: 1, ..State::default() }),
        filled: Notify::new(),
        drained: Notify::new(),
        messages_max: limits.queued_messages_max,
        bytes_max: limits.queued_bytes_max,
    });
    (Outgoing(queue.clone()), Written { queue, writing: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn small() -> (Outgoing, Written) {
        queue(&Limits { message_bytes_max: 1, queued_messages_max: 3, queued_bytes_max: 10, write_limit: None })
    }

    fn text(message: Option<Message>) -> String {
        message.map(|m| m.into_text().unwrap().as_str().to_owned()).unwrap_or_default()
    }

    #[tokio::test]
    async fn bounded_in_order_then_the_closing_word() {
        let (out, mut writer) = small();
        for word in ["a", "b", "c"] {
            out.offer(Message::text(word)).unwrap();
        }
        assert_eq!(out.offer(Message::text("d")), Err(Refused::Full));
        assert!(out.room().now_or_never().is_none());
        assert_eq!(text(writer.next().await), "a");
        assert_eq!(out.send(Message::text("d")).now_or_never(), Some(Ok(())));
        out.finish(1000, "");
        out.finish(1011, "too late");
        assert_eq!(out.offer(Message::text("e")), Err(Refused::Gone));
        for word in ["b", "c", "d", ""] {
            assert_eq!(text(writer.next().await), word);
        }
        assert_eq!(writer.farewell(), Some((1000, String::new())));
    }

    #[tokio::test]
    async fn bytes_count_until_they_are_written() {
        let (out, mut writer) = small();
        out.offer(Message::text("0123456789")).unwrap();
        assert_eq!(text(writer.next().await), "0123456789");
        assert_eq!(out.offer(Message::text("x")), Err(Refused::Full), "it is still being written");
        assert!(writer.next().now_or_never().is_none());
        out.offer(Message::text("x")).unwrap();
    }

    #[tokio::test]
    async fn cutting_throws_away_and_stops_a_writer() {
        let (out, mut writer) = small();
        out.offer(Message::text("a")).unwrap();
        assert_eq!(text(writer.next().await), "a");
        out.offer(Message::text("b")).unwrap();
        let mut stuck = Box::pin(writer.unless_cut(std::future::pending::<()>()));
        assert!((&mut stuck).now_or_never().is_none());
        out.cut(1008, "slow consumer");
        assert_eq!(stuck.await, None);
        assert!(writer.next().await.is_none());
        assert_eq!(writer.farewell(), Some((1008, "slow consumer".to_owned())));
    }

    #[tokio::test]
    async fn both_sides_learn_that_the_other_is_gone() {
        let (out, mut writer) = small();
        drop(out.clone());
        assert!(writer.next().now_or_never().is_none());
        drop(out);
        assert!(writer.next().await.is_none());
        assert_eq!(writer.farewell().map(|(code, _)| code), Some(1011));
        let (out, mut writer) = small();
        writer.end().client_left();
        assert!(writer.next().await.is_none() && writer.farewell().is_none());
        assert_eq!(out.send(Message::text("x")).await, Err(Gone));
        out.ended().await;
    }
}
