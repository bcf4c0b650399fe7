//! Which TCP ports are listened on, from the kernel's own table.

use crate::body;
use crate::error::{Answer, Failure};
use axum::extract::Path;
use axum::response::Response;
use infield_api::toolbox::{IsPortInUseResponse, PortList};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Ports that clients may ask about.
const PORTS: RangeInclusive<u16> = 3000..=9999;
const CONNECT_MILLISECONDS_MAX: u64 = 50;
/// `TCP_LISTEN` in the state column.
const LISTEN: &str = "0A";

pub async fn list() -> Response {
    body::ok(&PortList { ports: listening().await.into_iter().collect() })
}

pub async fn in_use(Path(port): Path<String>) -> Answer {
    let port: u16 =
        port.parse().ok().filter(|p| PORTS.contains(p)).ok_or_else(|| {
            Failure::bad_request(format!("port must be a number in {} - {}", PORTS.start(), PORTS.end()))
        })?;
    let is_in_use = listening().await.contains(&port) || connects(port).await;
    Ok(body::ok(&IsPortInUseResponse { is_in_use }))
}

/// The tables are as long as the sandbox wants: they are read line by line, and where that may take its time.
pub async fn listening() -> BTreeSet<u16> {
    let read = || {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|path| File::open(path).ok());
        tables
            .flat_map(|table| BufReader::new(table).lines().map_while(Result::ok))
            .filter_map(|l| port_of(&l))
            .collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn port_of(line: &str) -> Option<u16> {
    let mut column = line.split_ascii_whitespace().skip(1);
    let (local, _remote, state) = (column.next()?, column.next()?, column.next()?);
    let (_, port) = local.rsplit_once(':')?;
    (state == LISTEN).then(|| u16::from_str_radix(port, 16).ok())?
}

async fn connects(port: u16) -> bool {
    let connect = TcpStream::connect(("127.0.0.1", port));
    matches!(timeout(Duration::from_millis(CONNECT_MILLISECONDS_MAX), connect).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listeners_count() {
        let line = "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1";
        assert_eq!(port_of(line), Some(3000));
        assert_eq!(port_of(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(port_of("  sl  local_address rem_address   st tx_queue"), None);
    }
}
