//! The one message of a client that wants code run. Pure: it is read before anything else is known of the client.

use crate::ws::code;
use infield_api::toolbox::InterpreterRequest;
use std::time::Duration;

const DEFAULT_TIMEOUT_SECONDS: i64 = 600;
/// Longer timeouts count as none: no clock reaches them.
const TIMEOUT_SECONDS_MAX: u64 = 10 * 365 * 24 * 3600;

/// Code and reason of the closing.
pub type Refusal = (u16, String);

/// A request with code in it.
pub fn parse(text: &[u8]) -> Result<InterpreterRequest, Refusal> {
    let request: InterpreterRequest =
        serde_json::from_slice(text).map_err(|_| (code::PROTOCOL, "invalid JSON payload".to_owned()))?;
    match request.code.as_deref() {
        None | Some("") => Err((code::POLICY, "code is required".to_owned())),
        Some(_) => Ok(request),
    }
}

/// How long the code may run; `None` = without end.
pub fn limit(timeout: Option<i64>) -> Result<Option<Duration>, Refusal> {
    match u64::try_from(timeout.unwrap_or(DEFAULT_TIMEOUT_SECONDS)) {
        Ok(0) => Ok(None),
        Ok(seconds) => Ok((seconds < TIMEOUT_SECONDS_MAX).then(|| Duration::from_secs(seconds))),
        Err(_) => Err((code::POLICY, "timeout must be greater than or equal to 0".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let nulls = parse(br#"{"code":"1","contextId":null,"envs":{"A":null},"timeout":null}"#).unwrap();
        assert_eq!(limit(nulls.timeout), Ok(Some(Duration::from_secs(600))));
        assert_eq!(limit(Some(0)), Ok(None));
        assert_eq!(limit(Some(-1)).unwrap_err().0, 1008);
        assert_eq!(parse(br#"{"code":"1","timeout":1.5}"#).unwrap_err().1, "invalid JSON payload");
        assert_eq!(parse(b"7").unwrap_err().0, 1002);
        assert_eq!(parse(b"{}").unwrap_err(), (1008, "code is required".to_owned()));
    }
}
