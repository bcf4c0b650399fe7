//! What is read of name resolution: the hosts table, the resolver's settings, and servers' answers. Pure; `dns` asks.

use std::net::{IpAddr, Ipv4Addr};

pub const TYPE_A: u16 = 1;
pub const TYPE_AAAA: u16 = 28;
const SERVERS_MAX: usize = 3;

pub fn in_hosts(table: &str, host: &str) -> Vec<IpAddr> {
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
pub struct Settings {
    pub servers: Vec<IpAddr>,
    search: Vec<String>,
}

impl Settings {
    pub fn parse(text: &str) -> Self {
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
    pub fn names(&self, host: &str) -> Vec<String> {
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
}

pub fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?;
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    (out.len() <= 255).then_some(out)
}

/// The addresses in an answer; `Some(None)` when it was cut, `None` when it is not an answer to this query.
pub fn read_answer(answer: &[u8], query: &[u8], kind: u16) -> Option<Option<Vec<IpAddr>>> {
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
