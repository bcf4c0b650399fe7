//! Where a request to `/proxy/{port}/…` goes. Pure.

use http::Uri;

/// Port, and the target as it was written: percent-encoding, empty segments and all.
pub fn target_of(uri: &Uri) -> Result<(u16, Uri), &'static str> {
    let whole = uri.path_and_query().map_or("", |t| t.as_str());
    let rest = whole.strip_prefix("/proxy/").unwrap_or("");
    let (port, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let number: Option<u16> = if digits { port.parse().ok().filter(|p| *p > 0) } else { None };
    let number = number.ok_or("port must be a number in 1 - 65535")?;
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let target = target.parse().map_err(|_| "the path is not valid")?;
    Ok((number, target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(uri: &str) -> Option<(u16, String)> {
        target_of(&uri.parse().unwrap()).ok().map(|(port, target)| (port, target.to_string()))
    }

    #[test]
    fn targets_stay_as_they_were_written() {
        let some = |port, text: &str| Some((port, text.to_owned()));
        assert_eq!(target("/proxy/80"), some(80, "/"));
        assert_eq!(target("/proxy/80?a=b"), some(80, "/?a=b"));
        assert_eq!(target("/proxy/65535/a%2Fb//c/../d?x=%20&y"), some(65535, "/a%2Fb//c/../d?x=%20&y"));
        for wrong in ["/proxy/0/", "/proxy/65536/", "/proxy/+80/", "/proxy/x", "/proxy//80", "/proxy/8%30/"] {
            assert_eq!(target(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_target_breaks_it(rest in "[a-z0-9/?%.:@&=~+-]{0,40}") {
            if let Ok(uri) = format!("/proxy/{rest}").parse::<Uri>()
                && let Ok((port, target)) = target_of(&uri)
            {
                prop_assert!(port > 0);
                prop_assert!(rest.ends_with(target.to_string().trim_start_matches('/')));
            }
        }
    }
}
