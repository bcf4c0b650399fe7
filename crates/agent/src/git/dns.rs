//! Name resolution without the C library, whose lookup would load modules of the image into this static program: literal
//! addresses, `/etc/hosts`, then the servers of `/etc/resolv.conf`.

use super::dns_text::{Settings, TYPE_A, TYPE_AAAA, encode_name, in_hosts, read_answer};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

const QUERY_SECONDS_MAX: u64 = 3;
const TRIES_MAX: usize = 2;
const ADDRESSES_MAX: usize = 16;
const FILE_BYTES_MAX: u64 = 1 << 20;
const MESSAGE_BYTES_MAX: usize = 4096;
const DNS_PORT: u16 = 53;

#[derive(Debug)]
pub struct Dns;

impl Resolver for Dns {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let mut found = self.empty();
        for address in lookup(host).into_iter().take(ADDRESSES_MAX) {
            found.push(SocketAddr::new(address, port));
        }
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}

/// IPv4 before IPv6: sandboxes have routes for the first.
fn lookup(host: &str) -> Vec<IpAddr> {
    if let Ok(literal) = host.trim_matches(['[', ']']).parse() {
        return vec![literal];
    }
    let text = |path: &str| {
        let bytes = crate::small_file::read(Path::new(path), FILE_BYTES_MAX).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let from_hosts = in_hosts(&text("/etc/hosts"), host);
    if !from_hosts.is_empty() {
        return from_hosts;
    }
    if host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    let settings = Settings::parse(&text("/etc/resolv.conf"));
    settings.names(host).iter().map(|name| ask(&settings, name)).find(|found| !found.is_empty()).unwrap_or_default()
}

/// What the servers say of a name.
fn ask(settings: &Settings, name: &str) -> Vec<IpAddr> {
    let Some(question) = encode_name(name) else { return Vec::new() };
    let both = [TYPE_A, TYPE_AAAA].iter().map(|kind| ask_for(settings, &question, *kind));
    both.flatten().collect()
}

fn ask_for(settings: &Settings, question: &[u8], kind: u16) -> Vec<IpAddr> {
    for _ in 0..TRIES_MAX {
        for server in &settings.servers {
            if let Ok(found) = exchange(SocketAddr::new(*server, DNS_PORT), question, kind) {
                return found;
            }
        }
    }
    Vec::new()
}

/// One question over UDP, again over TCP when the answer was cut.
fn exchange(server: SocketAddr, name: &[u8], kind: u16) -> io::Result<Vec<IpAddr>> {
    let id = RandomState::new().build_hasher().finish() as u16;
    let mut query = Vec::with_capacity(name.len() + 16);
    for word in [id, 0x0100, 1, 0, 0, 0] {
        query.extend(word.to_be_bytes());
    }
    query.extend_from_slice(name);
    query.extend(kind.to_be_bytes());
    query.extend(1u16.to_be_bytes());
    let patience = Some(Duration::from_secs(QUERY_SECONDS_MAX));
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(patience)?;
    socket.send(&query)?;
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    let n = socket.recv(&mut buffer)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed DNS answer");
    match read_answer(&buffer[..n], &query, kind).ok_or_else(malformed)? {
        Some(found) => Ok(found),
        None => {
            let answer = exchange_tcp(server, &query, patience)?;
            read_answer(&answer, &query, kind).flatten().ok_or_else(malformed)
        }
    }
}

fn exchange_tcp(server: SocketAddr, query: &[u8], patience: Option<Duration>) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(QUERY_SECONDS_MAX))?;
    stream.set_read_timeout(patience)?;
    stream.write_all(&(query.len() as u16).to_be_bytes())?;
    stream.write_all(query)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server on loopback that answers one question with a CNAME and an address.
    #[test]
    fn a_real_exchange() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let served = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let (n, from) = server.recv_from(&mut buffer).unwrap();
            let mut answer = buffer[..n].to_vec();
            answer[2] |= 0x80;
            answer[7] = 2;
            answer.extend(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x01\x00\x03\x01y\x00");
            answer.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04\x0a\x00\x00\x07");
            server.send_to(&answer, from).unwrap();
        });
        let found = exchange(address, &encode_name("x.test").unwrap(), TYPE_A).unwrap();
        served.join().unwrap();
        assert_eq!(found, vec!["10.0.0.7".parse::<IpAddr>().unwrap()]);
    }
}
