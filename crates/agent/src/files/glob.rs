//! Shell patterns on a base name, as Go's `filepath.Match` reads them: `*` `?` `[a-z]` `[^a]` and backslash. A malformed
//! pattern matches nothing. Linear in time for every pattern: a star never has to be tried twice.

/// Whether `pattern` matches the whole of `name`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some(tokens) = parse(pattern) else { return false };
    let name: Vec<char> = name.chars().collect();
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match tokens.get(token) {
            Some(Token::Star) => {
                star = Some((token, at));
                token += 1;
            }
            Some(t) if t.fits(name[at]) => {
                token += 1;
                at += 1;
            }
            _ => match star.as_mut() {
                Some((star_token, from)) if name[*from] != '/' => {
                    *from += 1;
                    (token, at) = (*star_token + 1, *from);
                }
                _ => return false,
            },
        }
    }
    tokens[token..].iter().all(|t| matches!(t, Token::Star))
}

enum Token {
    Star,
    Any,
    One(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Token {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => c != '/',
            Self::One(want) => *want == c,
            Self::Class { negated, ranges } => ranges.iter().any(|(lo, hi)| (*lo..=*hi).contains(&c)) != *negated,
        }
    }
}

fn parse(pattern: &str) -> Option<Vec<Token>> {
    let mut chars = pattern.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::One(chars.next()?),
            '[' => class(&mut chars)?,
            c => Token::One(c),
        });
    }
    Some(tokens)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Token::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn like_go() {
        for (pattern, name, want) in [
            ("*.py", "a.py", true),
            ("*.py", "a.pyc", false),
            ("a?c", "abc", true),
            ("[a-c]*", "bcd", true),
            ("[^a]b", "ab", false),
            ("\\*", "*", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("[", "[", false),
            ("[]a]", "a", false),
            ("**", "ab", true),
            ("{a,b}", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn an_escaped_name_matches_itself(name in "[^/]{1,12}") {
            let escaped: String = name.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert!(matches(&escaped, &name));
            let around = format!("*{escaped}*");
            prop_assert!(matches(&around, &name));
        }

        #[test]
        fn never_slow_never_panics(pattern in "[a*?\\[\\]^\\\\-]{0,40}", name in "a{0,200}") {
            let _ = matches(&pattern, &name);
        }
    }
}
