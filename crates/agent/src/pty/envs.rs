//! The environment of a terminal, as a client packs it into a subprotocol: base64url of a JSON object. Pure.

use crate::env::Vars;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The error is for the caller to read.
pub fn decode(token: &str) -> Result<Vars, String> {
    let wrong =
        |why: &dyn std::fmt::Display| format!("the subprotocol with the PTY's environment cannot be read: {why}");
    let text = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|e| wrong(&e))?;
    serde_json::from_slice(&text).map_err(|e| wrong(&e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_environment_survives(vars: Vars, padding in "={0,2}") {
            let token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&vars).unwrap());
            prop_assert_eq!(decode(&(token + &padding)), Ok(vars));
        }

        #[test]
        fn no_token_breaks_it(token in "\\PC{0,64}") {
            let _ = decode(&token);
        }
    }
}
