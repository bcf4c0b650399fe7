//! One client: who it is, its channels, and what it asks on them. Decides nothing about sandboxes; what takes time happens in
//! tasks of the channels, because whatever waits here holds up the whole connection.

use super::{Shared, agent::Agent, command, forward, guarded::Admitted, inbox::Inbox, seats::Seat, terminal, token};
use crate::activity::Open;
use infield_api::{SandboxId, directory::Credential, directory::DirectoryError};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Disconnect, Pty, Sig,
    server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

/// Signals that wait for their command.
const SIGNALS_MAX: usize = 8;
const VARIABLES_MAX: usize = 64;
const VARIABLE_BYTES_MAX: usize = 32 << 10;
/// On one connection, one after the other: the library keeps a few KiB of each that is closed from this side first. Clients
/// that share a connection open another one when this one takes no more.
const CHANNELS_IN_ALL_MAX: usize = 20_000;
const COMMAND_BYTES_MAX: usize = 256 << 10;
/// As much as a client that is behind may still send at a time.
const TRICKLE_WINDOW_BYTES: u32 = 2;
const TRICKLE_PAUSE: Duration = Duration::from_millis(5);

pub type Output = Arc<ChannelWriteHalf<Msg>>;

/// A terminal's size in characters.
pub type Size = (u32, u32);

pub struct Connection {
    shared: Arc<Shared>,
    admitted: Admitted,
    user: String,
    guest: Option<Guest>,
    channels: HashMap<ChannelId, Line>,
    /// Channels there ever were.
    opened: usize,
}

/// Who was let in.
struct Guest {
    sandbox: SandboxId,
    _seat: Seat,
}

/// One channel.
struct Line {
    output: Output,
    inbox: Arc<Inbox>,
    signals: mpsc::Sender<String>,
    size: watch::Sender<Size>,
    /// What a session channel still waits for; taken when something is started on it.
    wish: Option<Wish>,
    task: Option<AbortHandle>,
}

/// What is to be started, as far as it is known.
pub struct Wish {
    pub variables: BTreeMap<String, String>,
    /// The name of its kind, when a terminal is wanted.
    pub terminal: Option<String>,
    pub signals: mpsc::Receiver<String>,
    pub size: watch::Receiver<Size>,
}

/// What is to run.
pub enum What {
    Shell,
    Command(String),
    Sftp,
}

