//! The cycles that are timed: create, first command, a few more, delete.

use super::{Burst, Throughput, memory, numbers::Spread};
use infield_client::{
    Api, Toolbox,
    api::ServerPhase,
    dto::{CreateSandbox, Execute, Sandbox},
};
use specgen_sandbox::{Failure, errors::CREATION_FAILED};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Round trips of `true` in each sandbox.
const TRUES: usize = 5;
const START_MAX: Duration = Duration::from_secs(60);
/// Marks what this measurement made.
const LABEL: &str = "infield.dev/bench";

#[derive(Clone)]
pub struct Bench {
    api: Api,
    spec: Arc<CreateSandbox>,
}

/// One sandbox's life, times in milliseconds.
pub struct Cycle {
    pub tti_ms: f64,
    pub create_ms: f64,
    pub exec_true_ms: Vec<f64>,
    pub delete_ms: f64,
    pub phases: Vec<ServerPhase>,
}

/// A sandbox whose first command has spoken.
struct Spoken {
    sandbox: Sandbox,
    toolbox: Toolbox,
    tti_ms: f64,
    create_ms: f64,
    phases: Vec<ServerPhase>,
}

impl Bench {
    pub fn new(api: Api, snapshot: Option<String>) -> Self {
        let labels = BTreeMap::from([(LABEL.to_owned(), "1".to_owned())]);
        Self { api, spec: Arc::new(CreateSandbox { snapshot, labels, ..CreateSandbox::default() }) }
    }

    pub async fn sequence(&self, count: usize) -> Result<Vec<Cycle>, Failure> {
        let mut cycles = Vec::with_capacity(count);
        for _ in 0..count {
            cycles.push(self.cycle().await?);
        }
        Ok(cycles)
    }

    pub async fn cycle(&self) -> Result<Cycle, Failure> {
        let spoken = self.first_words().await?;
        let measured = self.rest(&spoken).await;
        let started = Instant::now();
        self.api.delete(&spoken.sandbox.id).await?;
        let delete_ms = millis(started);
        let Spoken { tti_ms, create_ms, phases, .. } = spoken;
        Ok(Cycle { tti_ms, create_ms, exec_true_ms: measured?, delete_ms, phases })
    }

    async fn rest(&self, spoken: &Spoken) -> Result<Vec<f64>, Failure> {
        let command = Execute { command: "true".into(), ..Execute::default() };
        let mut times = Vec::with_capacity(TRUES);
        for _ in 0..TRUES {
            let started = Instant::now();
            spoken.toolbox.execute(&command).await?;
            times.push(millis(started));
        }
        Ok(times)
    }

    /// From nothing to the first byte of a command's output.
    async fn first_words(&self) -> Result<Spoken, Failure> {
        let started = Instant::now();
        let failed = |e| Failure::during(CREATION_FAILED, e);
        let (sandbox, phases) = self.api.create_timed(&self.spec).await.map_err(failed)?;
        let sandbox = self.api.wait_started(sandbox, START_MAX).await.map_err(failed)?;
        let create_ms = millis(started);
        match self.speak(&sandbox).await {
            Ok(toolbox) => Ok(Spoken { sandbox, toolbox, tti_ms: millis(started), create_ms, phases }),
            Err(failure) => {
                let _ = self.api.delete(&sandbox.id).await;
                Err(failure)
            }
        }
    }

    /// The first output, asked for as the SDKs do.
    async fn speak(&self, sandbox: &Sandbox) -> Result<Toolbox, Failure> {
        let toolbox = self.api.toolbox(sandbox).await?;
        let command = Execute { command: "echo hi".into(), ..Execute::default() };
        match toolbox.execute(&command).await? {
            done if done.result == "hi\n" => Ok(toolbox),
            done => Err(Failure::detailed(CREATION_FAILED, format!("`echo hi` answered {done:?}"))),
        }
    }

    /// All at the same moment; each time includes waiting for the others.
    pub async fn burst(&self, sandboxes: usize) -> Result<Burst, Failure> {
        let started = Instant::now();
        let spoken = self.all_speak(sandboxes).await;
        let all_ms = millis(started);
        let (spoken, failure) = spoken;
        let times = spoken.iter().map(|s| s.tti_ms).collect();
        self.delete_all(spoken).await?;
        match failure {
            Some(failure) => Err(failure),
            None => Ok(Burst { sandboxes, tti_ms: Spread::of(times), all_ms: super::numbers::round(all_ms) }),
        }
    }

    async fn all_speak(&self, sandboxes: usize) -> (Vec<Spoken>, Option<Failure>) {
        let mut tasks = JoinSet::new();
        for _ in 0..sandboxes {
            let bench = self.clone();
            tasks.spawn(async move { bench.first_words().await });
        }
        let (mut spoken, mut failure) = (Vec::new(), None);
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(Ok(one)) => spoken.push(one),
                Ok(Err(e)) => failure = Some(e),
                Err(e) => failure = Some(Failure::detailed(CREATION_FAILED, e.to_string())),
            }
        }
        (spoken, failure)
    }

    async fn delete_all(&self, spoken: Vec<Spoken>) -> Result<(), Failure> {
        for one in spoken {
            self.api.delete(&one.sandbox.id).await?;
        }
        Ok(())
    }

    /// Whole lives per second with so many at a time.
    pub async fn throughput(&self, in_flight: usize, count: usize) -> Result<Throughput, Failure> {
        let cycles = count.max(in_flight * 8);
        let left = Arc::new(AtomicUsize::new(cycles));
        let mut tasks = JoinSet::new();
        let started = Instant::now();
        for _ in 0..in_flight {
            let (bench, left) = (self.clone(), left.clone());
            tasks.spawn(async move {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    bench.short_life().await?;
                }
                Ok::<(), Failure>(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(|e| Failure::detailed(CREATION_FAILED, e.to_string()))??;
        }
        let per_second = super::numbers::round(cycles as f64 / started.elapsed().as_secs_f64());
        Ok(Throughput { in_flight, cycles, per_second })
    }

    /// Create, one command, delete.
    async fn short_life(&self) -> Result<(), Failure> {
        let failed = |e| Failure::during(CREATION_FAILED, e);
        let sandbox = self.api.create(&self.spec).await.map_err(failed)?;
        let sandbox = self.api.wait_started(sandbox, START_MAX).await.map_err(failed)?;
        let toolbox = self.api.toolbox(&sandbox).await?;
        let command = Execute { command: "echo hi".into(), ..Execute::default() };
        let done = toolbox.execute(&command).await;
        self.api.delete(&sandbox.id).await?;
        done.map(drop).map_err(Failure::from)
    }

    /// What so many sandboxes cost when they do nothing.
    pub async fn idle(&self, sandboxes: usize, tag: Option<&str>) -> Result<memory::Idle, Failure> {
        let before = memory::settled(tag).await;
        let (mut spoken, mut failure) = (Vec::new(), None);
        // One after the other: a burst would leave its own caches behind.
        for _ in 0..sandboxes {
            match self.first_words().await {
                Ok(one) => spoken.push(one),
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
        }
        let idle = memory::measure(&before, spoken.len(), tag).await;
        self.delete_all(spoken).await?;
        failure.map_or(Ok(idle), Err)
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
