//! Name resolution without the C library, whose lookup would load modules of the image into this static program: literal
//! addresses, `/etc/hosts`, then the servers of `/etc/resolv.conf`.

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
const SERVERS_MAX: usize = 3;
const ADDRESSES_MAX: usize = 16;
const FILE_BYTES_MAX: u64 = 1 << 20;
const MESSAGE_BYTES_MAX: usize = 4096;
const DNS_PORT: u16 = 53;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

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
    settings.names(host).iter().map(|name| settings.ask(name)).find(|found| !found.is_empty()).unwrap_or_default()
}

fn in_hosts(table: &str, host: &str) -> Vec<IpAddr> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    let mut found: Vec<IpAddr> = table.lines().filter_map(line).collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

#[derive(Debug, PartialEq, Eq)]
struct Settings {
    servers: Vec<IpAddr>,
    search: Vec<String>,
}

impl Settings {
    fn parse(text: &str) -> Self {
        let mut settings = Self { servers: Vec::new(), search: Vec::new() };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => settings.servers.extend(words.next().and_then(|w| w.parse::<IpAddr>().ok())),
                Some("search" | "domain") => settings.search = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        settings.servers.truncate(SERVERS_MAX);
        if settings.servers.is_empty() {
            settings.servers.push(Ipv4Addr::LOCALHOST.into());
        }
        settings
    }

    /// A name with a dot is tried as it is first, one without only after the search list.
    fn names(&self, host: &str) -> Vec<String> {
        let plain = host.trim_end_matches('.').to_owned();
        if host.ends_with('.') {
            return vec![plain];
        }
        let searched = self.search.iter().map(|domain| format!("{plain}.{}", domain.trim_end_matches('.')));
        if plain.contains('.') {
            [plain.clone()].into_iter().chain(searched).collect()
        } else {
            searched.chain([plain.clone()]).collect()
        }
    }

    fn ask(&self, name: &str) -> Vec<IpAddr> {
        let Some(question) = encode_name(name) else { return Vec::new() };
        let both = [TYPE_A, TYPE_AAAA].iter().map(|kind| self.ask_for(&question, *kind));
        both.flatten().collect()
    }

    fn ask_for(&self, question: &[u8], kind: u16) -> Vec<IpAddr> {
        for _ in 0..TRIES_MAX {
            for server in &self.servers {
                if let Ok(found) = exchange(SocketAddr::new(*server, DNS_PORT), question, kind) {
                    return found;
                }
            }
        }
        Vec::new()
    }
}

fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?;
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    (out.len() <= 255).then_some(out)
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

/// The addresses in an answer; `Some(None)` when it was cut, `None` when it is not an answer to this query.
fn read_answer(answer: &[u8], query: &[u8], kind: u16) -> Option<Option<Vec<IpAddr>>> {
    let word = |at: usize| answer.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let flags = word(2)?;
    let question = query.get(12..)?;
    let is_answer = answer.get(..2)? == query.get(..2)? && flags & 0x8000 != 0 && word(4)? == 1;
    let asked = answer.get(12..12 + question.len())?;
    if !is_answer || !asked.eq_ignore_ascii_case(question) {
        return None;
    }
    if flags & 0x0200 != 0 {
        return Some(None);
    }
    if flags & 0x000f != 0 && flags & 0x000f != 3 {
        // The server failed; another one may know.
        return None;
    }
    let mut at = 12 + question.len();
    let mut found = Vec::new();
    for _ in 0..word(6)? {
        at = skip_name(answer, at)?;
        let (record, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = answer.get(at + 10..at + 10 + length)?;
        match record {
            TYPE_A if kind == TYPE_A => found.push(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            TYPE_AAAA if kind == TYPE_AAAA => found.push(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => {}
        }
        at += 10 + length;
    }
    Some(Some(found))
}

/// Behind a name, which ends with a zero or a pointer.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn settings_and_hosts() {
        let settings = Settings::parse("search a.b c\nnameserver 1.2.3.4\nnameserver bad\nnameserver ::1\n");
        assert_eq!(settings.servers, vec!["1.2.3.4".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        assert_eq!(settings.names("x"), ["x.a.b", "x.c", "x"]);
        assert_eq!(settings.names("x.y"), ["x.y", "x.y.a.b", "x.y.c"]);
        assert_eq!(settings.names("x."), ["x"]);
        let hosts = in_hosts("::1 me # x\n127.0.0.1 you Me\n", "me");
        assert_eq!(hosts, vec!["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    }

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

    proptest! {
        #[test]
        fn hostile_answers_never_panic(mut answer: Vec<u8>, prefix in 0usize..24) {
            let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            query.extend(encode_name("a.b").unwrap());
            query.extend([0, 1, 0, 1]);
            let _ = read_answer(&answer, &query, TYPE_A);
            let mut near = query.clone();
            near.truncate(prefix.max(12));
            near[2] |= 0x80;
            near.append(&mut answer);
            let _ = read_answer(&near, &query, TYPE_A);
        }
    }
}
