//! File names in `Content-Disposition`: the Latin-1 form for old parsers and the RFC 5987 form that says it exactly.

use http::HeaderValue;

/// Escaped for a quoted string, one byte per character; what Latin-1 lacks becomes `_`.
pub fn latin1_name(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for c in String::from_utf8_lossy(name).chars() {
        match c {
            '\r' | '\n' | '\0' => {}
            '"' | '\\' => out.extend([b'\\', c as u8]),
            c if c.is_control() => out.push(b'_'),
            c => out.push(u8::try_from(u32::from(c)).unwrap_or(b'_')),
        }
    }
    out
}

/// Percent-encoded bytes, all but letters, digits and the marks RFC 5987 leaves alone.
pub fn rfc5987_name(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for &b in name {
        if b.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// `attachment; filename="…"; filename*=utf-8''…` or the same after `form-data; name="…"`.
pub fn header(kind: &str, name: &[u8]) -> Vec<u8> {
    let mut out = format!("{kind}; filename=\"").into_bytes();
    out.extend(latin1_name(name));
    out.extend_from_slice(b"\"; filename*=utf-8''");
    out.extend_from_slice(rfc5987_name(name).as_bytes());
    out
}

/// As a header of the answer itself.
pub fn attachment(name: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(&header("attachment", name)).unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        assert_eq!(
            header("attachment", "a \"ü\".txt".as_bytes()),
            b"attachment; filename=\"a \\\"\xfc\\\".txt\"; filename*=utf-8''a%20%22%C3%BC%22.txt"
        );
        assert_eq!(latin1_name("日\n本\t".as_bytes()), b"___");
    }

    proptest! {
        #[test]
        fn any_name_makes_a_legal_header_that_decodes_to_itself(name: Vec<u8>) {
            let value = attachment(&name);
            prop_assert!(value != "attachment");
            let encoded = rfc5987_name(&name);
            prop_assert_eq!(percent_decode_str(&encoded).collect::<Vec<u8>>(), name.clone());
            let illegal = b"()<>@,;:\\\"/[]?={} *'";
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_graphic() && !illegal.contains(&b)));
            // The quoted form never ends early: every quote and backslash in it is escaped.
            let quoted = latin1_name(&name);
            let mut bytes = quoted.iter();
            while let Some(b) = bytes.next() {
                prop_assert!(*b != b'"' && !matches!(b, b'\r' | b'\n' | 0));
                if *b == b'\\' {
                    prop_assert!(matches!(bytes.next(), Some(b'"' | b'\\')));
                }
            }
        }
    }
}
