//! The system call filter: policy as commented data (`default.json`), turned once into a searching BPF program.
//!
//! Knows names, numbers and verdicts; installing the program is `sys`'s word, choosing the moment is the zygote's.

mod bpf;

use infield_sys::seccomp::Insn;
use serde::Deserialize;
use std::collections::BTreeMap;

const POLICY: &str = include_str!("default.json");
const SYSCALLS: &str = include_str!("syscalls.txt");
const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// Processor families the filter can be made for, with the audit number the kernel reports for their calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    /// The one this program was built for; `None` = sandboxes cannot be made here.
    pub fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
            Self::Aarch64 => 0xC000_00B7,
        }
    }
}

/// What happens to one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Allow,
    Errno(u16),
    /// Allowed when the low 32 bits of an argument pass (the kernel looks at no more of these arguments).
    When {
        arg: u32,
        test: Test,
        otherwise: u16,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    OneOf(Vec<u32>),
    NoneOfBits(u32),
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("system call policy is not valid JSON")]
    Json(#[from] serde_json::Error),
    #[error("system call policy, {name}: {why}")]
    Entry { name: String, why: &'static str },
    #[error("system call filter has {0} instructions, more than the kernel takes")]
    TooLong(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "comment")]
    _comment: Vec<String>,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(rename = "comment")]
    _comment: String,
    verdict: Verdict,
    names: Vec<String>,
    when: Option<When>,
    otherwise: Option<Otherwise>,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Allow,
    Eperm,
    Enosys,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    arg: u32,
    one_of: Option<Vec<u32>>,
    none_of_bits: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Otherwise {
    errno: u16,
}

/// The program for an architecture.
pub fn program(arch: Arch) -> Result<Vec<Insn>, PolicyError> {
    let insns = bpf::compile(arch.audit(), &ranges(&rules(arch)?));
    if insns.len() > infield_sys::seccomp::INSNS_MAX {
        return Err(PolicyError::TooLong(insns.len()));
    }
    Ok(insns)
}

/// Numbers by name. A line is `name x86_64 aarch64`, `-` = the architecture lacks it.
fn numbers(arch: Arch) -> BTreeMap<&'static str, u32> {
    let column = match arch {
        Arch::X86_64 => 1,
        Arch::Aarch64 => 2,
    };
    SYSCALLS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            Some((*words.first()?, words.get(column)?.parse().ok()?))
        })
        .collect()
}

/// The rule of every known number. Known but unlisted = EPERM.
fn rules(arch: Arch) -> Result<BTreeMap<u32, Rule>, PolicyError> {
    let document: Document = serde_json::from_str(POLICY)?;
    let numbers = numbers(arch);
    let mut rules: BTreeMap<u32, Rule> = numbers.values().map(|nr| (*nr, Rule::Errno(EPERM))).collect();
    for group in &document.groups {
        for name in &group.names {
            let rule = rule(group).map_err(|why| PolicyError::Entry { name: name.clone(), why })?;
            if let Some(nr) = numbers.get(name.as_str()) {
                rules.insert(*nr, rule);
            }
        }
    }
    Ok(rules)
}

fn rule(group: &Group) -> Result<Rule, &'static str> {
    match (group.verdict, &group.when, &group.otherwise) {
        (Verdict::Allow, None, None) => Ok(Rule::Allow),
        (Verdict::Eperm, None, None) => Ok(Rule::Errno(EPERM)),
        (Verdict::Enosys, None, None) => Ok(Rule::Errno(ENOSYS)),
        (Verdict::Allow, Some(when), Some(otherwise)) if when.arg < 6 => {
            let test = match (&when.one_of, when.none_of_bits) {
                (Some(values), None) if !values.is_empty() && values.len() < 200 => Test::OneOf(values.clone()),
                (None, Some(bits)) => Test::NoneOfBits(bits),
                _ => return Err("`when` needs exactly one of one_of (1 to 199 values), none_of_bits"),
            };
            Ok(Rule::When { arg: when.arg, test, otherwise: otherwise.errno })
        }
        _ => Err("`when` and `otherwise` belong together, to an allow"),
    }
}

