//! Subprotocols as a channel for headers: what a client offers, and which of it is said back. Pure.

use http::{HeaderMap, header};

const VERSION_TOKEN: &str = "X-Daytona-SDK-Version~";
const EXIT_CONTROL_TOKEN: &str = "X-Daytona-Pty-Exit-Control";
const PTY_ENVS_TOKEN: &str = "X-Daytona-Pty-Envs~";

/// What the client said besides the path: the tokens it offered as subprotocols, and the same things as headers.
#[derive(Clone, Debug, Default)]
pub struct Offered {
    tokens: Vec<String>,
    version_header: Option<String>,
}

impl Offered {
    pub fn of(headers: &HeaderMap) -> Self {
        let lists = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
        let tokens = lists.flat_map(|l| l.split(',')).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect();
        let version = headers.get("x-daytona-sdk-version").and_then(|v| v.to_str().ok()).map(str::to_owned);
        Self { tokens, version_header: version.filter(|v| !v.is_empty()) }
    }

    fn value(&self, prefix: &str) -> Option<&str> {
        self.tokens.iter().find_map(|t| t.strip_prefix(prefix))
    }

    /// The client's version: by its header, else by its token.
    pub fn sdk_version(&self) -> Option<&str> {
        self.version_header.as_deref().or_else(|| self.value(VERSION_TOKEN))
    }

    /// Whether the client understands the `exited` message of a terminal.
    pub fn exit_control(&self) -> bool {
        self.tokens.iter().any(|t| t == EXIT_CONTROL_TOKEN)
    }

    /// Environment of a terminal to be made, still encoded.
    pub fn pty_envs(&self) -> Option<&str> {
        self.value(PTY_ENVS_TOKEN)
    }

    /// Clients that offer anything need exactly one of it back; one that carries a value is the last choice.
    pub fn selected(&self) -> Option<&str> {
        let find = |wanted: &dyn Fn(&str) -> bool| self.tokens.iter().map(String::as_str).find(|t| wanted(t));
        find(&|t| t.starts_with(VERSION_TOKEN))
            .or_else(|| find(&|t| t == EXIT_CONTROL_TOKEN))
            .or_else(|| find(&|t| !t.starts_with(PTY_ENVS_TOKEN)))
            .or_else(|| find(&|_| true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn offered(list: &str) -> Offered {
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(list).unwrap());
        Offered::of(&headers)
    }

    #[test]
    fn one_offered_token_is_selected() {
        for (list, selected) in [
            ("X-Daytona-Pty-Exit-Control, X-Daytona-SDK-Version~0.2.0", Some("X-Daytona-SDK-Version~0.2.0")),
            ("X-Daytona-Pty-Envs~e30,X-Daytona-Pty-Exit-Control", Some("X-Daytona-Pty-Exit-Control")),
            ("X-Daytona-Pty-Envs~e30 , mine", Some("mine")),
            ("X-Daytona-Pty-Envs~e30", Some("X-Daytona-Pty-Envs~e30")),
            (" , ", None),
        ] {
            assert_eq!(offered(list).selected(), selected, "{list}");
        }
        assert_eq!(Offered::default().selected(), None);
    }

    #[test]
    fn tokens_carry_headers() {
        let both = offered("X-Daytona-SDK-Version~0.2.0, X-Daytona-Pty-Envs~e30");
        assert_eq!((both.sdk_version(), both.pty_envs(), both.exit_control()), (Some("0.2.0"), Some("e30"), false));
        let mut headers = HeaderMap::new();
        headers.insert("X-Daytona-SDK-Version", HeaderValue::from_static("1.0.0"));
        assert_eq!(Offered::of(&headers).sdk_version(), Some("1.0.0"));
    }
}
