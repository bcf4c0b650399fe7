//! One context: the task that owns its worker and runs its jobs one after another. A worker that ends, hangs or says what no
//! worker says takes its context with it, and the client is told.

use super::job::{Job, Stream};
use super::wire::{self, Answer, Kind};
use super::worker::{self, Worker, next_answer, read_waiting, waiting};
use crate::children::Exit;
use crate::state::Shared;
use crate::ws::code;
use infield_api::toolbox::InterpreterContext;
use rustix::process::Signal;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

const JOBS_WAITING_MAX: usize = 128;
const TIMEOUT_CODE: u16 = 4008;
/// Between SIGINT and SIGKILL when time is up, between SIGTERM and SIGKILL at the end.
const GRACE: Duration = Duration::from_secs(2);
/// From a lost channel to the end of its process, if that is why.
const END_WAIT: Duration = Duration::from_millis(500);
const READ_BYTES: usize = 16 << 10;
/// No clock reaches this.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

pub struct Context {
    pub id: String,
    pub born: u64,
    cwd: String,
    created_at: String,
    active: AtomicBool,
    jobs: mpsc::Sender<Job>,
    stop: Notify,
    ended: watch::Receiver<bool>,
}

impl Context {
    /// Starts the worker. The error is for the caller to read.
    pub async fn start(agent: &Shared, id: String, born: u64, cwd: Option<PathBuf>) -> Result<Arc<Self>, String> {
        let worker = worker::start(agent, cwd.clone()).await?;
        let (jobs, queue) = mpsc::channel(JOBS_WAITING_MAX);
        let (end, ended) = watch::channel(false);
        let cwd = cwd.as_deref().unwrap_or(&agent.workdir).to_string_lossy().into_owned();
        let created_at = crate::timestamp::now_millis();
        let active = AtomicBool::new(true);
        let context = Arc::new(Self { id, born, cwd, created_at, active, jobs, stop: Notify::new(), ended });
        tokio::spawn(own(agent.clone(), context.clone(), worker, queue, end));
        Ok(context)
    }

    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    pub fn info(&self) -> InterpreterContext {
        InterpreterContext {
            id: self.id.clone(),
            cwd: self.cwd.clone(),
            created_at: self.created_at.clone(),
            active: self.is_active(),
            language: "python".to_owned(),
        }
    }

    /// Runs the job after those that wait. Gives it back when it cannot, with the reason.
    pub fn enqueue(&self, job: Job) -> Result<(), (Box<Job>, &'static str)> {
        if !self.is_active() {
            return Err((Box::new(job), "context is not active"));
        }
        self.jobs.try_send(job).map_err(|e| match e {
            mpsc::error::TrySendError::Full(job) => (Box::new(job), "too many executions wait in this context"),
            mpsc::error::TrySendError::Closed(job) => (Box::new(job), "context is not active"),
        })
    }

