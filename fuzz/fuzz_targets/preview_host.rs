//! Host headers and cookies: every name that means a preview says so in one way only, and a cookie of one place opens no
//! other.
#![no_main]

use infield_fuzz::{
    host::{PreviewHost, Whose},
    signed_url::{is_session_by, session_of, sign_session},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(host) = PreviewHost::of(text) {
        assert!(host.port > 0);
        let again = PreviewHost::of(&format!("{}-{}.x", host.port, host.label())).expect("its own name");
        assert_eq!(again, host, "{text:?}");
        match &host.whose {
            Whose::Sandbox(id) => assert_eq!(host.scope(), id.to_string()),
            Whose::Token(token) => assert_eq!((token.len(), host.scope()), (16, format!("{}-{token}", host.port))),
        }
    }
    if let Some((sandbox, until)) = session_of(text, 0) {
        assert!(until >= 0 && !is_session_by("key", text, sandbox, "scope", until), "{text:?}");
        let made = sign_session("key", sandbox, "scope", until);
        assert_eq!(session_of(&made, until), Some((sandbox, until)));
        assert!(is_session_by("key", &made, sandbox, "scope", until));
        assert!(!is_session_by("key", &made, sandbox, "scope2", until));
    }
});
