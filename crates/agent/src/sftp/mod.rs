//! An SFTP server of protocol 3 on standard input and output, so that `scp` and `sftp` work in images without one. It is a
//! short-lived copy of this program that runs like a command of the user. `wire.rs` is the format, `server.rs` what is done.

mod attributes;
mod server;
mod wire;

use crate::env;
use crate::execute::c_string;
use crate::launch::{Input, Launch};
use crate::state::Shared;
use std::error::Error;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

/// The argument that makes this program the server.
pub const SFTP_ARGUMENT: &str = "sftp-server";
/// Clients send at most 32 KiB of a file at a time, OpenSSH's up to 255.
const PACKET_BYTES_MAX: u32 = (256 << 10) + 1024;

/// The server of one client.
pub fn launch(agent: &Shared) -> Launch {
    Launch {
        program: c"/proc/self/exe".to_owned(),
        argv: vec![c"sftp".to_owned(), c_string(SFTP_ARGUMENT.as_bytes())],
        env: env::to_words(&agent.env.snapshot()),
        cwd: None,
        input: Input::Open,
        split: true,
    }
}

/// Answers until the client ends its input.
pub fn run() -> Result<(), Box<dyn Error>> {
    let mut input = BufReader::with_capacity(PACKET_BYTES_MAX as usize, io::stdin().lock());
    let mut output = BufWriter::with_capacity(PACKET_BYTES_MAX as usize, io::stdout().lock());
    let mut server = server::Server::default();
    let mut packet = Vec::new();
    while !input.fill_buf()?.is_empty() {
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if !(1..=PACKET_BYTES_MAX).contains(&length) {
            return Err(format!("a packet of {length} bytes").into());
        }
        packet.resize(length as usize, 0);
        input.read_exact(&mut packet)?;
        let answer = server.answer(&packet).ok_or("a packet without a number")?;
        output.write_all(&u32::try_from(answer.len())?.to_be_bytes())?;
        output.write_all(&answer)?;
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
    Ok(output.flush()?)
}
