//! Times as the toolbox prints them. The sandbox's zone is taken to be UTC.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `2026-01-02T03:04:05.678Z`
pub fn now_millis() -> String {
    let now = OffsetDateTime::now_utc();
    let (h, m, s, ms) = (now.hour(), now.minute(), now.second(), now.millisecond());
    format!("{}T{h:02}:{m:02}:{s:02}.{ms:03}Z", now.date())
}

/// Now as whole seconds since 1970.
pub fn now_seconds() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// Seconds since 1970 with nanoseconds, as RFC 3339 in UTC.
pub fn rfc3339(seconds: i64, nanoseconds: i64) -> String {
    instant(seconds, nanoseconds).format(&Rfc3339).unwrap_or_default()
}

/// The same as Go prints a time: `2026-06-23 13:33:00.123456789 +0000 UTC`.
pub fn go_text(seconds: i64, nanoseconds: i64) -> String {
    let t = instant(seconds, nanoseconds);
    let mut fraction = format!(".{:09}", t.nanosecond());
    fraction.truncate(fraction.trim_end_matches('0').len());
    let fraction = if fraction == "." { "" } else { &fraction };
    let (date, h, m, s) = (t.date(), t.hour(), t.minute(), t.second());
    format!("{date} {h:02}:{m:02}:{s:02}{fraction} +0000 UTC")
}

/// Seconds since 1970 as RFC 3339 with the given offset from UTC.
pub fn rfc3339_at_offset(seconds: i64, offset_minutes: i32) -> String {
    let offset = time::UtcOffset::from_whole_seconds(offset_minutes * 60).unwrap_or(time::UtcOffset::UTC);
    instant(seconds, 0).to_offset(offset).format(&Rfc3339).unwrap_or_default()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub fn http_date(seconds: i64) -> String {
    let t = instant(seconds, 0);
    let (day, month) = (t.weekday().to_string(), t.month().to_string());
    let (day, month) = (day.get(..3).unwrap_or("Thu"), month.get(..3).unwrap_or("Jan"));
    let (d, y, h, m, s) = (t.day(), t.year(), t.hour(), t.minute(), t.second());
    format!("{day}, {d:02} {month} {y:04} {h:02}:{m:02}:{s:02} GMT")
}

/// Reads what [`http_date`] writes; older forms of the header are not read.
pub fn parse_http_date(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &time::format_description::well_known::Rfc2822).ok().map(|t| t.unix_timestamp())
}

fn instant(seconds: i64, nanoseconds: i64) -> OffsetDateTime {
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms() {
        assert_eq!(go_text(1_782_221_580, 123_400_000), "2026-06-23 13:33:00.1234 +0000 UTC");
        assert_eq!(go_text(0, 0), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(rfc3339(1_782_221_580, 5), "2026-06-23T13:33:00.000000005Z");
        assert_eq!(rfc3339_at_offset(0, -90), "1969-12-31T22:30:00-01:30");
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(now_millis().len(), "2026-01-02T03:04:05.678Z".len());
    }
}
