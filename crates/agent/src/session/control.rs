//! How a session's shell is told to run a command, and how it says that the command has ended. The shell reads one line for
//! each command and answers on a socket that the command does not inherit, with a number only this line knows: nothing a
//! command prints can end it, and nothing an earlier command left behind can end a later one.
//!
//! The shell holds the *reading* ends of the output pipes, closed while a command runs; it opens the writing ends by their
//! names in `/proc`. So no file of the sandbox's disk takes part, and the pipes end when the command's last process has.

use crate::shell::Shell;

/// Longer lines are none of ours.
const LINE_BYTES_MAX: usize = 128;

/// How one family of shells spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The descriptors: input, output, errors, text; the number below is free.
    pub first: i32,
    source: &'static str,
    echo: &'static str,
}

/// Takes descriptors that nobody uses by hand.
const BASH: Dialect = Dialect { first: 60, source: ".", echo: "\\builtin echo" };
/// Only knows numbers of one digit.
const ZSH: Dialect = Dialect { first: 6, source: ".", echo: "\\builtin echo" };
/// `command` keeps a syntax error in the text from ending the shell.
const POSIX: Dialect = Dialect { first: 6, source: "\\command .", echo: "\\command echo" };
/// Shells of other languages; they cannot run a session.
const FOREIGN: [&str; 8] = ["fish", "csh", "tcsh", "nu", "xonsh", "elvish", "pwsh", "python3"];

impl Dialect {
    /// `None` = this shell does not speak the language of `sh`.
    pub fn of(shell: &Shell) -> Option<Self> {
        let real = std::fs::canonicalize(&shell.path).unwrap_or_else(|_| shell.path.clone());
        let name = real.file_name()?.to_str()?;
        match name {
            "bash" => Some(BASH),
            _ if name.starts_with("zsh") => Some(ZSH),
            _ if FOREIGN.contains(&name) => None,
            _ => Some(POSIX),
        }
    }

    /// What the text begins with: the shell has it open by then, and the command need not.
    pub fn preamble(self) -> String {
        format!("exec {}<&-; ", self.first - 1)
    }

    /// Runs the text and says how it ended. `open_input`: the command may read what clients send it.
    pub fn line(self, nonce: &str, open_input: bool) -> String {
        let Self { first, source, echo } = self;
        let (free, output, errors, text) = (first - 1, first + 1, first + 2, first + 3);
        let input = if open_input { format!("/proc/self/fd/{first}") } else { "/dev/null".to_owned() };
        format!(
            "{{ {source} /proc/self/fd/{free}; }} {free}</proc/self/fd/{text} <{input} >/proc/self/fd/{output} \
             2>/proc/self/fd/{errors} {first}<&- {output}<&- {errors}<&- {text}<&- ; {echo} \"{nonce} $?\"\n"
        )
    }
}

/// Finds lines in what the shell says; everything that is no answer is ignored.
#[derive(Default)]
pub struct Answers {
    line: Vec<u8>,
    overlong: bool,
}

impl Answers {
    /// The exit code, if these bytes complete the answer with this number.
    pub fn push(&mut self, bytes: &[u8], nonce: &str) -> Option<i32> {
        let mut code = None;
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let ends = piece.last() == Some(&b'\n');
            if self.line.len() + piece.len() > LINE_BYTES_MAX {
                self.overlong = true;
            } else if !self.overlong {
                self.line.extend_from_slice(piece);
            }
            if ends {
                if !self.overlong && code.is_none() {
                    code = exit_code(&self.line, nonce);
                }
                self.line.clear();
                self.overlong = false;
            }
        }
        code
    }
}

fn exit_code(line: &[u8], nonce: &str) -> Option<i32> {
    let digits = line.strip_prefix(nonce.as_bytes())?.strip_prefix(b" ")?.strip_suffix(b"\n")?;
    let plain = !digits.is_empty() && digits.len() <= 10 && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_answer_is_found_however_it_comes(noise in "[a-z 0-9\n]{0,300}", code in 0i32..256, size in 1usize..40) {
            let said = format!("{noise}\nNONCE {code}\n{noise}");
            let mut answers = Answers::default();
            let found: Vec<i32> =
                said.as_bytes().chunks(size).filter_map(|c| answers.push(c, "NONCE")).collect();
            prop_assert_eq!(found, [code]);
        }

        #[test]
        fn noise_is_no_answer_and_takes_no_room(said: Vec<u8>, size in 1usize..40) {
            let mut answers = Answers::default();
            for piece in said.chunks(size) {
                prop_assert_eq!(answers.push(piece, "0123456789abcdef"), None);
                prop_assert!(answers.line.len() <= LINE_BYTES_MAX);
            }
        }
    }

    #[test]
    fn forms() {
        let code = |line: &str| exit_code(line.as_bytes(), "n");
        assert_eq!((code("n 0\n"), code("n 255\n")), (Some(0), Some(255)));
        for wrong in ["n 0", "n  0\n", "n -1\n", "n \n", "nn 0\n", "n 99999999999\n", " n 0\n", "n 0 \n"] {
            assert_eq!(code(wrong), None, "{wrong:?}");
        }
        let shell = |path: &str| Shell { path: path.into(), name: path.to_owned() };
        assert_eq!(Dialect::of(&shell("/nonexistent/bash")), Some(BASH));
        assert_eq!(Dialect::of(&shell("/nonexistent/zsh-5.9")), Some(ZSH));
        assert_eq!(Dialect::of(&shell("/nonexistent/ash")), Some(POSIX));
        assert_eq!(Dialect::of(&shell("/nonexistent/fish")), None);
    }
}
