//! Making, hashing and comparing secrets. Randomness comes from the kernel by way of UUID v4.

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

fn random_hex() -> String {
    let mut hash = Sha256::new();
    for _ in 0..3 {
        hash.update(Uuid::new_v4().as_bytes());
    }
    hex::encode(hash.finalize())
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
        assert!(same("abc", "abc") && !same("abc", "abd") && !same("abc", "ab"));
    }
}
