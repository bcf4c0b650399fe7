//! The `Range` header. Pure.

/// First byte and number of bytes.
pub type Span = (u64, u64);

/// One range of bytes. `Ok(None)`: the whole file (no range that we understand, or several at once).
pub fn parse_range(text: &str, size: u64) -> Result<Option<Span>, ()> {
    let Some(range) = text.strip_prefix("bytes=").filter(|r| !r.contains(',')) else { return Ok(None) };
    let Some((first, last)) = range.trim().split_once('-') else { return Err(()) };
    if first.is_empty() {
        let suffix = last.parse::<u64>().map_err(|_| ())?.min(size);
        return if suffix == 0 { Err(()) } else { Ok(Some((size - suffix, suffix))) };
    }
    let first = first.parse::<u64>().map_err(|_| ())?;
    let last = if last.is_empty() { u64::MAX } else { last.parse::<u64>().map_err(|_| ())? };
    if first >= size || last < first {
        return Err(());
    }
    Ok(Some((first, last.min(size - 1) - first + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        assert_eq!(parse_range("bytes=0-9", 100), Ok(Some((0, 10))));
        assert_eq!(parse_range("bytes=90-", 100), Ok(Some((90, 10))));
        assert_eq!(parse_range("bytes=-5", 100), Ok(Some((95, 5))));
        assert_eq!(parse_range("bytes=100-", 100), Err(()));
        assert_eq!(parse_range("bytes=5-1", 100), Err(()));
        assert_eq!(parse_range("bytes=0-1,3-4", 100), Ok(None));
        assert_eq!(parse_range("lines=0-1", 100), Ok(None));
    }

    proptest! {
        #[test]
        fn a_range_stays_inside(text in "bytes=[0-9]{0,4}-[0-9]{0,4}", size in 0u64..5000) {
            if let Ok(Some((start, bytes))) = parse_range(&text, size) {
                prop_assert!(bytes > 0 && start + bytes <= size);
            }
        }
    }
}
