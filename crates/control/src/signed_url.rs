//! Signed URLs of files: what they may do, until when, and whether a signature is one by this key. Pure: keys, rows and
//! requests are others' business.

use crate::secret;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use infield_api::directory::SignedFile;
use sha2::{Digest, Sha256};

const VERSION: &str = "v1";
/// `v1_` and 32 bytes in base64url without padding.
const SIGNATURE_BYTES: usize = 46;
/// Of HMAC-SHA256.
const BLOCK_BYTES: usize = 64;

/// A claim that only lacks the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// As it was signed: `GET` also opens for `HEAD`.
    method: &'static str,
    path: &'a [u8],
    expires: &'a str,
    signature: &'a str,
}

/// Why a claim needs no key to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another operation, an unknown form, or too late.
    Worthless,
    /// It names no file.
    NoPath,
}

impl<'a> Claim<'a> {
    /// Only two operations can be signed for.
    pub fn of(asked: &SignedFile<'a>, now_s: i64) -> Result<Self, Refused> {
        let method = match (asked.method, asked.route) {
            ("GET" | "HEAD", "/files/download") => "GET",
            ("POST", "/files/upload-v2") => "POST",
            _ => return Err(Refused::Worthless),
        };
        let SignedFile { expires, signature, .. } = *asked;
        let path = asked.path.ok_or(Refused::NoPath)?;
        let known = signature.len() == SIGNATURE_BYTES && signature.starts_with("v1_");
        if !known || !is_in_time(expires, now_s) {
            return Err(Refused::Worthless);
        }
        Ok(Self { method, path, expires, signature })
    }

    /// Whether this key has signed it.
    pub fn is_by(&self, key: &str) -> bool {
        secret::same(&sign(key, self.method, self.path, self.expires), self.signature)
    }
}

/// Decimal seconds, written as anybody would; `0` never ends.
fn is_in_time(expires: &str, now_s: i64) -> bool {
    match expires.parse::<i64>() {
        Ok(at) => at >= 0 && at.to_string() == expires && (at == 0 || now_s <= at),
        Err(_) => false,
    }
}

/// What stands in a URL's `signature`.
pub fn sign(key: &str, method: &str, path: &[u8], expires: &str) -> String {
    let (method, expires) = (method.as_bytes(), expires.as_bytes());
    let mac = hmac_sha256(key.as_bytes(), &[VERSION.as_bytes(), b":files:", method, b":", path, b":", expires]);
    format!("{VERSION}_{}", URL_SAFE_NO_PAD.encode(mac))
}

/// What a cookie carries: whose, until when, and the proof that this key allowed it in this scope.
pub fn sign_session(key: &str, sandbox: &str, scope: &str, expires_s: i64) -> String {
    let expires = expires_s.to_string();
    let (id, scope, until) = (sandbox.as_bytes(), scope.as_bytes(), expires.as_bytes());
    let mac = hmac_sha256(key.as_bytes(), &[VERSION.as_bytes(), b":preview:", id, b":", scope, b":", until]);
    format!("{sandbox}.{expires}.{}", URL_SAFE_NO_PAD.encode(mac))
}

/// The sandbox a cookie names, if it is of the right form and in time; whether it is true is for [`is_session_by`].
pub fn session_of(cookie: &str, now_s: i64) -> Option<(&str, i64)> {
    let (sandbox, rest) = cookie.split_once('.')?;
    let (expires, _) = rest.split_once('.')?;
    let expires: i64 = expires.parse().ok().filter(|at| now_s <= *at)?;
    Some((sandbox, expires))
}

pub fn is_session_by(key: &str, cookie: &str, sandbox: &str, scope: &str, expires_s: i64) -> bool {
    secret::same(&sign_session(key, sandbox, scope, expires_s), cookie)
}

