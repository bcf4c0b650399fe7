//! Signed URLs as strangers write them: without the key nothing opens, with it only what was signed, and the agent sees the
//! very file that was signed.
#![no_main]

use http::Uri;
use infield_fuzz::{query_pairs, signed_url, target};
use libfuzzer_sys::fuzz_target;

const KEY: &str = "testsigningkey1234567890abcdefgh";
const NOW_S: i64 = 1_781_234_567;

/// What the agent would take for the file.
fn file_of(inner: &str) -> Vec<u8> {
    let (_, query) = inner.split_once('?').unwrap_or((inner, ""));
    let pairs = query_pairs::pairs(query);
    pairs.into_iter().find(|(name, _)| name == b"path").map(|(_, value)| value).unwrap_or_default()
}

fn opens(method: &str, inner: &str) -> bool {
    let Some(signed) = target::Signed::of(inner) else { return false };
    let opened = signed_url::Claim::of(&signed.claim(method, inner), NOW_S).is_ok_and(|claim| claim.is_by(KEY));
    if opened {
        let forwarded = signed.inner(inner);
        assert!(forwarded.parse::<Uri>().is_ok(), "{forwarded}");
        assert_eq!(file_of(&forwarded), file_of(inner));
        assert!(!forwarded.contains("signature="));
        let route = forwarded.split('?').next();
        assert_eq!(route, Some(if method == "POST" { "/files/upload-v2" } else { "/files/download" }));
    }
    opened
}

fuzz_target!(|input: (u8, u32, &[u8])| {
    let (choice, expires, data) = input;
    let methods = ["GET", "POST", "HEAD", "PUT"];
    let method = methods[usize::from(choice % 4)];
    // Nobody guesses a signature.
    let raw = String::from_utf8_lossy(data);
    let route = if choice & 4 == 0 { "/files/download" } else { "/files/upload-v2" };
    for inner in [raw.to_string(), format!("{route}?{raw}"), format!("{route}?signature=v1_{raw}&path=a&expires=0")] {
        if inner.parse::<Uri>().is_ok() {
            assert!(!opens(method, &inner), "{inner}");
        }
    }
    // A good one opens its own operation on its own file in its time, whatever stands beside it.
    let path: String = percent_encoding::percent_encode(data, percent_encoding::NON_ALPHANUMERIC).collect();
    let asked = if route.ends_with("download") { "GET" } else { "POST" };
    let signature = signed_url::sign(KEY, asked, data, &expires.to_string());
    let inner = format!("{route}?path={path}&expires={expires}&signature={signature}");
    let in_time = expires == 0 || NOW_S <= i64::from(expires);
    let fits = method == asked || (method, asked) == ("HEAD", "GET");
    assert_eq!(opens(method, &inner), in_time && fits && !data.is_empty(), "{method} {inner}");
    let more = format!("{inner}&{raw}");
    if more.parse::<Uri>().is_ok() && opens(method, &more) {
        assert_eq!(file_of(&more), data);
    }
});
