//! What a sandbox tells a collector (OTLP over HTTP): its own metrics and the lines of its entry point. Off unless
//! `DAYTONA_OTEL_ENDPOINT` is set; then one task begins at the start or at `/init`. Delivery is best effort: what a collector
//! does not take waits within bounds, the oldest goes first.

mod otlp;
mod send;

use crate::metrics;
use crate::state::{Agent, Shared};
use otlp::{Record, Severity};
use send::Sender;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

pub const ENDPOINT: &str = "DAYTONA_OTEL_ENDPOINT";
const METRICS_EVERY: Duration = Duration::from_secs(30);
/// The first metrics come when there has been one interval of processor use.
const METRICS_FIRST: Duration = Duration::from_secs(6);
/// Lines are gathered this long.
const LINES_EVERY: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Lines that wait for a collector, and their bytes.
const LINES_MAX: usize = 4_096;
const LINES_BYTES_MAX: usize = 1 << 20;
const LINE_BYTES_MAX: usize = 16 << 10;

/// The two outputs of the entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "stderr comes with the entry point's session")]
pub enum Stream {
    Out,
    Err,
}

#[derive(Default)]
pub struct Telemetry(Mutex<Option<Running>>);

struct Running {
    lines: Arc<Lines>,
    task: JoinHandle<()>,
}

/// Lines on their way.
#[derive(Default)]
struct Lines {
    queue: Mutex<Queue>,
    more: Notify,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<Record>,
    bytes: usize,
    dropped: u64,
}

impl Telemetry {
    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece of the entry point's output. Nothing is done, and nothing is kept, while telemetry is off.
    pub fn entry_point(&self, stream: Stream, text: &[u8]) {
        let running = self.running();
        let Some(Running { lines, .. }) = &*running else { return };
        let severity = if stream == Stream::Out { Severity::Info } else { Severity::Error };
        let mut queue = lines.lock();
        for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let line = &line[..line.len().min(LINE_BYTES_MAX)];
            queue.push(Record::now(severity, String::from_utf8_lossy(line).into_owned()));
        }
        lines.more.notify_one();
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_back(&self, records: Vec<Record>, dropped: u64) {
        let mut queue = self.lock();
        queue.dropped += dropped;
        queue.put_back(records);
    }
}

impl Queue {
    fn push(&mut self, record: Record) {
        self.bytes += record.text.len();
        self.records.push_back(record);
        self.bound();
    }

    fn take(&mut self) -> Vec<Record> {
        self.bytes = 0;
        self.records.drain(..).collect()
    }

    fn put_back(&mut self, records: Vec<Record>) {
        for record in records.into_iter().rev() {
            self.bytes += record.text.len();
            self.records.push_front(record);
        }
        self.bound();
    }

    fn bound(&mut self) {
        while self.records.len() > LINES_MAX || self.bytes > LINES_BYTES_MAX {
            let Some(gone) = self.records.pop_front() else { return };
            self.bytes -= gone.text.len();
            self.dropped += 1;
        }
    }
}

/// Begins, or begins anew with another token. Without an endpoint nothing happens. The error is for the caller of `/init`.
pub fn begin(agent: &Shared, token: Option<String>) -> Result<(), String> {
    let vars = agent.env.snapshot();
    let Some(endpoint) = vars.get(ENDPOINT).filter(|e| !e.is_empty()) else { return Ok(()) };
    let sender = Sender::new(endpoint, token)?;
    let resource = otlp::resource(&vars);
    let mut running = agent.telemetry.running();
    let lines = match running.take() {
        Some(old) => {
            old.task.abort();
            old.lines
        }
        None => Arc::default(),
    };
    let task = tokio::spawn(run(Arc::downgrade(agent), lines.clone(), sender, resource));
    *running = Some(Running { lines, task });
    Ok(())
}

async fn run(agent: std::sync::Weak<Agent>, lines: Arc<Lines>, sender: Sender, resource: serde_json::Value) {
    let mut metrics_at = Instant::now() + METRICS_FIRST;
    if let Some(agent) = agent.upgrade() {
        metrics::watch(&agent);
    }
    loop {
        tokio::select! {
            () = lines.more.notified() => {
                sleep(LINES_EVERY).await;
                send_lines(&lines, &sender, &resource).await;
            }
            () = sleep_until(metrics_at) => {
                metrics_at = Instant::now() + METRICS_EVERY;
                let Some(agent) = agent.upgrade() else { return };
                metrics::watch(&agent);
                let body = otlp::metrics(&resource, &agent.usage.read());
                // The next ones come soon enough.
                let _ = sender.send("metrics", body).await;
            }
        }
    }
}

async fn send_lines(lines: &Lines, sender: &Sender, resource: &serde_json::Value) {
    let (records, dropped) = {
        let mut queue = lines.lock();
        (queue.take(), std::mem::take(&mut queue.dropped))
    };
    if records.is_empty() {
        return;
    }
    if sender.send("logs", otlp::logs(resource, &records, dropped)).await.is_err() {
        lines.put_back(records, dropped);
        sleep(RETRY_AFTER).await;
        lines.more.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_is_away_costs_bounded_memory() {
        let mut queue = Queue::default();
        for n in 0..3 * LINES_MAX {
            queue.push(Record::now(Severity::Info, format!("line {n}")));
        }
        assert_eq!((queue.records.len(), queue.dropped), (LINES_MAX, 2 * LINES_MAX as u64));
        let records = queue.take();
        assert_eq!(queue.bytes, 0);
        queue.push(Record::now(Severity::Info, "new".into()));
        queue.put_back(records);
        assert_eq!(queue.records.back().unwrap().text, "new");
        assert_eq!(queue.records.len(), LINES_MAX);
        queue.push(Record::now(Severity::Info, "x".repeat(LINES_BYTES_MAX)));
        assert_eq!(queue.records.len(), 1);
    }
}
