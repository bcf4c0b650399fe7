//! A runner that keeps state and fails on demand: not a mock, the verbs have their effects.

use infield_api::{SandboxId, runner::*};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io::{Read, Write},
    os::fd::OwnedFd,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    time::Duration,
};

/// What goes wrong with the next calls of a verb.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// The verb fails without an effect.
    Fail(RunnerErrorKind, &'static str),
    /// The effect happens, the answer is lost.
    LoseAnswer,
    /// The effect comes after this long.
    Slow(Duration),
    /// The effect comes at once, the answer after this long.
    SlowAnswer(Duration),
}

#[derive(Default)]
pub struct Host {
    pub sandboxes: BTreeMap<SandboxId, (SandboxSpec, ObservedState)>,
    /// What was written into each sandbox, and what is in images made of them.
    pub files: BTreeMap<SandboxId, Vec<u64>>,
    pub image_files: HashMap<String, Vec<u64>>,
    pub images: Vec<ImageInfo>,
    pub troubles: HashMap<&'static str, VecDeque<Trouble>>,
    /// No verb is answered: the runner is restarting.
    pub down: bool,
    pub calls: Vec<(&'static str, Option<SandboxId>)>,
}

#[derive(Clone, Default)]
pub struct Sim(pub Arc<Mutex<Host>>);

pub fn image(reference: &str, user: Option<&str>) -> ImageInfo {
    ImageInfo {
        id: format!("sha256:{:0>64}", reference.len()),
        references: vec![reference.to_owned()],
        pulled: vec![],
        size_bytes: 1 << 29,
        created_at_ms: 0,
        entrypoint: vec![],
        env: vec![],
        workdir: None,
        user: user.map(str::to_owned),
    }
}

impl Sim {
    pub fn new() -> Self {
        let sim = Self::default();
        sim.host().images.push(image("infield/base:1", Some("daytona")));
        sim
    }

    pub fn host(&self) -> std::sync::MutexGuard<'_, Host> {
        self.0.lock().unwrap()
    }

    pub fn trouble(&self, verb: &'static str, trouble: Trouble) {
        self.host().troubles.entry(verb).or_default().push_back(trouble);
    }

    pub fn observed(&self, id: SandboxId) -> Option<ObservedState> {
        self.host().sandboxes.get(&id).map(|(_, state)| state.clone())
    }

    pub fn count(&self, verb: &str) -> usize {
        self.host().calls.iter().filter(|(called, _)| *called == verb).count()
    }

    fn verb<T: Send + 'static>(
        &self,
        verb: &'static str,
        id: Option<SandboxId>,
        effect: impl FnOnce(&mut Host) -> Result<T, RunnerError> + Send + 'static,
    ) -> RunnerFuture<'_, T> {
        Box::pin(async move {
            let trouble = {
                let mut host = self.host();
                host.calls.push((verb, id));
                if host.down {
                    return Err(RunnerError::new(RunnerErrorKind::Unavailable, "the runner is restarting"));
                }
                host.troubles.get_mut(verb).and_then(VecDeque::pop_front)
            };
            match trouble {
                Some(Trouble::Fail(kind, message)) => return Err(RunnerError::new(kind, message)),
                Some(Trouble::Slow(time)) => tokio::time::sleep(time).await,
                Some(Trouble::LoseAnswer) => {
                    effect(&mut self.host())?;
                    return Err(RunnerError::new(RunnerErrorKind::Unavailable, "the connection broke"));
                }
                Some(Trouble::SlowAnswer(time)) => {
                    let answer = effect(&mut self.host());
                    tokio::time::sleep(time).await;
                    return answer;
                }
                None => {}
            }
            effect(&mut self.host())
        })
    }
}

impl Host {
    fn turn(&mut self, id: SandboxId, from: &[ObservedState], to: ObservedState) -> Result<(), RunnerError> {
        let state = &mut self.sandboxes.get_mut(&id).ok_or_else(|| missing(id))?.1;
        if *state != to && !from.contains(state) {
            return Err(conflict(id, state));
        }
        *state = to;
        Ok(())
    }
}