    /// Ends the worker and everything it has started.
    pub async fn end(&self) {
        self.stop.notify_one();
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

/// Why a context is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// The worker ended, or there is no talking to it.
    Lost(Option<Exit>),
    /// It did not stop when time was up.
    TimedOut,
    Stopped,
}

async fn own(
    agent: Shared,
    context: Arc<Context>,
    mut worker: Worker,
    mut queue: mpsc::Receiver<Job>,
    end: watch::Sender<bool>,
) {
    let mut number = 0;
    let over = loop {
        let job = tokio::select! {
            biased;
            () = context.stop.notified() => break Over::Stopped,
            over = idle(&mut worker) => break over,
            job = queue.recv() => match job {
                Some(job) => job,
                None => break Over::Stopped,
            },
        };
        number += 1;
        let mut running = Running { job, number, expired: false };
        if let Err(over) = running.run(&mut worker, &context.stop).await {
            running.finish_lost(&mut worker, over).await;
            break over;
        }
    };
    context.active.store(false, Ordering::Relaxed);
    queue.close();
    while let Ok(mut job) = queue.try_recv() {
        match over {
            Over::Stopped => job.listener.finish(code::AWAY, "context shutdown"),
            Over::Lost(_) | Over::TimedOut => job.listener.finish(code::POLICY, "context is not active"),
        }
    }
    if over == Over::Stopped {
        worker.signal(Signal::TERM);
        let _ = timeout(GRACE, &mut worker.exit).await;
    }
    worker.family.kill(&agent).await;
    let _ = end.send(true);
}

/// Between jobs: what is printed now belongs to nobody, and answers are to no question.
async fn idle(worker: &mut Worker) -> Over {
    loop {
        tokio::select! {
            biased;
            ended = &mut worker.exit => return Over::Lost(ended.ok()),
            answer = next_answer(&mut worker.channel, &mut worker.answers) => if answer.is_err() {
                return Over::Lost(None);
            },
            out = read(&mut worker.out) => if out.is_err() { return Over::Lost(None) },
            err = read(&mut worker.err) => if err.is_err() { return Over::Lost(None) },
        }
    }
}

/// Some output. Its end is an error: our worker keeps both open. Cancel safe.
async fn read(pipe: &mut pipe::Receiver) -> io::Result<Vec<u8>> {
    loop {
        // Waiting comes before allocating.
        pipe.readable().await?;
        let mut bytes = vec![0; READ_BYTES];
        match pipe.try_read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                bytes.truncate(n);
                return Ok(bytes);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// A job and how far it is.
struct Running {
    job: Job,
    number: u64,
    /// SIGINT was sent.
    expired: bool,
}

impl Running {
    /// Runs to the end and tells the client. An error is the end of the context; the client then knows nothing yet.
    async fn run(&mut self, worker: &mut Worker, stop: &Notify) -> Result<(), Over> {
        // What was printed between jobs.
        for pipe in [&mut worker.out, &mut worker.err] {
            let bytes = waiting(&*pipe);
            read_waiting(pipe, bytes).await;
        }
        let request = wire::request(self.number, &self.job.envs, &self.job.code);
        (self.job.code, self.job.envs) = Default::default();
        let answer = self.follow(worker, stop, &request).await?;
        self.rest_of_output(worker).await;
        let listener = &mut self.job.listener;
        if self.expired {
            // Without a control message: clients take one for success.
            listener.finish(TIMEOUT_CODE, "");
            return Ok(());
        }
        if answer.kind == Kind::Raised {
            listener.raised(&answer).await;
        }
        listener.control(if answer.kind == Kind::Interrupted { "interrupted" } else { "completed" }).await;
        listener.finish(code::NORMAL, "");
        Ok(())
    }

    async fn follow(&mut self, worker: &mut Worker, stop: &Notify, request: &[u8]) -> Result<Answer, Over> {
        let mut sent = 0;
        let mut deadline = Instant::now() + self.job.limit.unwrap_or(FAR);
        loop {
            tokio::select! {
                biased;
                () = stop.notified() => return Err(Over::Stopped),
                ended = &mut worker.exit => return Err(Over::Lost(ended.ok())),
                () = sleep_until(deadline) => {
                    if self.expired {
                        return Err(Over::TimedOut);
                    }
                    self.expired = true;
                    worker.signal(Signal::INT);
                    deadline = Instant::now() + GRACE;
                }
                answer = exchange(&mut worker.channel, &mut worker.answers, request, &mut sent) => match answer {
                    Ok(Some(answer)) if answer.job == self.number && answer.kind != Kind::Ready => return Ok(answer),
                    // Of no job of ours: the code found the channel. It can say nothing here that matters.
                    Ok(_) => {}
                    Err(worker::Broken) => return Err(Over::Lost(None)),
                },
                out = read(&mut worker.out) => match out {
                    Ok(bytes) => self.job.listener.output(Stream::Out, &bytes).await,
                    Err(_) => return Err(Over::Lost(None)),
                },
                err = read(&mut worker.err) => match err {
                    Ok(bytes) => self.job.listener.output(Stream::Err, &bytes).await,
                    Err(_) => return Err(Over::Lost(None)),
                },
            }
        }
    }

    /// What was printed before the end. Whoever goes on printing after it is not listened to.
    async fn rest_of_output(&mut self, worker: &mut Worker) {
        for stream in [Stream::Out, Stream::Err] {
            let pipe = if stream == Stream::Out { &mut worker.out } else { &mut worker.err };
            let bytes = waiting(&*pipe);
            let bytes = read_waiting(pipe, bytes).await;
            self.job.listener.output(stream, &bytes).await;
        }
        self.job.listener.output_ended().await;
    }

    async fn finish_lost(&mut self, worker: &mut Worker, over: Over) {
        match over {
            Over::Stopped => self.job.listener.finish(code::AWAY, "context shutdown"),
            Over::TimedOut => self.job.listener.finish(TIMEOUT_CODE, ""),
            Over::Lost(_) if self.expired => self.job.listener.finish(TIMEOUT_CODE, ""),
            Over::Lost(exit) => {
                self.rest_of_output(worker).await;
                // The channel closes a moment before the end can be seen.
                let exit = match exit {
                    None => timeout(END_WAIT, &mut worker.exit).await.ok().and_then(Result::ok),
                    known => known,
                };
                // Some clients take this close code for success, so that they are told in words as well.
                let how = match exit {
                    Some(Exit::Code(code)) => format!("the interpreter ended with exit code {code}"),
                    Some(Exit::Signal { number, .. }) => format!("the interpreter was killed by signal {number}"),
                    None => "the interpreter cannot be reached any more and was ended".to_owned(),
                };
                self.job.listener.error("WorkerProcessEnded", &how, &format!("WorkerProcessEnded: {how}")).await;
                self.job.listener.finish(code::AWAY, "worker process ended");
            }
        }
    }
}

/// Sends what is left of the request; once that is done, reads an answer. Cancel safe.
async fn exchange(
    channel: &mut UnixStream,
    answers: &mut wire::Answers,
    request: &[u8],
    sent: &mut usize,
) -> Result<Option<Answer>, worker::Broken> {
    if *sent < request.len() {
        *sent += channel.write(&request[*sent..]).await.map_err(|_| worker::Broken)?;
        return Ok(None);
    }
    next_answer(channel, answers).await.map(Some)
}
