//! The gateway against clients that want too much, with a sandbox whose agent never says a word.

use super::{inbox::ALL_BYTES, *};
use infield_api::{
    SandboxId,
    directory::{Credential, DirectoryError, DirectoryFuture, Target},
    runner::*,
};
use russh::{
    ChannelMsg, Error,
    client::{self, DisconnectReason, Handle},
    keys::PublicKeyOrCertificate,
};
use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Mutex, atomic::Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

const GOOD: &str = "0123456789abcdefghij0123456789ab";
const STOPPED: &str = "stopped0123456789abcdefghij01234";
const SOON: Duration = Duration::from_secs(30);

struct OneSandbox;

impl Directory for OneSandbox {
    fn resolve<'a>(&'a self, token: &'a str, credential: Credential<'a>) -> DirectoryFuture<'a, Target> {
        Box::pin(async move {
            assert!(matches!(credential, Credential::Ssh));
            let sandbox: SandboxId = "00000000-0000-4000-8000-000000000001".parse().unwrap();
            match token {
                GOOD => Ok(Target { sandbox, running: true, state: "started" }),
                STOPPED => Ok(Target { sandbox, running: false, state: "stopped" }),
                _ => Err(DirectoryError::Unauthorized),
            }
        })
    }

    fn session<'a>(&'a self, _: SandboxId, _: &'a str, _: u64) -> DirectoryFuture<'a, String> {
        Box::pin(async { Err(DirectoryError::Unauthorized) })
    }

    fn touch(&self, _: SandboxId) {}
}

/// Keeps the agents' sides open and does nothing with them.
#[derive(Default)]
struct Mute(Mutex<Vec<UnixStream>>);

fn unused<T>() -> RunnerFuture<'static, T> {
    Box::pin(async { Err(RunnerError::new(RunnerErrorKind::Unsupported, "not in this test")) })
}

impl Runner for Mute {
    fn create(&self, _: SandboxSpec) -> RunnerFuture<'_, Running> {
        unused()
    }
    fn start(&self, _: SandboxSpec) -> RunnerFuture<'_, Running> {
        unused()
    }
    fn stop(&self, _: SandboxId, _: bool) -> RunnerFuture<'_, ()> {
        unused()
    }
    fn destroy(&self, _: SandboxId) -> RunnerFuture<'_, ()> {
        unused()
    }
    fn inspect(&self, _: SandboxId) -> RunnerFuture<'_, Observed> {
        unused()
    }
    fn list(&self) -> RunnerFuture<'_, Vec<Observed>> {
        unused()
    }
    fn stats(&self, _: SandboxId) -> RunnerFuture<'_, Stats> {
        unused()
    }
    fn images(&self) -> RunnerFuture<'_, Vec<ImageInfo>> {
        unused()
    }
    fn pull_image(&self, _: PullImage) -> RunnerFuture<'_, ImageInfo> {
        unused()
    }
    fn release_image(&self, _: String) -> RunnerFuture<'_, ()> {
        unused()
    }
    fn connect(&self, _: SandboxId) -> RunnerFuture<'_, AgentStream> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.0.lock().unwrap().push(theirs);
        Box::pin(async move { Ok(OwnedFd::from(ours)) })
    }
}

