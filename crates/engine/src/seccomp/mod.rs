//! The system call filter: policy as commented data (`default.json`), turned once into a searching BPF program.
//!
//! Knows names, numbers and verdicts; installing the program is `sys`'s word, choosing the moment is the zygote's.

pub(crate) mod bpf;

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
    /// Allowed when all conditions hold.
    When {
        conditions: Vec<Condition>,
        otherwise: u16,
    },
}

/// Looks at the low 32 bits of an argument; the kernel looks at no more of these arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub arg: u32,
    pub test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// The bits of the mask are one of the values.
    OneOf {
        mask: u32,
        values: Vec<u32>,
    },
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
    #[serde(default)]
    when: Vec<When>,
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
    mask: Option<u32>,
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
    match (group.verdict, group.when.as_slice(), &group.otherwise) {
        (Verdict::Allow, [], None) => Ok(Rule::Allow),
        (Verdict::Eperm, [], None) => Ok(Rule::Errno(EPERM)),
        (Verdict::Enosys, [], None) => Ok(Rule::Errno(ENOSYS)),
        (Verdict::Allow, [_, ..], Some(otherwise)) => {
            let conditions = group.when.iter().map(condition).collect::<Result<_, _>>()?;
            Ok(Rule::When { conditions, otherwise: otherwise.errno })
        }
        _ => Err("`when` and `otherwise` belong together, to an allow"),
    }
}

fn condition(when: &When) -> Result<Condition, &'static str> {
    let test = match (&when.one_of, when.mask, when.none_of_bits) {
        (Some(values), mask, None) if !values.is_empty() && values.len() < 200 => {
            Test::OneOf { mask: mask.unwrap_or(u32::MAX), values: values.clone() }
        }
        (None, None, Some(bits)) => Test::NoneOfBits(bits),
        _ => return Err("each `when` needs exactly one of one_of (1 to 199 values, perhaps a mask), none_of_bits"),
    };
    if when.arg >= 6 {
        return Err("a system call has arguments 0 to 5");
    }
    Ok(Condition { arg: when.arg, test })
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
    use super::bpf::interpreter::{Call, run, verdict};
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const KILL: u32 = 0x8000_0000;

    #[test]
    fn every_number_gets_the_verdict_of_the_policy() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let (rules, program) = (rules(arch).unwrap(), program(arch).unwrap());
            for nr in (0..2048).chain([0x4000_0000, 0x4000_0001, 0x7fff_ffff, 0x8000_0000, u32::MAX]) {
                for arg0 in
                    [0, 1, 2, 8, 10, 16, 17, 38, 40, 0x11, 0x1000_0000, 0x7e02_0000, 0x2_0000, u64::MAX, 1 << 32]
                {
                    // The second argument takes every type a socket can have, with and without its flags.
                    for arg1 in (0..16).chain([0x80801, 0x8080a, 1 << 32 | 10]) {
                        let args = [arg0, arg1, 0, 0, 0, 0];
                        let got = run(&program, &Call { arch: arch.audit(), nr, args });
                        assert_eq!(got, verdict(rules.get(&nr), &args), "{arch:?} number {nr} {arg0:#x} {arg1:#x}");
                    }
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
        for name in ["clone3", "io_uring_setup", "io_setup", "io_submit"] {
            assert_eq!(rules[&numbers[name]], Rule::Errno(ENOSYS), "{name}");
        }
    }

    /// Packet sockets have rings that count to no sandbox; IPv4 has an old type that makes one, too.
    #[test]
    fn no_way_leads_to_a_packet_socket() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let program = program(arch).unwrap();
            let nr = numbers(arch)["socket"];
            let socket =
                |family, kind| run(&program, &Call { arch: arch.audit(), nr, args: [family, kind, 0, 0, 0, 0] });
            for flags in [0, 0o4000, 0o2000000, 0o2004000, 0xf0, 1 << 32, u64::MAX << 4] {
                for kind in 0..16 {
                    assert_ne!(socket(17, kind | flags), ALLOW);
                    assert_eq!(socket(2, kind | flags) == ALLOW, [1, 2, 3, 5].contains(&kind), "{kind} {flags:#x}");
                }
            }
        }
    }

    #[test]
    fn the_program_stays_small() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let len = program(arch).unwrap().len();
            assert!(len < 400, "{arch:?}: {len} instructions");
        }
    }
}
