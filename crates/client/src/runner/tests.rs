//! `RemoteRunner` against a simulated runner on a real socket: order, restarts, lost answers, long paths.

use super::*;
use infield_api::runner::{Frame, ObservedState};
use std::path::Path;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("infield-runner-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(path.join(AGENT_SOCKET_DIR)).expect("folder");
        Self(path)
    }

    fn listen(&self) -> UnixListener {
        let socket = self.0.join(RUNNER_SOCKET_NAME);
        let _ = std::fs::remove_file(&socket);
        UnixListener::bind(socket).expect("bind")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn read(stream: &mut UnixStream) -> Frame<RunnerRequest> {
    let len = stream.read_u32_le().await.expect("length");
    let mut bytes = vec![0; len as usize];
    stream.read_exact(&mut bytes).await.expect("frame");
    serde_json::from_slice(&bytes).expect("request")
}

async fn write(stream: &mut UnixStream, seq: u64, body: RunnerResponse) {
    let bytes = serde_json::to_vec(&Frame { seq, body }).expect("encode");
    stream.write_u32_le(bytes.len() as u32).await.expect("length");
    stream.write_all(&bytes).await.expect("frame");
}

fn seen(id: SandboxId) -> Observed {
    Observed { id, state: ObservedState::Running, ip: None, pid: Some(7) }
}

#[tokio::test]
async fn answers_come_in_any_order() {
    let folder = Folder::new();
    let listener = folder.listen();
    let runner = RemoteRunner::new(&folder.0);
    let ids = [SandboxId::random(), SandboxId::random(), SandboxId::random()];
    let simulated = async {
        let (mut stream, _) = listener.accept().await.expect("accept");
        let mut asked = Vec::new();
        for _ in ids {
            asked.push(read(&mut stream).await);
        }
        for frame in asked.into_iter().rev() {
            let RunnerRequest::Inspect { id } = frame.body else { panic!("{:?}", frame.body) };
            write(&mut stream, frame.seq, RunnerResponse::Observed(seen(id))).await;
        }
        stream
    };
    let calls = async { tokio::join!(runner.inspect(ids[0]), runner.inspect(ids[1]), runner.inspect(ids[2])) };
    let (_open, (a, b, c)) = tokio::join!(simulated, calls);
    for (answer, id) in [a, b, c].into_iter().zip(ids) {
        assert_eq!(answer, Ok(seen(id)));
    }
}

#[tokio::test]
async fn a_failure_is_the_runners_own() {
    let folder = Folder::new();
    let listener = folder.listen();
    let runner = RemoteRunner::new(&folder.0);
    let error = RunnerError::new(RunnerErrorKind::Conflict, "it is stopped");
    let simulated = async {
        let (mut stream, _) = listener.accept().await.expect("accept");
        let frame = read(&mut stream).await;
        write(&mut stream, frame.seq, RunnerResponse::Failed(error.clone())).await;
        let frame = read(&mut stream).await;
        write(&mut stream, frame.seq, RunnerResponse::Done).await;
        stream
    };
    let calls = async {
        assert_eq!(runner.stop(SandboxId::random(), true).await, Err(error.clone()));
        // An answer of another kind is an error, not a guess.
        let odd = runner.inspect(SandboxId::random()).await.expect_err("odd answer");
        assert_eq!(odd.kind, RunnerErrorKind::Internal);
    };
    tokio::join!(simulated, calls);
}

#[tokio::test]
async fn a_lost_runner_fails_calls_and_the_next_one_reconnects() {
    let folder = Folder::new();
    let listener = folder.listen();
    let runner = RemoteRunner::new(&folder.0);
    let id = SandboxId::random();
    let dies = async {
        let (mut stream, _) = listener.accept().await.expect("accept");
        read(&mut stream).await;
        drop(stream);
        drop(listener);
        std::fs::remove_file(folder.0.join(RUNNER_SOCKET_NAME)).expect("remove");
    };
    let (call, ()) = tokio::join!(runner.destroy(id), dies);
    assert_eq!(call.expect_err("lost").kind, RunnerErrorKind::Unavailable);
    assert_eq!(runner.ping().await.expect_err("nobody listens").kind, RunnerErrorKind::Unavailable);

    // A call made while the runner is away waits for it.
    let back = async {
        tokio::task::yield_now().await;
        let listener = folder.listen();
        let (mut stream, _) = listener.accept().await.expect("accept");
        let frame = read(&mut stream).await;
        write(&mut stream, frame.seq, RunnerResponse::Done).await;
        stream
    };
    let (call, _open) = tokio::join!(runner.destroy(id), back);
    assert_eq!(call, Ok(()));
}

#[tokio::test]
async fn a_call_given_up_does_not_disturb_the_others() {
    let folder = Folder::new();
    let listener = folder.listen();
    let runner = RemoteRunner::new(&folder.0);
    let id = SandboxId::random();
    let simulated = async {
        let (mut stream, _) = listener.accept().await.expect("accept");
        let given_up = read(&mut stream).await;
        let wanted = read(&mut stream).await;
        write(&mut stream, given_up.seq, RunnerResponse::Done).await;
        write(&mut stream, 999, RunnerResponse::Done).await;
        write(&mut stream, wanted.seq, RunnerResponse::Observed(seen(id))).await;
        stream
    };
    let calls = async {
        let given_up = tokio::time::timeout(std::time::Duration::from_millis(50), runner.destroy(id)).await;
        assert!(given_up.is_err());
        assert_eq!(runner.inspect(id).await, Ok(seen(id)));
    };
    tokio::join!(simulated, calls);
}

#[tokio::test]
async fn a_frame_too_long_ends_the_connection() {
    let folder = Folder::new();
    let listener = folder.listen();
    let runner = RemoteRunner::new(&folder.0);
    let simulated = async {
        let (mut stream, _) = listener.accept().await.expect("accept");
        read(&mut stream).await;
        stream.write_u32_le(u32::MAX).await.expect("length");
        stream
    };
    let (call, _open) = tokio::join!(runner.list(), simulated);
    assert_eq!(call.expect_err("too long").kind, RunnerErrorKind::Unavailable);
}

#[tokio::test]
async fn agents_are_dialled_directly_even_at_long_paths() {
    let folder = Folder::new();
    let deep = folder.0.join("d".repeat(90)).join("e".repeat(90));
    let agents = deep.join(AGENT_SOCKET_DIR);
    std::fs::create_dir_all(&agents).expect("folder");
    let id = SandboxId::random();
    // Bound through a short name, because binding has the same limit.
    let short = Path::new("/proc/self/fd").join({
        use std::os::fd::IntoRawFd;
        std::fs::File::open(&agents).expect("open").into_raw_fd().to_string()
    });
    let listener = UnixListener::bind(short.join(format!("{id}.sock"))).expect("bind");
    let runner = RemoteRunner::new(&deep);
    let stream = runner.connect(id).await.expect("connect");
    let (mut agent, _) = listener.accept().await.expect("accept");
    let mut ours = UnixStream::from_std(std::os::unix::net::UnixStream::from(stream)).expect("non-blocking");
    ours.write_all(b"hello").await.expect("write");
    let mut said = [0; 5];
    agent.read_exact(&mut said).await.expect("read");
    assert_eq!(&said, b"hello");
    let gone = runner.connect(SandboxId::random()).await.expect_err("nobody");
    assert_eq!(gone.kind, RunnerErrorKind::Unavailable);
    std::fs::rename(agents.join(format!("{id}.sock")), agents.join(format!("{id}.paused"))).expect("rename");
    assert_eq!(runner.connect(id).await.expect_err("paused").kind, RunnerErrorKind::Conflict);
}
