//! A random policy, compiled and interpreted as the kernel would: every call gets exactly its range's verdict.
#![no_main]

// Here and not in the library: the types of a policy are private to the engine, and so visible in one crate only.
#[allow(dead_code)]
#[path = "../../crates/engine/src/seccomp/mod.rs"]
mod seccomp;

use arbitrary::Arbitrary;
use infield_sys::seccomp::Insn;
use libfuzzer_sys::fuzz_target;
use seccomp::{Condition, Rule, Test, bpf::compile};
use std::collections::BTreeMap;

const ARCH: u32 = 0xC000_003E;

#[derive(Arbitrary, Debug)]
enum AnyRule {
    Allow,
    Errno(u16),
    When(AnyCondition, Vec<AnyCondition>, u16),
}

#[derive(Arbitrary, Debug)]
enum AnyCondition {
    OneOf(u8, Vec<u32>),
    MaskedOneOf(u8, u32, Vec<u32>),
    NoneOf(u8, u32),
}

#[derive(Arbitrary, Debug)]
struct Input {
    rules: Vec<(u16, AnyRule)>,
    calls: Vec<(u32, [u64; 6])>,
    foreign: u32,
}

fn rule(any: &AnyRule) -> Rule {
    match any {
        AnyRule::Allow => Rule::Allow,
        AnyRule::Errno(errno) => Rule::Errno(errno % 4096),
        AnyRule::When(first, more, otherwise) => {
            let conditions = std::iter::once(first).chain(more.iter().take(3)).map(condition).collect();
            Rule::When { conditions, otherwise: otherwise % 4096 }
        }
    }
}

fn condition(any: &AnyCondition) -> Condition {
    let (arg, test) = match any {
        AnyCondition::OneOf(arg, values) => (arg, one_of(u32::MAX, values)),
        AnyCondition::MaskedOneOf(arg, mask, values) => (arg, one_of(*mask, values)),
        AnyCondition::NoneOf(arg, bits) => (arg, Test::NoneOfBits(*bits)),
    };
    Condition { arg: u32::from(arg % 6), test }
}

/// As many values as the policy's reader lets through: 1 to 199.
fn one_of(mask: u32, values: &[u32]) -> Test {
    let values = if values.is_empty() { vec![7] } else { values.iter().copied().take(199).collect() };
    Test::OneOf { mask, values }
}

fn expected(rule: &Rule, args: &[u64; 6]) -> u32 {
    let errno = |errno: u16| 0x0005_0000 | u32::from(errno);
    let passes = |condition: &Condition| {
        let value = args[condition.arg as usize] as u32;
        match &condition.test {
            Test::OneOf { mask, values } => values.contains(&(value & mask)),
            Test::NoneOfBits(bits) => value & bits == 0,
        }
    };
    match rule {
        Rule::Allow => 0x7fff_0000,
        Rule::Errno(e) => errno(*e),
        Rule::When { conditions, .. } if conditions.iter().all(passes) => 0x7fff_0000,
        Rule::When { otherwise, .. } => errno(*otherwise),
    }
}

fn run(program: &[Insn], arch: u32, nr: u32, args: &[u64; 6]) -> u32 {
    let (mut pc, mut accumulator) = (0usize, 0u32);
    loop {
        let i = &program[pc];
        pc += 1;
        let either = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            0x20 => {
                assert_eq!(i.k % 4, 0);
                accumulator = match i.k {
                    0 => nr,
                    4 => arch,
                    k => (args[(k as usize - 16) / 8] >> (8 * ((k - 16) % 8))) as u32,
                };
            }
            0x54 => accumulator &= i.k,
            0x05 => pc += i.k as usize,
            0x15 => pc += either(accumulator == i.k),
            0x35 => pc += either(accumulator >= i.k),
            0x45 => pc += either(accumulator & i.k != 0),
            0x06 => return i.k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

fuzz_target!(|input: Input| {
    let mut rules: BTreeMap<u32, Rule> = input.rules.iter().map(|(at, any)| (u32::from(*at), rule(any))).collect();
    rules.entry(0).or_insert(Rule::Errno(38));
    let ranges: Vec<(u32, Rule)> = rules.clone().into_iter().collect();
    let program = compile(ARCH, &ranges);
    let borders = ranges.iter().flat_map(|(at, _)| [at.saturating_sub(1), *at, at + 1]).map(|nr| (nr, [7; 6]));
    for (nr, args) in input.calls.iter().copied().chain(borders) {
        let rule = rules.range(..=nr).next_back().expect("0 is there").1;
        assert_eq!(run(&program, ARCH, nr, &args), expected(rule, &args), "number {nr}");
        if input.foreign != ARCH {
            assert_eq!(run(&program, input.foreign, nr, &args), 0x8000_0000);
        }
    }
});
