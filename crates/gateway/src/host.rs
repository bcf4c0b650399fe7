//! Preview hosts: `{port}-{sandbox id or signed token}.{anything}`. Pure; the rest of the name is not looked at.

use infield_api::SandboxId;

/// Of a signed token: lower-case letters and digits.
const TOKEN_CHARS: usize = 16;
/// Of a DNS name, and a port after it.
const HOST_BYTES_MAX: usize = 253 + 6;

/// Ports of ours: they always need a credential, however public the sandbox is.
pub const TOOLBOX_PORT: u16 = 2280;
pub const TERMINAL_PORT: u16 = 22222;
pub const RECORDINGS_PORT: u16 = 33333;

/// A host name that means a port of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewHost {
    pub port: u16,
    pub whose: Whose,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    Sandbox(SandboxId),
    /// Of a signed URL.
    Token(String),
}

impl PreviewHost {
    /// `host` is the `Host` header as it came, with or without a port. Anything of another form is no preview host.
    pub fn of(host: &str) -> Option<Self> {
        if host.len() > HOST_BYTES_MAX {
            return None;
        }
        let (label, domain) = host.split_once('.')?;
        if domain.is_empty() || domain.starts_with(':') {
            return None;
        }
        let (port, rest) = label.split_once('-')?;
        // Written as anybody would: one place has one name.
        let number: u16 = port.parse().ok().filter(|number: &u16| *number > 0 && number.to_string() == port)?;
        let rest = rest.to_ascii_lowercase();
        let whose = match rest.parse::<SandboxId>() {
            Ok(id) if id.to_string() == rest => Whose::Sandbox(id),
            _ if is_token(&rest) => Whose::Token(rest),
            _ => return None,
        };
        Some(Self { port: number, whose })
    }

    /// Whether it needs a credential even of a public sandbox.
    pub fn is_ours(&self) -> bool {
        matches!(self.port, TOOLBOX_PORT | TERMINAL_PORT | RECORDINGS_PORT)
    }

    /// How far a cookie of this host opens: all of a sandbox, or a link's one port.
    pub fn scope(&self) -> String {
        match &self.whose {
            Whose::Sandbox(id) => id.to_string(),
            Whose::Token(token) => format!("{}-{token}", self.port),
        }
    }

    /// What stands after the port: names its cookie.
    pub fn label(&self) -> String {
        match &self.whose {
            Whose::Sandbox(id) => id.to_string(),
            Whose::Token(token) => token.clone(),
        }
    }
}

fn is_token(text: &str) -> bool {
    text.len() == TOKEN_CHARS && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "6b1f2c1e-7d6a-4c8e-9c7b-2f5a1a0d3e44";

    #[test]
    fn hosts() {
        let of = |text: &str| PreviewHost::of(text).map(|host| (host.port, host.label(), host.is_ours()));
        let some = |port, label: &str, ours| Some((port, label.to_owned(), ours));
        assert_eq!(of(&format!("3000-{ID}.localhost:8080")), some(3000, ID, false));
        assert_eq!(of(&format!("22222-{}.a.b", ID.to_uppercase())), some(22222, ID, true));
        assert_eq!(of("8080-abcdef0123456789.preview.example.com"), some(8080, "abcdef0123456789", false));
        for other in [
            "localhost:8080",
            "127.0.0.1:8080",
            "api.example.com",
            "1-api.example.com",
            &format!("3000-{ID}"),
            &format!("3000-{ID}."),
            &format!("3000-{ID}.:80"),
            &format!("0-{ID}.x"),
            &format!("03000-{ID}.x"),
            &format!("+3000-{ID}.x"),
            &format!("65536-{ID}.x"),
            &format!("-{ID}.x"),
            &format!("{ID}.x"),
            &format!("3000-{}.x", ID.replace('-', "")),
            &format!("3000-{{{ID}}}.x"),
            "3000-abcdef012345678.x",
            "3000-abcdef01234567890.x",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_host_breaks_it(host in "[0-9a-fA-F.:{}-]{0,60}") {
            if let Some(found) = PreviewHost::of(&host) {
                let again = PreviewHost::of(&format!("{}-{}.x", found.port, found.label()));
                prop_assert_eq!(again, Some(found));
            }
        }
    }
}