/// The rules as ranges: each starts at its number and reaches to the next. Numbers nobody knows yet, holes and the x32 and
/// other out-of-range numbers answer ENOSYS.
fn ranges(rules: &BTreeMap<u32, Rule>) -> Vec<(u32, Rule)> {
    let mut ranges: Vec<(u32, Rule)> = Vec::new();
    let mut push = |start: u32, rule: &Rule| {
        if ranges.last().is_none_or(|(_, last)| last != rule) {
            ranges.push((start, rule.clone()));
        }
    };
    let mut next = 0;
    for (nr, rule) in rules {
        if *nr > next {
            push(next, &Rule::Errno(ENOSYS));
        }
        push(*nr, rule);
        next = nr + 1;
    }
    push(next, &Rule::Errno(ENOSYS));
    ranges
}

#[cfg(test)]
mod tests {
    use super::bpf::interpreter::{Call, run};
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;

    fn expected(rules: &BTreeMap<u32, Rule>, nr: u32, arg0: u64) -> u32 {
        let errno = |e: u16| 0x0005_0000 | u32::from(e);
        match rules.get(&nr) {
            None => errno(ENOSYS),
            Some(Rule::Allow) => ALLOW,
            Some(Rule::Errno(e)) => errno(*e),
            Some(Rule::When { test, otherwise, .. }) => {
                let passes = match test {
                    Test::OneOf(values) => values.contains(&(arg0 as u32)),
                    Test::NoneOfBits(bits) => arg0 as u32 & bits == 0,
                };
                if passes { ALLOW } else { errno(*otherwise) }
            }
        }
    }

    #[test]
    fn every_number_gets_the_verdict_of_the_policy() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let (rules, program) = (rules(arch).unwrap(), program(arch).unwrap());
            for nr in (0..2048).chain([0x4000_0000, 0x4000_0001, 0x7fff_ffff, 0x8000_0000, u32::MAX]) {
                for arg0 in
                    [0, 1, 2, 8, 10, 16, 17, 38, 40, 0x11, 0x1000_0000, 0x7e02_0000, 0x2_0000, u64::MAX, 1 << 32]
                {
                    let got = run(&program, &Call { arch: arch.audit(), nr, args: [arg0, 0, 0, 0, 0, 0] });
                    assert_eq!(got, expected(&rules, nr, arg0), "{arch:?} number {nr} arg0 {arg0:#x}");
                }
            }
            let foreign = Call { arch: 0x4000_0003, nr: 1, args: [0; 6] };
            assert_eq!(run(&program, &foreign), KILL, "i386 calls must be refused");
        }
    }

    #[test]
    fn every_known_call_has_a_stated_reason() {
        let document: Document = serde_json::from_str(POLICY).unwrap();
        let mut listed: Vec<&str> = document.groups.iter().flat_map(|g| g.names.iter().map(String::as_str)).collect();
        listed.sort_unstable();
        let count = listed.len();
        listed.dedup();
        assert_eq!(count, listed.len(), "a call stands in two groups");
        let mut known: Vec<&str> =
            SYSCALLS.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(' ').next()).collect();
        known.sort_unstable();
        assert_eq!(listed, known);
        assert!(document.groups.iter().all(|g| g._comment.len() >= 8));
    }

    #[test]
    fn the_dangerous_ones_are_refused() {
        let rules = rules(Arch::X86_64).unwrap();
        let numbers = numbers(Arch::X86_64);
        for name in ["mount", "unshare", "setns", "bpf", "kexec_load", "init_module", "keyctl", "open_by_handle_at"] {
            assert_eq!(rules[&numbers[name]], Rule::Errno(EPERM), "{name}");
        }
        assert_eq!(rules[&numbers["clone3"]], Rule::Errno(ENOSYS));
    }

    #[test]
    fn the_program_stays_small() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let len = program(arch).unwrap().len();
            assert!(len < 400, "{arch:?}: {len} instructions");
        }
    }
}
