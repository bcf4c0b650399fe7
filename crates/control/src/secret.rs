//! Making, hashing and comparing secrets. Randomness comes from the kernel by way of UUID v4.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Every key begins so; the rest is 64 hex digits.
pub const KEY_PREFIX: &str = "dtn_";
/// A longer credential is not one of ours and is not even hashed.
pub const CREDENTIAL_BYTES_MAX: usize = 4096;

/// A new API key: `dtn_` and 32 random bytes in hex. Three UUIDs carry 366 random bits into the hash.
pub fn api_key() -> String {
    format!("{KEY_PREFIX}{}", random_hex())
}

/// A new token for previews: 32 characters, 128 bits.
pub fn auth_token() -> String {
    let mut token = random_hex();
    token.truncate(32);
    token
}

/// A new token for a link to one port: 16 letters and digits, as it stands in a host name; 82 bits.
pub fn link_token() -> String {
    letters_and_digits(16)
}

/// A new token for SSH, as it is typed for a user name: 32 letters and digits, 165 bits.
pub fn ssh_token() -> String {
    letters_and_digits(32)
}

fn letters_and_digits(length: usize) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    // What would make the first letters likelier is left out.
    let even = |byte: &u8| *byte < 252;
    let mut token = String::new();
    while token.len() < length {
        let more = random_bytes().into_iter().filter(even).map(|byte| char::from(ALPHABET[usize::from(byte) % 36]));
        token.extend(more);
    }
    token.truncate(length);
    token
}

/// A new key for URLs of files: 32 characters, 192 bits. Begins with a letter, or clients could take it for a number.
pub fn signing_key() -> String {
    loop {
        let key = URL_SAFE_NO_PAD.encode(&random_bytes()[..24]);
        if key.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return key;
        }
    }
}

fn random_hex() -> String {
    hex::encode(random_bytes())
}

fn random_bytes() -> [u8; 32] {
    let mut hash = Sha256::new();
    for _ in 0..3 {
        hash.update(Uuid::new_v4().as_bytes());
    }
    hash.finalize().into()
}

/// What is stored of a key.
pub fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

/// First and last three characters: enough to tell keys apart in a list.
pub fn ends(key: &str) -> (String, String) {
    let chars: Vec<char> = key.chars().collect();
    let last = chars.len().saturating_sub(3);
    (chars.iter().take(3).collect(), chars[last..].iter().collect())
}

/// Equality in a time that does not tell where the first difference is.
pub fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_tokens_have_their_shape() {
        let key = api_key();
        assert_eq!(key.len(), 68);
        assert!(key[4..].bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
        assert_eq!(ends(&key), ("dtn".to_owned(), key[65..].to_owned()));
        assert_ne!(api_key(), key);
        assert_eq!(auth_token().len(), 32);
        let link = link_token();
        assert!(link.len() == 16 && link.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{link}");
        let ssh = ssh_token();
        assert!(ssh.len() == 32 && ssh.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{ssh}");
        assert_eq!((signing_key().len(), signing_key().as_bytes()[0].is_ascii_alphabetic()), (32, true));
        assert!(same("abc", "abc") && !same("abc", "abd") && !same("abc", "ab"));
    }
}
