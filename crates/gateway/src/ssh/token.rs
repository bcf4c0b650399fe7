//! What an SSH user name has to look like to be asked about. Pure.

/// Tokens are this long; a word of another length is nobody's.
const TOKEN_BYTES: usize = 32;

/// The token in a user name. Clients that know of user names only get in with nothing else.
pub fn token_of(user: &str) -> Option<&str> {
    (user.len() == TOKEN_BYTES && user.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_taken_is_a_token(user in "\\PC{0,40}") {
            let plain = user.chars().count() == 32 && user.chars().all(|c| c.is_ascii_alphanumeric());
            prop_assert_eq!(token_of(&user), plain.then_some(user.as_str()));
        }

        #[test]
        fn tokens_are_taken(user in "[a-zA-Z0-9]{32}") {
            prop_assert_eq!(token_of(&user), Some(user.as_str()));
        }
    }
}