async fn gateway(name: &str, config: SshConfig) -> SocketAddr {
    let path = std::env::temp_dir().join(format!("infield-ssh-{name}-{}", std::process::id()));
    let key = HostKey::load_or_make(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let gateway = SshGateway::new(Arc::new(OneSandbox), Arc::new(Mute::default()), key, config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(gateway.serve(listener));
    address
}

/// A client that believes every server and says why it was sent away.
struct Client(mpsc::UnboundedSender<String>);

impl client::Handler for Client {
    type Error = Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(true)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Error>) -> Result<(), Error> {
        let why = match reason {
            DisconnectReason::ReceivedDisconnect(info) => info.message,
            DisconnectReason::Error(e) => e.to_string(),
        };
        let _ = self.0.send(why);
        Ok(())
    }
}

async fn client(at: SocketAddr) -> (Handle<Client>, mpsc::UnboundedReceiver<String>) {
    let (said, seen) = mpsc::unbounded_channel();
    let stream = TcpStream::connect(at).await.unwrap();
    (client::connect_stream(Arc::default(), stream, Client(said)).await.unwrap(), seen)
}

async fn sent_away(at: SocketAddr, user: &str) -> String {
    let (mut client, mut seen) = client(at).await;
    let _ = client.authenticate_none(user).await;
    timeout(SOON, seen.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn who_does_not_log_in_is_sent_away() {
    let at = gateway("login", SshConfig { login_max: Duration::from_millis(300), ..SshConfig::default() }).await;
    for what in [&b""[..], b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\n\r\n", &[0; 70_000], &[0xff; 2000]] {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let _ = stream.write_all(what).await;
        // The end, or a reset where bytes were left unread.
        let _ = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.unwrap();
    }
}

#[tokio::test]
async fn tokens_decide_and_the_way_of_logging_in_does_not() {
    let at = gateway("tokens", SshConfig { connections_per_token_max: 2, ..SshConfig::default() }).await;
    for user in ["", "root", "0123456789abcdefghij0123456789aX", &"x".repeat(40_000)] {
        let why = sent_away(at, user).await;
        assert!(why.contains("unknown or expired") || user.len() > 1000, "{user}: {why}");
    }
    let why = sent_away(at, STOPPED).await;
    assert!(why.contains("is stopped; start it first"), "{why}");
    let ((mut one, _), (mut two, _)) = (client(at).await, client(at).await);
    assert!(one.authenticate_password(GOOD, "anything").await.unwrap().success());
    let method = two.authenticate_keyboard_interactive_start(GOOD, None).await.unwrap();
    assert!(matches!(method, client::KeyboardInteractiveAuthResponse::Success));
    one.channel_open_session().await.unwrap();
    two.channel_open_session().await.unwrap();
    let why = sent_away(at, GOOD).await;
    assert!(why.contains("too many"), "{why}");
    drop(one);
    loop {
        let (mut again, mut seen) = client(at).await;
        let _ = again.authenticate_none(GOOD).await;
        if again.channel_open_session().await.is_ok() {
            break;
        }
        seen.recv().await;
    }
}

#[tokio::test]
async fn channels_are_counted_and_other_hosts_are_not_reached() {
    let at = gateway("channels", SshConfig { channels_max: 3, ..SshConfig::default() }).await;
    let (mut client, _seen) = client(at).await;
    assert!(client.authenticate_none(GOOD).await.unwrap().success());
    for host in ["10.0.0.1", "169.254.169.254", "example.com"] {
        let refused = client.channel_open_direct_tcpip(host, 80, "127.0.0.1", 1).await.err().map(|e| e.to_string());
        assert!(refused.is_some(), "{host}");
    }
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(client.channel_open_session().await.unwrap());
    }
    assert!(client.channel_open_session().await.is_err());
    open.pop().unwrap().close().await.unwrap();
    while client.channel_open_session().await.is_err() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_takes_nothing_costs_little_memory() {
    let at = gateway("memory", SshConfig::default()).await;
    let (mut client, _seen) = client(at).await;
    assert!(client.authenticate_none(GOOD).await.unwrap().success());
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "cat").await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Success)));
    let (read, write) = channel.split();
    let sending = tokio::spawn(async move {
        let _ = write.data(&vec![7; 64 << 20][..]).await;
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = ALL_BYTES.load(Ordering::Relaxed);
    assert!((2 << 20..8 << 20).contains(&held), "{held}");
    assert!(!sending.is_finished());
    sending.abort();
    drop((read, client));
    timeout(SOON, async {
        while ALL_BYTES.load(Ordering::Relaxed) >= 2 << 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}
