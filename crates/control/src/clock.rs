//! Times: milliseconds since the epoch inside, ISO-8601 UTC with milliseconds on the wire.

use std::time::{SystemTime, UNIX_EPOCH};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub const MINUTE_MS: i64 = 60_000;
pub const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

pub fn now_ms() -> i64 {
    if let Some(simulated) = crate::simulation::now_ms() {
        return simulated;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// `2030-01-01T00:00:00.000Z`.
pub fn iso(ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    )
}

/// Reads what clients send: RFC 3339, an offset without a colon, a `+` that became a space, or a bare date.
pub fn parse_iso(text: &str) -> Option<i64> {
    let mut text = text.trim().to_owned();
    if text.len() == "2030-01-01".len() {
        text.push_str("T00:00:00Z");
    }
    if let Some(at) = text.rfind(' ').filter(|at| *at > "2030-01-01 ".len()) {
        text.replace_range(at..=at, "+");
    }
    let bytes = text.as_bytes();
    let sign = text.len().checked_sub("+0000".len())?;
    if matches!(bytes[sign], b'+' | b'-') && bytes[sign + 1..].iter().all(u8::is_ascii_digit) && text.contains('T') {
        text.insert(sign + 3, ':');
    }
    let at = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clients_time_is_read() {
        let at = 1_795_436_070_851;
        assert_eq!(iso(at), "2026-11-23T12:14:30.851Z");
        let forms = [
            "2026-11-23T12:14:30.851Z",
            "2026-11-23T12:14:30.851851+0000",
            "2026-11-23T12:14:30.851 0000",
            "2026-11-23T13:14:30.851+01:00",
        ];
        for form in forms {
            assert_eq!(parse_iso(form), Some(at), "{form}");
        }
        assert_eq!(parse_iso("2026-11-23").map(iso).as_deref(), Some("2026-11-23T00:00:00.000Z"));
        for bad in ["", "yesterday", "2026", "2026-13-01", "12345"] {
            assert_eq!(parse_iso(bad), None, "{bad}");
        }
    }
}
