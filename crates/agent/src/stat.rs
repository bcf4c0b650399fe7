//! Reading `/proc/<pid>/stat`, where every process chooses a part of the text: its name. Knows no files.

/// One line of `/proc/<pid>/stat`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub state: u8,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    pub began: u64,
}

/// The name of a program may hold anything, so its last bracket counts.
pub fn parse_stat(text: &[u8]) -> Option<Stat> {
    let after = memchr::memrchr(b')', text)? + 1;
    let text = std::str::from_utf8(&text[after..]).ok()?;
    let mut words = text.split_ascii_whitespace();
    let state = *words.next()?.as_bytes().first()?;
    let mut number = || words.next()?.parse::<i32>().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    let began = words.nth(15)?.parse().ok()?;
    Some(Stat { state, parent, group, session, began })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stat_lines() {
        let line = b"42 (a) b) (c) S 1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 9 9\n";
        let expected = Stat { state: b'S', parent: 1, group: 2, session: 3, began: 777 };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat(b"42 (a S 1 2 3"), None);
    }

    proptest! {
        #[test]
        fn any_name_is_read(name in "[^\0]{0,30}") {
            let line = format!("42 ({name}) S 1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 9");
            prop_assert_eq!(parse_stat(line.as_bytes()).map(|s| s.began), Some(777));
        }

        #[test]
        fn nothing_breaks_it(line: Vec<u8>) {
            let _ = parse_stat(&line);
        }
    }
}
