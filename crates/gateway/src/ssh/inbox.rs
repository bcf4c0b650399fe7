//! What a client sent on one channel and nobody took yet. The library grants a client more as soon as something arrives, so
//! the brake is here: a channel that is behind is told to grant next to nothing, and one that overflows is closed. Also knows
//! when the channel was last used, so that a forgotten one does not keep its sandbox awake for ever.

use bytes::{Bytes, BytesMut};
use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// From here on a channel is behind. Two windows more may be on their way.
const BEHIND_BYTES: usize = 2 << 20;
/// Only a client that ignores its window comes here, or one that fills several stuck channels at once.
const INBOX_BYTES_MAX: usize = 16 << 20;
/// Over all channels of all connections.
const ALL_BYTES_MAX: usize = 512 << 20;
/// Small pieces are put together, so that many of them cost no more than their bytes.
const PIECE_BYTES: usize = 4 << 10;

pub(super) static ALL_BYTES: AtomicUsize = AtomicUsize::new(0);

/// There is no more room; the client has to go.
#[derive(Debug, PartialEq, Eq)]
pub struct Overflow;

#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<BytesMut>,
    bytes: usize,
    ended: bool,
    closed: bool,
    used: Option<Instant>,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, data: &[u8]) -> Result<(), Overflow> {
        let mut state = self.state();
        if state.closed {
            return Ok(());
        }
        if state.bytes + data.len() > INBOX_BYTES_MAX || ALL_BYTES.load(Ordering::Relaxed) > ALL_BYTES_MAX {
            return Err(Overflow);
        }
        ALL_BYTES.fetch_add(data.len(), Ordering::Relaxed);
        state.bytes += data.len();
        state.used = Some(Instant::now());
        match state.pieces.back_mut() {
            Some(last) if last.len() + data.len() <= PIECE_BYTES => last.extend_from_slice(data),
            _ => state.pieces.push_back(BytesMut::from(data)),
        }
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// The channel carried something the other way.
    pub fn touch(&self) {
        self.state().used = Some(Instant::now());
    }

    /// Returns once nothing has moved for so long.
    pub async fn idle(&self, limit: Duration) {
        let begun = Instant::now();
        loop {
            let until = self.state().used.unwrap_or(begun) + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Nothing more will come.
    pub fn end(&self) {
        self.state().ended = true;
        self.filled.notify_one();
    }

    /// Nobody takes anything any more: what is there goes, and what comes.
    pub fn close(&self) {
        let mut state = self.state();
        ALL_BYTES.fetch_sub(state.bytes, Ordering::Relaxed);
        *state = State { ended: true, closed: true, ..State::default() };
    }

    pub fn is_behind(&self) -> bool {
        self.state().bytes >= BEHIND_BYTES
    }

    /// The next piece; `None` at the end. For one reader.
    pub async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.state();
                if let Some(piece) = state.pieces.pop_front() {
                    state.bytes -= piece.len();
                    ALL_BYTES.fetch_sub(piece.len(), Ordering::Relaxed);
                    return Some(piece.freeze());
                }
                if state.ended {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let left = self.state().bytes;
        ALL_BYTES.fetch_sub(left, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(pieces in proptest::collection::vec(proptest::collection::vec(0u8..255, 0..6000), 0..40)) {
            let inbox = Inbox::default();
            pieces.iter().for_each(|piece| inbox.push(piece).unwrap());
            inbox.end();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut out = Vec::new();
            runtime.block_on(async { while let Some(piece) = inbox.next().await { out.extend_from_slice(&piece) } });
            prop_assert_eq!(out, pieces.concat());
        }
    }

    #[tokio::test]
    async fn it_is_idle_only_so_long_after_its_last_use() {
        let (inbox, limit) = (Inbox::default(), Duration::from_millis(50));
        let used = Instant::now();
        inbox.push(b"x").unwrap();
        inbox.idle(limit).await;
        assert!(used.elapsed() >= limit);
    }

    #[test]
    fn it_is_bounded() {
        let inbox = Inbox::default();
        let piece = vec![0; 1 << 20];
        for n in 0..16 {
            assert_eq!(inbox.is_behind(), n >= 2);
            inbox.push(&piece).unwrap();
        }
        assert_eq!(inbox.push(b"x"), Err(Overflow));
        inbox.close();
        assert_eq!((inbox.push(b"x"), inbox.is_behind()), (Ok(()), false));
    }
}
