//! What a sandbox's name servers, `/etc/hosts` and `/etc/resolv.conf` say: no panic, and an address only from an answer to
//! the question that was asked.
#![no_main]

use infield_fuzz::git::dns_text::{Settings, TYPE_A, TYPE_AAAA, encode_name, in_hosts, read_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &str, &str, bool, bool)| {
    let (answer, text, host, six, near) = input;
    let kind = if six { TYPE_AAAA } else { TYPE_A };
    if let Some(name) = encode_name(host) {
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(&name);
        query.extend(kind.to_be_bytes());
        query.extend([0, 1]);
        // Also answers that begin as a true one does.
        let mut whole = Vec::new();
        if near {
            whole = query.clone();
            whole[2] |= 0x80;
            if let [first, second, ..] = answer {
                (whole[6], whole[7]) = (*first & 1, *second);
            }
        }
        whole.extend_from_slice(answer);
        let found = read_answer(&whole, &query, kind).flatten().unwrap_or_default();
        assert!(found.iter().all(|address| address.is_ipv6() == six));
        assert!(found.is_empty() || whole[12..].starts_with(&query[12..]) || !near);
    }
    let settings = Settings::parse(text);
    assert!((1..=3).contains(&settings.servers.len()));
    assert!(settings.names(host).contains(&host.trim_end_matches('.').to_owned()));
    let found = in_hosts(text, host);
    assert!(found.is_sorted_by_key(|address| address.is_ipv6()));
});