impl Line {
    /// Does the channel's work beside the connection's. The sandbox is in use as long as that takes.
    fn work(&mut self, open: Open, work: impl Future<Output = ()> + Send + 'static) {
        let inbox = self.inbox.clone();
        let task = tokio::spawn(async move {
            let _open = open;
            work.await;
            inbox.close();
        });
        self.task = Some(task.abort_handle());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Connection {
    pub fn new(shared: Arc<Shared>, admitted: Admitted) -> Self {
        Self { shared, admitted, user: String::new(), guest: None, channels: HashMap::new(), opened: 0 }
    }

    /// Everybody is let in, and whoever brought no good token is told so: a refusal before could not say why.
    fn anybody(&mut self, user: &str) -> Auth {
        user.clone_into(&mut self.user);
        Auth::Accept
    }

    async fn judge(&mut self) -> Result<Guest, String> {
        let token = token::token_of(&self.user).ok_or_else(unknown)?;
        let target = match self.shared.directory.resolve(token, Credential::Ssh).await {
            Ok(target) => target,
            Err(DirectoryError::Unavailable(_)) => return Err("the server cannot look up tokens now".to_owned()),
            Err(_) => return Err(unknown()),
        };
        if !target.running {
            return Err(format!("sandbox {} is {}; start it first", target.sandbox, target.state));
        }
        let busy = || "too many SSH connections with this token; close one first".to_owned();
        let seat = self.shared.seats.take(token).ok_or_else(busy)?;
        Ok(Guest { sandbox: target.sandbox, _seat: seat })
    }

    fn agent(&self) -> Option<Agent> {
        let guest = self.guest.as_ref()?;
        Some(Agent { runner: self.shared.runner.clone(), sandbox: guest.sandbox })
    }

    /// Takes a new channel in; `None` when there is no room for it.
    fn take_in(&mut self, channel: Channel<Msg>) -> Option<ChannelId> {
        self.guest.as_ref()?;
        // Of a channel that is closed from this side first, the library says nothing more.
        self.channels.retain(|_, line| !line.task.as_ref().is_some_and(AbortHandle::is_finished));
        if self.channels.len() >= self.shared.config.channels_max || self.opened >= CHANNELS_IN_ALL_MAX {
            return None;
        }
        self.opened += 1;
        let id = channel.id();
        // What arrives comes by `data`, which never waits.
        let (_, output) = channel.split();
        let (signals, signals_seen) = mpsc::channel(SIGNALS_MAX);
        let (size, size_seen) = watch::channel((80, 24));
        let wish = Wish { variables: BTreeMap::new(), terminal: None, signals: signals_seen, size: size_seen };
        let line =
            Line { output: Arc::new(output), inbox: Arc::default(), signals, size, wish: Some(wish), task: None };
        self.channels.insert(id, line);
        Some(id)
    }

    /// Starts something on a session channel; each runs one thing only.
    fn start(&mut self, id: ChannelId, what: What, session: &mut Session) -> Result<(), russh::Error> {
        let agent = self.agent();
        let line = self.channels.get_mut(&id);
        let (Some(agent), Some(line)) = (agent, line) else { return session.channel_failure(id) };
        let Some(wish) = line.wish.take() else { return session.channel_failure(id) };
        let (output, inbox) = (line.output.clone(), line.inbox.clone());
        session.channel_success(id)?;
        let open = self.shared.activity.begin(agent.sandbox);
        match &wish.terminal {
            Some(_) if !matches!(what, What::Sftp) => line.work(open, terminal::run(agent, wish, what, output, inbox)),
            _ => line.work(open, command::run(agent, wish, what, output, inbox)),
        }
        Ok(())
    }

    fn waiting(&mut self, id: ChannelId) -> Option<&mut Wish> {
        self.channels.get_mut(&id)?.wish.as_mut()
    }
}

fn unknown() -> String {
    "this token is unknown or expired; the user name is the token of an SSH access, which the API creates".to_owned()
}

/// Variables that a client may set: what it is to look like and where it comes from, nothing that programs are loaded by.
fn may_be_set(name: &str) -> bool {
    let word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let loads = ["LD_", "BASH", "PYTHON", "PERL", "NODE_", "RUBY"].iter().any(|prefix| name.starts_with(prefix));
    let shell =
        ["PATH", "IFS", "ENV", "HOME", "USER", "LOGNAME", "SHELL", "SHLVL", "PWD", "INFIELD_TAG"].contains(&name);
    word && !loads && !shell
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        Ok(self.anybody(user))
    }

    async fn auth_password(&mut self, user: &str, _: &str) -> Result<Auth, Self::Error> {
        Ok(self.anybody(user))
    }

    async fn auth_publickey_offered(&mut self, _: &str, _: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_publickey(&mut self, user: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.anybody(user))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        _: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.anybody(user))
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        match self.judge().await {
            Ok(guest) => {
                self.admitted.store(true, Ordering::Relaxed);
                self.guest = Some(guest);
                Ok(())
            }
            Err(why) => session.disconnect(Disconnect::ByApplication, &why, ""),
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.take_in(channel) {
            Some(_) => reply.accept().await,
            None => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(port) = forward::port_of(host, port) else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        let agent = self.agent();
        let line = self.take_in(channel).and_then(|id| self.channels.get_mut(&id));
        let (Some(agent), Some(line)) = (agent, line) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        line.wish = None;
        let open = self.shared.activity.begin(agent.sandbox);
        line.work(open, forward::run(agent, port, reply, line.output.clone(), line.inbox.clone()));
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        let Some(line) = self.channels.get(&id) else { return Ok(()) };
        if line.inbox.push(data).is_err() {
            return session.disconnect(Disconnect::ByApplication, "more data than was asked for", "");
        }
        if line.inbox.is_behind() && data.len() <= TRICKLE_WINDOW_BYTES as usize {
            tokio::time::sleep(TRICKLE_PAUSE).await;
        }
        Ok(())
    }

    /// Asked after a client was granted more, how far it shall be granted to the next time.
    fn adjust_window(&mut self, id: ChannelId, _: u32) -> u32 {
        let behind = self.channels.get(&id).is_some_and(|line| line.inbox.is_behind());
        if behind { TRICKLE_WINDOW_BYTES } else { super::WINDOW_BYTES }
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(line) = self.channels.get(&id) {
            line.inbox.end();
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(wish) = self.waiting(id) else { return session.channel_failure(id) };
        wish.terminal = Some(term.chars().filter(char::is_ascii_graphic).take(64).collect());
        if let Some(line) = self.channels.get(&id) {
            line.size.send_replace((columns, rows));
        }
        session.channel_success(id)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(line) = self.channels.get(&id) {
            line.size.send_replace((columns, rows));
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(wish) = self.waiting(id) else { return session.channel_failure(id) };
        let held: usize = wish.variables.iter().map(|(name, value)| name.len() + value.len()).sum();
        let room = wish.variables.len() < VARIABLES_MAX && held + name.len() + value.len() <= VARIABLE_BYTES_MAX;
        if !room || !may_be_set(name) || value.contains('\0') {
            return session.channel_failure(id);
        }
        wish.variables.insert(name.to_owned(), value.to_owned());
        session.channel_success(id)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.start(id, What::Shell, session)
    }

    async fn exec_request(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        match std::str::from_utf8(data) {
            Ok(command) if !command.trim().is_empty() && data.len() <= COMMAND_BYTES_MAX && !data.contains(&0) => {
                self.start(id, What::Command(command.to_owned()), session)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        match name {
            "sftp" => self.start(id, What::Sftp, session),
            _ => session.channel_failure(id),
        }
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(line) = self.channels.get(&id)
            && let Some(name) = signal_name(&signal)
        {
            // A command that has so many waiting does not miss one.
            let _ = line.signals.try_send(name.to_owned());
        }
        Ok(())
    }

    async fn agent_request(&mut self, id: ChannelId, session: &mut Session) -> Result<bool, Self::Error> {
        session.channel_failure(id)?;
        Ok(false)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}

fn signal_name(signal: &Sig) -> Option<&'static str> {
    Some(match signal {
        Sig::HUP => "HUP",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::QUIT => "QUIT",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        for name in ["LANG", "LC_ALL", "GIT_PROTOCOL", "EDITOR", "COLORTERM", "MY_VAR"] {
            assert!(may_be_set(name), "{name}");
        }
        for name in ["", "PATH", "LD_PRELOAD", "BASH_ENV", "A B", "A=B", "HOME", "NODE_OPTIONS", "é"] {
            assert!(!may_be_set(name), "{name}");
        }
    }
}
