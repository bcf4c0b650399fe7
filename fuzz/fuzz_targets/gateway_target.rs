//! Request targets: the agent never sees the credential parameter, the target stays a valid one, and the prefix goes back.
#![no_main]

use infield_fuzz::target::{AUTH_KEY_QUERY, Route, is_toolbox_path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut target = b"/toolbox/".to_vec();
    target.extend_from_slice(data);
    for bytes in [data, &target[..]] {
        let Ok(uri) = http::Uri::try_from(bytes) else { continue };
        let Some(route) = Route::of(&uri) else { continue };
        assert!(is_toolbox_path(uri.path()));
        assert!(!route.sandbox.is_empty() && route.sandbox.len() <= 256);
        assert!(route.inner.starts_with('/'), "{route:?}");
        let inner: http::Uri = route.inner.parse().unwrap_or_else(|e| panic!("{route:?}: {e}"));
        let names = inner.query().unwrap_or_default().split('&').map(|pair| pair.split('=').next().unwrap_or_default());
        assert!(names.into_iter().all(|name| name != AUTH_KEY_QUERY), "{route:?}");
        assert!(uri.path().starts_with(&route.prefix));
        assert_eq!(format!("{}{}", route.prefix, inner.path()).trim_end_matches('/'), uri.path().trim_end_matches('/'));
    }
});
