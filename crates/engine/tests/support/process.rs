//! A runner in a process of its own, which can be killed, and the frames it speaks.

use super::{LAB, World, agent};
use infield_api::runner::{Frame, RunnerRequest, RunnerResponse};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

pub struct RunnerProcess(Child);

impl RunnerProcess {
    pub fn start(world: &World) -> Self {
        let subnet = format!("{}/{}", world.subnet.0, world.subnet.1);
        let mut child = Command::new(LAB)
            .arg("runner")
            .args([world.data.as_os_str(), agent().as_os_str(), subnet.as_ref()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready"), "{line}");
        Self(child)
    }

    /// As `kill -9` does.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

pub fn connect(world: &World) -> UnixStream {
    UnixStream::connect(world.data.join("run/runner.sock")).unwrap()
}

pub fn send(stream: &mut UnixStream, seq: u64, body: RunnerRequest) {
    let text = serde_json::to_vec(&Frame { seq, body }).unwrap();
    stream.write_all(&(text.len() as u32).to_le_bytes()).unwrap();
    stream.write_all(&text).unwrap();
}

pub fn receive(stream: &mut UnixStream) -> Frame<RunnerResponse> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut text = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}
