//! Short texts that clients and configuration hold: addresses of repositories, stored credentials, targets behind `/proxy`,
//! dates, versions of SDKs. No password survives where an address is shown, and what is written reads back.
#![no_main]

use http::{HeaderMap, HeaderValue, Uri};
use infield_fuzz::{
    git::{credential_line::Entry, url},
    proxy_target, sdk, timestamp,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str)| {
    let (text, user, password) = input;
    let _ = url::classify(text);
    let _ = (url::split_credentials(text), url::user_of(text), url::without_credentials(text));
    let secret: String = password.chars().filter(char::is_ascii_alphanumeric).collect();
    let login: String = user.chars().filter(char::is_ascii_alphabetic).collect();
    if secret.len() > 8 && !login.contains(&secret) {
        let address = format!("https://{login}:{secret}@host/path");
        assert!(!url::without_password(&address).contains(&secret), "{address}");
        assert!(!url::without_credentials(&format!("cannot reach {address}")).contains(&secret));
    }
    let _ = Entry::parse(text);
    let entry = Entry {
        protocol: "https".into(),
        host: "host:80".into(),
        username: user.into(),
        password: password.into(),
    };
    let line = entry.line();
    assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
    assert!(Entry::parse(&line).is_some_and(|read| read == entry), "{line}");
    if let Ok(uri) = format!("/proxy/{text}").parse::<Uri>()
        && let Ok((port, target)) = proxy_target::target_of(&uri)
    {
        assert!(port > 0 && target.path().starts_with('/'));
    }
    let _ = timestamp::parse_http_date(text);
    if let (Ok(source), Ok(version)) = (HeaderValue::from_str(user), HeaderValue::from_str(text)) {
        let headers = [("x-daytona-source", source), ("x-daytona-sdk-version", version)];
        let headers: HeaderMap = headers.into_iter().map(|(n, v)| (n.parse().unwrap(), v)).collect();
        assert!(user == "sdk-go" || !sdk::is_strict_go(&headers));
    }
});