/// RFC 2104 over the parts one after the other.
fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = [0; BLOCK_BYTES];
    match key.len() {
        0..=BLOCK_BYTES => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let mut inner = Sha256::new_with_prefix(block.map(|b| b ^ 0x36));
    parts.iter().for_each(|part| inner.update(part));
    Sha256::new_with_prefix(block.map(|b| b ^ 0x5c)).chain_update(inner.finalize()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "testsigningkey1234567890abcdefgh";
    const VECTORS: [(&str, &str, &str, &str); 4] = [
        ("GET", "/home/user/report.pdf", "1781234567", "v1_QXoy36mypac2FAv33L7jnN44GEUx8KrdwT0vuKgKiQg"),
        ("GET", "/home/user/report.pdf", "0", "v1_lpj67Q-1iHxBviass5MZhGs36X80uk3DgCaRjjmyPrk"),
        ("POST", "/tmp/incoming/data.bin", "1781234567", "v1_CziiRdFkC9asB7q1mi0-fDvvwkpTxcI7yR8N35ht9Vw"),
        ("GET", "/path with spaces/f.txt", "1900000000", "v1_GynMaKcifGfdmrBJHusa_ucAXowjZ_g4KP6lcMJ4WXE"),
    ];

    fn asked<'a>(vector: &(&'a str, &'a str, &'a str, &'a str)) -> SignedFile<'a> {
        let (method, path, expires, signature) = *vector;
        let route = if method == "POST" { "/files/upload-v2" } else { "/files/download" };
        SignedFile { method, route, path: Some(path.as_bytes()), expires, signature }
    }

    fn opens(asked: &SignedFile<'_>, now_s: i64, key: &str) -> bool {
        Claim::of(asked, now_s).is_ok_and(|claim| claim.is_by(key))
    }

    #[test]
    fn sessions_end_and_name_their_sandbox() {
        let cookie = sign_session(KEY, "a", "s", 100);
        assert_eq!(session_of(&cookie, 100), Some(("a", 100)));
        assert_eq!(session_of(&cookie, 101), None);
        assert!(is_session_by(KEY, &cookie, "a", "s", 100));
        assert!(!is_session_by("other", &cookie, "a", "s", 100) && !is_session_by(KEY, &cookie, "a", "t", 100));
        let later = cookie.replace(".100.", ".900.");
        let (sandbox, expires) = session_of(&later, 500).unwrap();
        assert!(!is_session_by(KEY, &later, sandbox, "s", expires));
        assert!(["", "a", "a.100", "a..x", "a.x.y"].iter().all(|bad| session_of(bad, 0).is_none()));
    }

    #[test]
    fn the_published_vectors() {
        for vector in &VECTORS {
            let (method, path, expires, signature) = *vector;
            assert_eq!(sign(KEY, method, path.as_bytes(), expires), signature);
            let asked = asked(vector);
            assert!(opens(&asked, 1_781_234_567, KEY), "{vector:?}");
            assert!(!opens(&asked, 1_781_234_567, "testsigningkey1234567890abcdefgi"));
            assert_eq!(opens(&SignedFile { method: "HEAD", ..asked }, 0, KEY), method == "GET");
            for (method, route) in [
                ("GET", "/files/upload-v2"),
                ("POST", "/files/download"),
                ("DELETE", "/files/download"),
                ("GET", "/files/%64ownload"),
                ("GET", "/files/download/"),
                ("POST", "/files/upload"),
                ("GET", "/files"),
            ] {
                let other = SignedFile { method, route, ..asked };
                assert_eq!(Claim::of(&other, 0), Err(Refused::Worthless), "{method} {route}");
            }
        }
    }

    #[test]
    fn time_and_form() {
        let good = asked(&VECTORS[0]);
        assert!(opens(&good, 1_781_234_567, KEY) && !opens(&good, 1_781_234_568, KEY));
        assert!(opens(&asked(&VECTORS[1]), i64::MAX, KEY), "0 never ends");
        assert_eq!(Claim::of(&SignedFile { path: None, ..good }, 0), Err(Refused::NoPath));
        for expires in ["", "-1", "+1781234567", "01781234567", "1781234567.0", "99999999999999999999"] {
            let signature = sign(KEY, "GET", b"/home/user/report.pdf", expires);
            assert!(!opens(&SignedFile { expires, signature: &signature, ..good }, 0, KEY), "{expires}");
        }
        for signature in ["", "v1_", &good.signature.replace("v1_", "v2_"), &format!("{}=", good.signature)] {
            assert!(!opens(&SignedFile { signature, ..good }, 0, KEY), "{signature}");
        }
    }

    #[test]
    fn rfc_4231() {
        let hex = |key: &[u8], data: &[u8]| hex::encode(hmac_sha256(key, &[data]));
        let two = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(b"Jefe", b"what do ya want for nothing?"), two);
        let six = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        assert_eq!(hex(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"), six);
    }

    proptest! {
        #[test]
        fn a_signature_opens_its_own_file_only(path: Vec<u8>, other: Vec<u8>, at in 0..i64::MAX) {
            let (path, other) = ([b"a", &path[..]].concat(), [b"a", &other[..]].concat());
            let expires = at.to_string();
            let signature = sign(KEY, "GET", &path, &expires);
            let good = SignedFile {
                method: "GET", route: "/files/download", path: Some(&path), expires: &expires, signature: &signature,
            };
            prop_assert!(opens(&good, 0, KEY));
            prop_assert_eq!(opens(&SignedFile { path: Some(&other), ..good }, 0, KEY), path == other);
            let upload = SignedFile { method: "POST", route: "/files/upload-v2", ..good };
            prop_assert!(!opens(&upload, 0, KEY));
        }
    }
}
