//! One language server: a program of the image under the limits for commands, and the conversation with it. It dies when it
//! is told to stop and when it stops speaking its protocol. However it ends, nothing that it has started outlives it.

use super::answers;
use super::gather;
use super::language::Language;
use super::place::uri_of;
use super::rpc::{CallError, Conversation};
use crate::children::Exit;
use crate::execute::c_string;
use crate::family::{self, Family};
use crate::launch::{Child, Input, Launch, launch, signal_group};
use crate::small_file;
use crate::state::Shared;
use infield_api::toolbox::{CompletionContext, CompletionList, LspPosition, LspSymbol};
use rustix::process::Signal;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::timeout;

/// From the start of the program to its first answer; large images are slow the first time.
const INITIALIZE_SECONDS_MAX: u64 = 60;
const ANSWER_SECONDS_MAX: u64 = 30;
/// All questions about one project together.
const GATHER_SECONDS_MAX: u64 = 40;
/// What a server gets to tidy up.
const SHUTDOWN_SECONDS_MAX: u64 = 2;
/// A killed server that does not end (a process stuck in the kernel) is left behind after this.
const KILL_SECONDS_MAX: u64 = 5;
pub const DOCUMENT_BYTES_MAX: u64 = 2 << 20;
const OPEN_DOCUMENTS_MAX: usize = 1000;
/// The end of what a server printed to its standard error.
const LAST_WORDS_BYTES_MAX: usize = 2 << 10;
/// How long the last words are waited for once the server has ended.
const LAST_WORDS_MILLISECONDS_MAX: u64 = 300;

/// Why something could not be done, in the words for the caller.
#[derive(Debug)]
pub enum Trouble {
    /// The caller's, or the server's answer to it.
    Request(String),
    Timeout(String),
    /// The server is gone.
    Gone(String),
}

impl From<serde_json::Error> for Trouble {
    fn from(e: serde_json::Error) -> Self {
        Self::Request(format!("the language server's answer is not understood: {e}"))
    }
}

