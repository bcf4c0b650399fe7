//! Running a plain command without a shell. Starting bash costs about a millisecond, most commands are words only, and for
//! those the shell adds nothing but a few variables. Whatever could make a difference sends the command to the shell: this
//! module is allowed to say no, never to be wrong.

use crate::env::{Vars, is_name};
use crate::shell::Family;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longer lines go to the shell.
const COMMAND_BYTES_MAX: usize = 8 << 10;
/// From here on bash warns about its nesting.
const SHLVL_MAX: u32 = 998;

/// Reserved words and builtins of bash, dash and POSIX, other than those whose program of the same name does the same.
/// `echo`, `true` and `false` are handled by [`same_as_program`].
const SHELL_WORDS: &[&str] = &[
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cd",
    "chdir",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "fc",
    "fg",
    "fi",
    "for",
    "function",
    "getopts",
    "hash",
    "help",
    "history",
    "if",
    "in",
    "jobs",
    "kill",
    "let",
    "local",
    "logout",
    "mapfile",
    "popd",
    "printf",
    "pushd",
    "pwd",
    "read",
    "readarray",
    "readonly",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "test",
    "then",
    "time",
    "times",
    "trap",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "while",
];

/// Variables that change what a shell does, says or passes on.
const SHELL_VARIABLES: &[&str] = &[
    "ENV",
    "EUID",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "DIRSTACK",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "IFS",
    "LINENO",
    "OLDPWD",
    "OPTARG",
    "OPTERR",
    "OPTIND",
    "PIPESTATUS",
    "POSIXLY_CORRECT",
    "PPID",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SRANDOM",
    "UID",
];

/// What to execute instead of a shell.
#[derive(Debug, PartialEq, Eq)]
pub struct Direct {
    pub program: PathBuf,
    pub words: Vec<String>,
    pub vars: Vars,
}