fn conflict(id: SandboxId, state: &ObservedState) -> RunnerError {
    RunnerError::new(RunnerErrorKind::Conflict, format!("sandbox {id} is {state:?}"))
}

fn missing(id: SandboxId) -> RunnerError {
    RunnerError::new(RunnerErrorKind::NotFound, format!("no sandbox {id} on this host"))
}

fn running() -> Running {
    let phases = vec![Phase { name: "rootfs".to_owned(), duration_us: 300 }];
    Running { ip: None, agent_version: "0.1.0".to_owned(), phases }
}

fn observed((id, (_, state)): (&SandboxId, &(SandboxSpec, ObservedState))) -> Observed {
    Observed { id: *id, state: state.clone(), ip: None, pid: None }
}

impl Runner for Sim {
    fn create(&self, spec: SandboxSpec) -> RunnerFuture<'_, Running> {
        self.verb("create", Some(spec.id), move |host| {
            if let Some(existing) = host.sandboxes.get_mut(&spec.id) {
                existing.1 = ObservedState::Running;
                return Ok(running());
            }
            let names = |i: &ImageInfo, wanted: &str| i.references.iter().chain(&i.pulled).any(|name| name == wanted);
            let Some(image) = host.images.iter().find(|i| i.id == spec.image || names(i, &spec.image)) else {
                return Err(RunnerError::new(RunnerErrorKind::Invalid, format!("no image {}", spec.image)));
            };
            let files = host.image_files.get(&image.id).cloned().unwrap_or_default();
            host.files.insert(spec.id, files);
            host.sandboxes.insert(spec.id, (spec, ObservedState::Running));
            Ok(running())
        })
    }
    fn start(&self, spec: SandboxSpec) -> RunnerFuture<'_, Running> {
        self.verb("start", Some(spec.id), move |host| {
            let entry = host.sandboxes.get_mut(&spec.id).ok_or_else(|| missing(spec.id))?;
            *entry = (spec, ObservedState::Running);
            Ok(running())
        })
    }
    fn stop(&self, id: SandboxId, _force: bool) -> RunnerFuture<'_, ()> {
        self.verb("stop", Some(id), move |host| {
            let state = &mut host.sandboxes.get_mut(&id).ok_or_else(|| missing(id))?.1;
            if *state != ObservedState::Archived {
                *state = ObservedState::Stopped;
            }
            Ok(())
        })
    }
    fn destroy(&self, id: SandboxId) -> RunnerFuture<'_, ()> {
        self.verb("destroy", Some(id), move |host| {
            host.sandboxes.remove(&id);
            host.files.remove(&id);
            Ok(())
        })
    }
    fn pause(&self, id: SandboxId) -> RunnerFuture<'_, ()> {
        self.verb("pause", Some(id), move |host| host.turn(id, &[ObservedState::Running], ObservedState::Paused))
    }
    fn resume(&self, id: SandboxId) -> RunnerFuture<'_, ()> {
        self.verb("resume", Some(id), move |host| host.turn(id, &[ObservedState::Paused], ObservedState::Running))
    }
    fn archive(&self, id: SandboxId) -> RunnerFuture<'_, ()> {
        self.verb("archive", Some(id), move |host| host.turn(id, &[ObservedState::Stopped], ObservedState::Archived))
    }
    fn resize(&self, spec: SandboxSpec) -> RunnerFuture<'_, ()> {
        self.verb("resize", Some(spec.id), move |host| {
            let entry = host.sandboxes.get_mut(&spec.id).ok_or_else(|| missing(spec.id))?;
            entry.0 = spec;
            Ok(())
        })
    }
    fn fork(&self, source: SandboxId, spec: SandboxSpec) -> RunnerFuture<'_, Running> {
        self.verb("fork", Some(source), move |host| {
            let (_, state) = host.sandboxes.get(&source).ok_or_else(|| missing(source))?;
            if !matches!(state, ObservedState::Running) {
                return Err(conflict(source, state));
            }
            if !host.sandboxes.contains_key(&spec.id) {
                let files = host.files.get(&source).cloned().unwrap_or_default();
                host.files.insert(spec.id, files);
                host.sandboxes.insert(spec.id, (spec, ObservedState::Running));
            }
            Ok(running())
        })
    }
    fn snapshot(&self, id: SandboxId, reference: String) -> RunnerFuture<'_, ImageInfo> {
        self.verb("snapshot", Some(id), move |host| {
            host.sandboxes.get(&id).ok_or_else(|| missing(id))?;
            if let Some(made) = host.images.iter().find(|image| image.pulled.contains(&reference)) {
                return Ok(made.clone());
            }
            let files = host.files.get(&id).cloned().unwrap_or_default();
            let made =
                ImageInfo { id: format!("sha256:{reference}"), references: vec![], ..image("s", Some("daytona")) };
            let made = ImageInfo { pulled: vec![reference], ..made };
            host.image_files.insert(made.id.clone(), files);
            host.images.push(made.clone());
            Ok(made)
        })
    }
    fn inspect(&self, id: SandboxId) -> RunnerFuture<'_, Observed> {
        self.verb("inspect", Some(id), move |host| {
            host.sandboxes.get_key_value(&id).map(observed).ok_or_else(|| missing(id))
        })
    }
    fn list(&self) -> RunnerFuture<'_, Vec<Observed>> {
        self.verb("list", None, |host| Ok(host.sandboxes.iter().map(observed).collect()))
    }
    fn stats(&self, id: SandboxId) -> RunnerFuture<'_, Stats> {
        self.verb("stats", Some(id), |_| Ok(Stats::default()))
    }
    fn connect(&self, id: SandboxId) -> RunnerFuture<'_, AgentStream> {
        self.verb("connect", Some(id), move |host| {
            host.sandboxes.get(&id).ok_or_else(|| missing(id))?;
            let (ours, theirs) = UnixStream::pair().unwrap();
            std::thread::spawn(move || agent(theirs));
            Ok(OwnedFd::from(ours))
        })
    }
    fn create_volume(&self, _: String, _: u64) -> RunnerFuture<'_, ()> {
        self.verb("create_volume", None, |_| Ok(()))
    }
    fn remove_volume(&self, _: String) -> RunnerFuture<'_, ()> {
        self.verb("remove_volume", None, |_| Ok(()))
    }
    fn makes_snapshots(&self) -> bool {
        true
    }
    fn images(&self) -> RunnerFuture<'_, Vec<ImageInfo>> {
        self.verb("images", None, |host| Ok(host.images.clone()))
    }
    fn pull_image(&self, pull: PullImage) -> RunnerFuture<'_, ImageInfo> {
        self.verb("pull_image", None, move |host| {
            let mut made = image(&pull.reference, None);
            made.pulled = std::mem::take(&mut made.references);
            host.images.push(made.clone());
            Ok(made)
        })
    }
    fn release_image(&self, reference: String) -> RunnerFuture<'_, ()> {
        self.verb("release_image", None, move |host| {
            host.images.retain(|image| !image.pulled.contains(&reference));
            Ok(())
        })
    }
}

/// An agent that answers one request: exec echoes the command; clone refuses one repository.
fn agent(mut stream: UnixStream) {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    let (path, body) = loop {
        let n = stream.read(&mut chunk).unwrap();
        request.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length: usize = head
            .lines()
            .find_map(|l| l.to_lowercase().strip_prefix("content-length: ").map(|n| n.parse().unwrap()))
            .unwrap_or(0);
        if body.len() >= length {
            break (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned());
        }
    };
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let (status, answer) = match path.as_str() {
        "/process/execute" => ("200 OK", serde_json::json!({"exitCode": 3, "result": body["command"]})),
        "/git/clone" if body["url"].as_str().unwrap().contains("private") => {
            ("401 Unauthorized", serde_json::json!({"message": "repository needs credentials"}))
        }
        _ => ("200 OK", serde_json::json!({})),
    };
    let answer = answer.to_string();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
    let _ = stream.write_all(format!("{head}{answer}").as_bytes());
}
