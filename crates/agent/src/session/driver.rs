//! The task that owns a session's shell: gives it one command after the other and brings their outputs home. It ends when the
//! shell does; the session stays, for its logs, until somebody deletes it.

use super::command::{Command, Pump};
use super::control::Answers;
use super::frames::{self, Stream};
use super::shell::Channels;
use super::table::Session;
use crate::children::Exit;
use crate::error::reason;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

/// How long the output of processes that outlive their shell delays the exit code.
const DRAIN: Duration = Duration::from_secs(5);
/// For a shell that cannot be told what to do any more.
const BROKEN_CODE: i32 = -1;
const ANSWER_BYTES: usize = 256;

pub async fn drive(
    session: Arc<Session>,
    mut channels: Channels,
    mut exit: oneshot::Receiver<Exit>,
    mut jobs: mpsc::UnboundedReceiver<Arc<Command>>,
) {
    let mut answers = Answers::default();
    let code = loop {
        let job = tokio::select! {
            job = jobs.recv() => job,
            code = &mut exit => break code_of(code),
        };
        let Some(job) = job else { break BROKEN_CODE };
        match run(&session, &mut channels, &mut answers, &mut exit, &job).await {
            Ok(()) => {}
            Err(code) => break code,
        }
    };
    session.shell_ended(code);
    jobs.close();
    while let Some(job) = jobs.recv().await {
        job.skip(code).await;
    }
}

fn code_of(exit: Result<Exit, oneshot::error::RecvError>) -> i32 {
    exit.map_or(BROKEN_CODE, Exit::code)
}

/// Runs one command to the end of its output. An error is the code of a shell that has ended meanwhile.
async fn run(
    session: &Arc<Session>,
    channels: &mut Channels,
    answers: &mut Answers,
    exit: &mut oneshot::Receiver<Exit>,
    job: &Arc<Command>,
) -> Result<(), i32> {
    let nonce = Uuid::new_v4().simple().to_string();
    let (out, err, guards) = match channels.prepare(&job.text) {
        Ok(ready) => ready,
        Err(e) => return refuse(job, &e).await,
    };
    let line = channels.dialect.line(&nonce, job.open_input);
    if let Err(e) = channels.script.write_all(line.as_bytes()).await {
        // The usual reason is that the shell has just ended; then its own code is the answer.
        drop(guards);
        return match exit.try_recv() {
            Ok(exit) => shell_gone(job, Pump::new(out, err), exit.code()).await,
            Err(_) => refuse(job, &e).await,
        };
    }
    session.now_running(Some(job)).await;
    job.begins();
    let mut pump = Pump::new(out, err);
    let mut guards = Some(guards);
    let mut listening = true;
    while guards.is_some() || pump.is_open() {
        tokio::select! {
            at = pump.ready() => pump.take(at, job).await,
            code = answer(&channels.control, answers, &nonce), if listening && guards.is_some() => match code {
                Ok(Some(code)) => {
                    job.ended(code);
                    guards = None;
                }
                Ok(None) => {}
                Err(_) => listening = false,
            },
            code = &mut *exit => {
                let code = code_of(code);
                job.ended(code);
                session.now_running(None).await;
                drop(guards);
                return shell_gone(job, pump, code).await;
            }
        }
    }
    session.now_running(None).await;
    channels.tidy();
    job.done();
    Ok(())
}

/// What the shell says, if it is the answer that is waited for.
async fn answer(control: &UnixStream, answers: &mut Answers, nonce: &str) -> io::Result<Option<i32>> {
    control.readable().await?;
    let mut bytes = [0; ANSWER_BYTES];
    match control.try_read(&mut bytes) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(answers.push(&bytes[..n], nonce)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// The shell has ended: with `exit`, by a signal, or by becoming another program that has ended. Its code is the command's.
/// Output of processes it has left behind is read as long as there are any, but waited for only shortly.
async fn shell_gone(job: &Arc<Command>, mut pump: Pump, code: i32) -> Result<(), i32> {
    job.ended(code);
    let deadline = Instant::now() + DRAIN;
    while pump.is_open() {
        tokio::select! {
            at = pump.ready() => pump.take(at, job).await,
            () = sleep_until(deadline) => break,
        }
    }
    job.done();
    if pump.is_open() {
        let job = job.clone();
        tokio::spawn(async move {
            while pump.is_open() {
                let at = pump.ready().await;
                pump.take(at, &job).await;
            }
        });
    }
    Err(code)
}

/// The command cannot be handed over; the session is of no use any more.
async fn refuse(job: &Arc<Command>, e: &io::Error) -> Result<(), i32> {
    let mut frames = Vec::new();
    let text = format!("[the sandbox could not run this command: {}]\n", reason(e));
    frames::write(Stream::Err, text.as_bytes(), &mut frames);
    job.append(frames).await;
    job.ended(BROKEN_CODE);
    job.done();
    Err(BROKEN_CODE)
}