/// The words of a command that is nothing but words: no quoting, expansion, redirection, assignment or comment.
pub fn simple_words(command: &str) -> Option<Vec<&str>> {
    if command.len() > COMMAND_BYTES_MAX {
        return None;
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_./:=@%+,-".contains(&b);
    let line = command.trim_matches([' ', '\t', '\n']);
    if line.is_empty() || !line.bytes().all(|b| plain(b) || b == b' ' || b == b'\t') {
        return None;
    }
    let words: Vec<&str> = line.split([' ', '\t']).filter(|w| !w.is_empty()).collect();
    let first = words.first()?;
    let is_command =
        !first.contains(['=', '%', ':', '@', ',']) && !matches!(*first, "." | "..") && !first.ends_with('/');
    is_command.then_some(words)
}

/// Decides whether `command`, given to a shell of this family in `cwd`, can be executed at once.
pub fn plan(command: &str, family: Family, cwd: &Path, vars: &Vars) -> Option<Direct> {
    let words = simple_words(command)?;
    if SHELL_WORDS.contains(&words[0]) || !same_as_program(&words) {
        return None;
    }
    prepare(&words, family, cwd, vars)
}

/// The same for words that are known to need no shell syntax.
pub fn prepare(words: &[&str], family: Family, cwd: &Path, vars: &Vars) -> Option<Direct> {
    let mut vars = environment(family, cwd, vars)?;
    let program = if words[0].contains('/') {
        let path = PathBuf::from(words[0]);
        Some(path).filter(|p| is_executable(&cwd.join(p)))
    } else {
        search(words[0], &vars)
    }?;
    if family == Family::Bash {
        vars.insert("_".to_owned(), program.to_str()?.to_owned());
    }
    Some(Direct { program, words: words.iter().map(|w| (*w).to_owned()).collect(), vars })
}

/// `true`, `false` and an `echo` without options behave alike inside and outside of the shell.
fn same_as_program(words: &[&str]) -> bool {
    match words[0] {
        "true" | "false" => words.len() == 1,
        "echo" => words[1..].iter().all(|w| !w.starts_with('-')),
        _ => true,
    }
}

/// What the shell would pass on. `None` when a variable makes that hard to say.
fn environment(family: Family, cwd: &Path, vars: &Vars) -> Option<Vars> {
    let odd = |name: &str| !is_name(name) || name.starts_with("BASH") || SHELL_VARIABLES.contains(&name);
    if family == Family::Other || vars.keys().any(|name| odd(name)) {
        return None;
    }
    if vars.get("LC_ALL").is_some_and(|v| !matches!(v.as_str(), "" | "C" | "POSIX")) {
        return None;
    }
    let path = vars.get("PATH")?;
    if path.is_empty() || !path.split(':').all(|dir| dir.starts_with('/')) {
        return None;
    }
    let here = std::fs::canonicalize(cwd).ok()?;
    let here = here.to_str()?;
    if vars.get("PWD").is_some_and(|v| v != here) || names_differently(vars.get("HOME"), here) {
        return None;
    }
    let mut vars = vars.clone();
    vars.insert("PWD".to_owned(), here.to_owned());
    if family == Family::Bash {
        let level = match vars.get("SHLVL") {
            None => 1,
            Some(v) => v.parse().ok().filter(|n| (0..=SHLVL_MAX).contains(n))? + 1,
        };
        vars.insert("SHLVL".to_owned(), level.to_string());
    }
    Some(vars)
}

/// bash calls the directory by `$HOME`'s spelling when both are the same one.
fn names_differently(home: Option<&String>, here: &str) -> bool {
    let Some(home) = home.filter(|h| *h != here) else { return false };
    match (std::fs::metadata(home), std::fs::metadata(here)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// The first executable regular file of that name in `PATH`.
pub fn search(name: &str, vars: &Vars) -> Option<PathBuf> {
    let dirs = vars.get("PATH")?.split(':').filter(|dir| dir.starts_with('/'));
    dirs.map(|dir| Path::new(dir).join(name)).find(|p| is_executable(p))
}

pub fn is_executable(path: &Path) -> bool {
    let usable = accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    usable && std::fs::metadata(path).is_ok_and(|m| m.is_file())
}

/// What a shell of this family says on standard error when a command dies of a signal.
pub fn signal_notice(family: Family, shell: &str, pid: i32, signal: i32, core: bool, command: &str) -> Vec<u8> {
    let Some(name) = signal_name(signal) else { return Vec::new() };
    let dumped = if core { "(core dumped) " } else { "" };
    let text = match family {
        Family::Bash if signal != SIGTERM => {
            format!("{shell}: line 1: {pid:5} {name:<24}{dumped}{}\n", command.trim_matches([' ', '\t', '\n']))
        }
        _ => format!("{name}{}\n", dumped.trim_end().replace('(', " (")),
    };
    text.into_bytes()
}

const SIGTERM: i32 = 15;

/// The C library's names. Shells are silent about SIGINT and SIGPIPE.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "Hangup",
        3 => "Quit",
        4 => "Illegal instruction",
        5 => "Trace/breakpoint trap",
        6 => "Aborted",
        7 => "Bus error",
        8 => "Floating point exception",
        9 => "Killed",
        10 => "User defined signal 1",
        11 => "Segmentation fault",
        12 => "User defined signal 2",
        14 => "Alarm clock",
        SIGTERM => "Terminated",
        24 => "CPU time limit exceeded",
        25 => "File size limit exceeded",
        31 => "Bad system call",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        let base = [("PATH", "/usr/bin:/bin")];
        base.iter().chain(pairs).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn direct(command: &str, pairs: &[(&str, &str)]) -> bool {
        plan(command, Family::Bash, Path::new("/"), &vars(pairs)).is_some()
    }

    #[test]
    fn plain_commands_go_direct() {
        for command in ["true", "ls -la /tmp", "  uname\t-a \n", "echo hi there", "/bin/ls a=b", "git log --format=%h"]
        {
            assert!(simple_words(command).is_some(), "{command}");
        }
        assert!(direct("true", &[]) && direct("/bin/ls", &[]) && direct("ls -l", &[("SHLVL", "3")]));
    }

    #[test]
    fn everything_else_goes_to_the_shell() {
        for command in [
            "", "a=1", "A=b ls", "ls;", "ls\nls", "ls &", "$x", "echo \\n", "echo 'a'", "ls ~", "ls *", "%1", ":", ".",
            "ls #", "a{b,c}", "./", "ls\r", "é", "ls\0",
        ] {
            assert!(simple_words(command).is_none(), "{command:?}");
        }
        for command in
            ["cd /", "exit", "echo -n", "pwd", "kill 1", "time ls", "true x", "nonexistent-xyz", "if", "/tmp"]
        {
            assert!(!direct(command, &[]), "{command:?}");
        }
        for odd in
            [("BASH_ENV", "/x"), ("a.b", "c"), ("PWD", "/tmp"), ("LC_ALL", "xx"), ("SHLVL", "x"), ("PATH", ":/bin")]
        {
            assert!(!direct("ls", &[odd]), "{odd:?}");
        }
    }

    proptest! {
        /// bash, asked to print the words it sees, agrees with the split; anything with syntax in it is left alone.
        #[test]
        fn words_are_those_of_the_shell(command in "[ a-c./:=@%+,\\-\t\n$'\"\\\\;&|<>(){}*?!~#\\[\\]]{0,24}") {
            if let Some(words) = simple_words(&command) {
                let special = |c: char| "$'\"\\;&|<>(){}*?!~#[]`".contains(c);
                prop_assert!(!command.contains(special));
                prop_assert!(words.iter().all(|w| !w.is_empty() && !w.contains([' ', '\t', '\n'])));
                let script = format!("set -- {}\nprintf '%s\\n' \"$@\"", command.trim());
                let shell = std::process::Command::new("bash").arg("-c").arg(script).output().unwrap();
                let seen = String::from_utf8(shell.stdout).unwrap();
                prop_assert_eq!(words, seen.lines().collect::<Vec<_>>());
            }
        }
    }
}
