//! One connection to a runner: frames out in order, answers back in any order.

use super::dial;
use infield_api::runner::{Frame, RUNNER_FRAME_BYTES_MAX, RunnerError, RunnerErrorKind, RunnerRequest, RunnerResponse};
use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::{mpsc, oneshot},
};

/// Requests that may wait for the socket to take them.
const QUEUED_FRAMES_MAX: usize = 1024;
const READ_BUFFER_BYTES: usize = 64 << 10;

type Answer = oneshot::Sender<RunnerResponse>;

pub struct Link {
    seq: AtomicU64,
    frames: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Waiting>,
}

/// Calls in flight. `None` once the connection is gone: nobody may wait any more.
struct Waiting(Mutex<Option<HashMap<u64, Answer>>>);

impl Link {
    pub async fn open(socket: &Path) -> io::Result<Arc<Self>> {
        let (read, write) = dial::connect(socket).await?.into_split();
        let (frames, queue) = mpsc::channel(QUEUED_FRAMES_MAX);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        tokio::spawn(carry(read, write, queue, waiting.clone()));
        Ok(Arc::new(Self { seq: AtomicU64::new(1), frames, waiting }))
    }

    pub fn is_alive(&self) -> bool {
        self.waiting.lock().is_some()
    }

    pub async fn call(&self, body: RunnerRequest) -> Result<RunnerResponse, RunnerError> {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        let frame = encode(&Frame { seq, body })?;
        let (answer, answered) = oneshot::channel();
        match self.waiting.lock().as_mut() {
            Some(calls) => calls.insert(seq, answer),
            None => return Err(lost()),
        };
        let _forget = Forget { waiting: &self.waiting, seq };
        self.frames.send(frame).await.map_err(|_| lost())?;
        answered.await.map_err(|_| lost())
    }
}

/// Forgets a call that was answered or given up.
struct Forget<'a> {
    waiting: &'a Waiting,
    seq: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(calls) = self.waiting.lock().as_mut() {
            calls.remove(&self.seq);
        }
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u64, Answer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, frame: Frame<RunnerResponse>) {
        let answer = self.lock().as_mut().and_then(|calls| calls.remove(&frame.seq));
        if let Some(answer) = answer {
            // The caller may have given up meanwhile.
            let _ = answer.send(frame.body);
        }
    }

    /// Dropping the senders wakes every waiting call with an error.
    fn hang_up(&self) {
        self.lock().take();
    }
}

async fn carry(read: OwnedReadHalf, write: OwnedWriteHalf, queue: mpsc::Receiver<Vec<u8>>, waiting: Arc<Waiting>) {
    // Either direction ending ends the connection; the reason does not matter, every call says "unavailable".
    let _ = tokio::select! {
        ended = receive(read, &waiting) => ended,
        ended = transmit(write, queue) => ended,
    };
    waiting.hang_up();
}

async fn transmit(mut socket: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(frame) = queue.recv().await {
        socket.write_all(&frame).await?;
    }
    Ok(())
}

async fn receive(socket: OwnedReadHalf, waiting: &Waiting) -> io::Result<()> {
    let mut socket = BufReader::with_capacity(READ_BUFFER_BYTES, socket);
    let mut bytes = Vec::new();
    loop {
        let len = socket.read_u32_le().await? as usize;
        if len > RUNNER_FRAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
        }
        bytes.resize(len, 0);
        socket.read_exact(&mut bytes).await?;
        waiting.answer(serde_json::from_slice(&bytes)?);
    }
}

fn encode(frame: &Frame<RunnerRequest>) -> Result<Vec<u8>, RunnerError> {
    let invalid = |why: String| RunnerError::new(RunnerErrorKind::Invalid, why);
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, frame).map_err(|e| invalid(format!("cannot encode the request: {e}")))?;
    let len = bytes.len() - 4;
    if len > RUNNER_FRAME_BYTES_MAX {
        return Err(invalid(format!("the request takes {len} bytes of at most {RUNNER_FRAME_BYTES_MAX}")));
    }
    let len = u32::try_from(len).map_err(|e| invalid(e.to_string()))?;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    Ok(bytes)
}

fn lost() -> RunnerError {
    RunnerError::new(RunnerErrorKind::Unavailable, "the runner went away before it answered; try again")
}