pub struct Server {
    language: Language,
    project: PathBuf,
    conversation: Arc<Conversation>,
    /// Documents that the caller opened.
    open: Mutex<BTreeSet<PathBuf>>,
    searches_project: bool,
    /// Becomes true when the process has been collected.
    ended: watch::Receiver<bool>,
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl Server {
    /// Starts the program and introduces the project to it.
    pub async fn start(agent: &Shared, language: Language, project: PathBuf) -> Result<Self, Trouble> {
        let (child, family) = start_process(agent, language).await?;
        let (Some(input), Some(err)) = (child.input, child.err) else {
            return Err(Trouble::Gone("the language server has no standard input".to_owned()));
        };
        let conversation = Arc::new(Conversation::start(child.out, input));
        let (tell_ended, ended) = watch::channel(false);
        let process = Process { agent: agent.clone(), pid: child.pid, exit: child.exit, family };
        tokio::spawn(supervise(process, err, conversation.clone(), tell_ended));
        let mut server =
            Self { language, project, conversation, open: Mutex::default(), searches_project: false, ended };
        match server.initialize().await {
            Ok(searches_project) => {
                server.searches_project = searches_project;
                Ok(server)
            }
            Err(trouble) => {
                server.kill("the language server was not usable").await;
                Err(trouble)
            }
        }
    }

    /// Whether it offers workspace symbols.
    async fn initialize(&self) -> Result<bool, Trouble> {
        let uri = uri_of(&self.project);
        let params = json!({
            "processId": std::process::id(),
            "clientInfo": {"name": "infield-agent", "version": env!("CARGO_PKG_VERSION")},
            "rootUri": uri,
            "rootPath": self.project.to_string_lossy(),
            "workspaceFolders": [{"uri": uri, "name": "project"}],
            "capabilities": {
                "textDocument": {
                    "completion": {"completionItem": {"snippetSupport": false}, "contextSupport": true},
                    "documentSymbol": {"hierarchicalDocumentSymbolSupport": false},
                },
                "workspace": {"symbol": {}, "workspaceFolders": false},
            },
        });
        let limit = seconds(INITIALIZE_SECONDS_MAX);
        let answer = self.call("initialize", params, limit).await?;
        self.notify("initialized", json!({})).await?;
        let answer: Value = serde_json::from_str(answer.get())?;
        let offered = &answer["capabilities"]["workspaceSymbolProvider"];
        Ok(offered.is_object() || offered == &Value::Bool(true))
    }

    async fn call(&self, method: &'static str, params: Value, limit: Duration) -> Result<Box<RawValue>, Trouble> {
        match self.conversation.call(method, params, limit).await {
            Ok(answer) => Ok(answer),
            Err(e) => Err(self.trouble(e).await),
        }
    }

    async fn notify(&self, method: &'static str, params: Value) -> Result<(), Trouble> {
        match self.conversation.notify(method, params, seconds(ANSWER_SECONDS_MAX)).await {
            Ok(()) => Ok(()),
            Err(e) => Err(self.trouble(e).await),
        }
    }

    /// Of a server that ended, its last words are waited for.
    async fn trouble(&self, e: CallError) -> Trouble {
        match e {
            CallError::Refused { .. } => Trouble::Request(e.to_string()),
            CallError::Silent { .. } => Trouble::Timeout(e.to_string()),
            CallError::Over(why) => {
                let mut ended = self.ended.clone();
                let _ = timeout(seconds(KILL_SECONDS_MAX), ended.wait_for(|e| *e)).await;
                Trouble::Gone(self.over().unwrap_or(why))
            }
        }
    }

    /// Why it is gone, if it is.
    pub fn over(&self) -> Option<String> {
        self.conversation.over()
    }

    fn documents(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the server the file's present content. A file already open is opened anew.
    pub async fn open(&self, path: &Path) -> Result<(), Trouble> {
        let known = self.documents().contains(path);
        if !known && self.documents().len() >= OPEN_DOCUMENTS_MAX {
            return Err(Trouble::Request(format!("{OPEN_DOCUMENTS_MAX} documents are open; close some first")));
        }
        let text = read_document(path).await?;
        if known {
            self.tell_closed(path).await?;
        }
        self.tell_open(path, text).await?;
        self.documents().insert(path.to_owned());
        Ok(())
    }

    pub async fn close(&self, path: &Path) -> Result<(), Trouble> {
        self.documents().remove(path);
        self.tell_closed(path).await
    }

    async fn tell_open(&self, path: &Path, text: String) -> Result<(), Trouble> {
        let id = self.language.document_id(path);
        let params = json!({"textDocument": {"uri": uri_of(path), "languageId": id, "version": 1, "text": text}});
        self.notify("textDocument/didOpen", params).await
    }

    async fn tell_closed(&self, path: &Path) -> Result<(), Trouble> {
        let params = json!({"textDocument": {"uri": uri_of(path)}});
        self.notify("textDocument/didClose", params).await
    }

    /// Asks about a document. Servers know open ones only, so others are open for as long as it takes.
    async fn ask(&self, method: &'static str, path: &Path, params: Value) -> Result<Box<RawValue>, Trouble> {
        let known = self.documents().contains(path);
        if !known {
            let text = read_document(path).await?;
            self.tell_open(path, text).await?;
        }
        let answer = self.call(method, params, seconds(ANSWER_SECONDS_MAX)).await;
        if !known && !self.documents().contains(path) {
            self.tell_closed(path).await?;
        }
        answer
    }

    pub async fn completions(
        &self,
        path: &Path,
        position: LspPosition,
        context: Option<CompletionContext>,
    ) -> Result<CompletionList, Trouble> {
        let mut params = json!({"textDocument": {"uri": uri_of(path)}, "position": position});
        if let Some(context) = context {
            params["context"] = json!(context);
        }
        let answer = self.ask("textDocument/completion", path, params).await?;
        Ok(answers::completions(&answer)?)
    }

    pub async fn document_symbols(&self, path: &Path) -> Result<Vec<LspSymbol>, Trouble> {
        let uri = uri_of(path);
        let params = json!({"textDocument": {"uri": uri}});
        let answer = self.ask("textDocument/documentSymbol", path, params).await?;
        Ok(answers::symbols(&answer, &uri)?)
    }

    /// The server's own search where it has one and can use it now, else what its documents hold.
    pub async fn workspace_symbols(&self, query: &str) -> Result<Vec<LspSymbol>, Trouble> {
        if self.searches_project {
            let params = json!({"query": query});
            match self.call("workspace/symbol", params, seconds(ANSWER_SECONDS_MAX)).await {
                Ok(answer) => return Ok(answers::symbols(&answer, "")?),
                // TypeScript's has no project before the first document.
                Err(Trouble::Request(_)) => {}
                Err(other) => return Err(other),
            }
        }
        self.gather(query).await
    }

    async fn gather(&self, query: &str) -> Result<Vec<LspSymbol>, Trouble> {
        let until = Instant::now() + seconds(GATHER_SECONDS_MAX);
        let (project, language, word) = (self.project.clone(), self.language, query.to_owned());
        let searching = tokio::task::spawn_blocking(move || gather::candidates(&project, language, &word));
        let mut files: Vec<PathBuf> = self.documents().iter().cloned().collect();
        for path in searching.await.unwrap_or_default() {
            if !files.contains(&path) {
                files.push(path);
            }
        }
        let wanted = query.to_lowercase();
        let mut found = Vec::new();
        for path in files {
            if Instant::now() > until || found.len() >= answers::SYMBOLS_MAX {
                break;
            }
            match self.document_symbols(&path).await {
                Ok(symbols) => {
                    found.extend(symbols.into_iter().filter(|s| s.name.to_lowercase().contains(&wanted)));
                }
                // One file that cannot be read or understood does not hide the others.
                Err(Trouble::Request(_)) => {}
                Err(other) => return Err(other),
            }
        }
        found.truncate(answers::SYMBOLS_MAX);
        Ok(found)
    }

    /// Lets it tidy up, then kills it and everything it started in its group; returns when it is gone.
    pub async fn stop(&self) {
        let _ = self.conversation.call("shutdown", Value::Null, seconds(SHUTDOWN_SECONDS_MAX)).await;
        self.kill("the language server was stopped").await;
    }

    async fn kill(&self, why: &str) {
        self.conversation.end(why);
        let mut ended = self.ended.clone();
        let _ = timeout(seconds(KILL_SECONDS_MAX), ended.wait_for(|e| *e)).await;
    }
}

async fn read_document(path: &Path) -> Result<String, Trouble> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || small_file::read(&owned, DOCUMENT_BYTES_MAX + 1)).await;
    let bytes = read
        .unwrap_or_else(|e| Err(io::Error::other(e)))
        .map_err(|e| Trouble::Request(format!("cannot read {}: {}", path.display(), crate::error::reason(&e))))?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        let shown = path.display();
        return Err(Trouble::Request(format!("{shown} is larger than {DOCUMENT_BYTES_MAX} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn start_process(agent: &Shared, language: Language) -> Result<(Child, Family), Trouble> {
    let vars = agent.env.snapshot();
    let command = language.command();
    let Some(program) = language.program(&vars) else {
        return Err(Trouble::Gone(format!(
            "{} is not installed in this sandbox; install it with `{}` and start again",
            command[0],
            language.install_hint()
        )));
    };
    let (tag, words) = family::tagged(&vars);
    let what = Launch {
        program: c_string(program.as_os_str().as_bytes()),
        argv: command.iter().map(|word| c_string(word.as_bytes())).collect(),
        env: words,
        cwd: None,
        input: Input::Open,
        split: true,
    };
    let child = launch(agent, what).await.map_err(|e| {
        let why = crate::error::reason(e.source());
        Trouble::Gone(format!("cannot start {}: {why}", program.display()))
    })?;
    let family = Family::new(child.pid, tag);
    Ok((child, family))
}

struct Process {
    agent: Shared,
    pid: i32,
    exit: tokio::sync::oneshot::Receiver<Exit>,
    family: Family,
}

/// Owns the process: collects its last words and its end, and kills it when the conversation is over.
async fn supervise(process: Process, err: pipe::Receiver, conversation: Arc<Conversation>, ended: watch::Sender<bool>) {
    let Process { agent, pid, mut exit, family } = process;
    let words = Arc::new(Mutex::new(Vec::new()));
    let mut listening = tokio::spawn(listen(err, words.clone()));
    let mut over = conversation.ending();
    let mut status = tokio::select! {
        status = &mut exit => Some(status),
        () = async { drop(over.wait_for(|over| *over).await) } => None,
    };
    if status.is_none() {
        // A program that ends closes its streams a moment before it can be collected; that end says more.
        let grace = if conversation.is_unexplained() { LAST_WORDS_MILLISECONDS_MAX } else { 0 };
        status = timeout(Duration::from_millis(grace), &mut exit).await.ok();
    }
    if status.is_none() {
        signal_group(pid, Signal::KILL);
        status = timeout(seconds(KILL_SECONDS_MAX), &mut exit).await.ok();
    }
    family.kill(&agent).await;
    if timeout(Duration::from_millis(LAST_WORDS_MILLISECONDS_MAX), &mut listening).await.is_err() {
        listening.abort();
    }
    let code = status.and_then(Result::ok).map_or(-1, Exit::code);
    let said = words.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let said = if said.is_empty() { said } else { format!(": {said}") };
    conversation.explain(format!("the language server ended with code {code}{said}"));
    ended.send_replace(true);
}

/// Reads to the end and keeps the last of it.
async fn listen(mut err: pipe::Receiver, words: Arc<Mutex<Vec<u8>>>) {
    let mut piece = [0; 1024];
    while let Ok(read @ 1..) = err.read(&mut piece).await {
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        words.extend_from_slice(&piece[..read]);
        let surplus = words.len().saturating_sub(LAST_WORDS_BYTES_MAX);
        words.drain(..surplus);
    }
}
