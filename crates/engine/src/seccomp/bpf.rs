//! Compiles ranges of system call numbers into a binary search in classic BPF. Knows nothing of names or policy files.

use super::{Condition, Rule, Test};
use infield_sys::seccomp::Insn;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GE: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;

/// Offsets in the kernel's `seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
    Insn { code, jt, jf, k }
}

fn ret(k: u32) -> Insn {
    insn(RETURN, 0, 0, k)
}

fn ret_errno(errno: u16) -> Insn {
    ret(RET_ERRNO | u32::from(errno))
}

/// `ranges` is sorted, begins at 0, and each range reaches to the next. Calls of another architecture end the process: their
/// numbers mean something else.
pub(crate) fn compile(audit_arch: u32, ranges: &[(u32, Rule)]) -> Vec<Insn> {
    let mut program = vec![
        insn(LOAD, 0, 0, OFFSET_ARCH),
        insn(JUMP_EQ, 1, 0, audit_arch),
        ret(RET_KILL_PROCESS),
        insn(LOAD, 0, 0, OFFSET_NR),
    ];
    program.extend(search(ranges));
    program
}

fn search(ranges: &[(u32, Rule)]) -> Vec<Insn> {
    match ranges {
        [] => vec![ret(RET_KILL_PROCESS)],
        [(_, rule)] => leaf(rule),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (low_code, high_code) = (search(low), search(high));
            let border = high[0].0;
            // Number below the border: go on with the next instruction. Otherwise jump over the lower half.
            let mut code = match u8::try_from(low_code.len()) {
                Ok(over) => vec![insn(JUMP_GE, over, 0, border)],
                // Conditional jumps reach 255 instructions, the plain jump any number.
                Err(_) => vec![insn(JUMP_GE, 0, 1, border), insn(JUMP, 0, 0, low_code.len() as u32)],
            };
            code.extend(low_code);
            code.extend(high_code);
            code
        }
    }
}

fn leaf(rule: &Rule) -> Vec<Insn> {
    match rule {
        Rule::Allow => vec![ret(RET_ALLOW)],
        Rule::Errno(errno) => vec![ret_errno(*errno)],
        Rule::When { conditions, otherwise } => {
            let mut code: Vec<Insn> = conditions.iter().flat_map(|c| condition(c, *otherwise)).collect();
            code.push(ret(RET_ALLOW));
            code
        }
    }
}

/// Refuses, or goes on with what follows it.
fn condition(Condition { arg, test }: &Condition, otherwise: u16) -> Vec<Insn> {
    // Low half of a 64-bit argument; both supported architectures are little-endian.
    let mut code = vec![insn(LOAD, 0, 0, OFFSET_ARGS + 8 * arg)];
    match test {
        Test::NoneOfBits(bits) => code.push(insn(JUMP_SET, 0, 1, *bits)),
        Test::OneOf { mask, values } => {
            if *mask != u32::MAX {
                code.push(insn(AND, 0, 0, *mask));
            }
            for (i, value) in values.iter().enumerate() {
                // Over the remaining comparisons and the refusal.
                let over = (values.len() - i) as u8;
                code.push(insn(JUMP_EQ, over, 0, *value));
            }
        }
    }
    code.push(ret_errno(otherwise));
    code
}

#[cfg(test)]
pub(crate) mod interpreter {
    //! Runs a program as the kernel would, for the few instructions the compiler emits.
    use super::*;

    pub(crate) struct Call {
        pub arch: u32,
        pub nr: u32,
        pub args: [u64; 6],
    }

    /// What the policy says, without a program. No rule: the number is unknown.
    pub(crate) fn verdict(rule: Option<&Rule>, args: &[u64; 6]) -> u32 {
        let errno = |e: u16| RET_ERRNO | u32::from(e);
        let passes = |c: &Condition| {
            let arg = args[c.arg as usize] as u32;
            match &c.test {
                Test::OneOf { mask, values } => values.contains(&(arg & mask)),
                Test::NoneOfBits(bits) => arg & bits == 0,
            }
        };
        match rule {
            None => errno(38),
            Some(Rule::Allow) => RET_ALLOW,
            Some(Rule::Errno(e)) => errno(*e),
            Some(Rule::When { conditions, .. }) if conditions.iter().all(passes) => RET_ALLOW,
            Some(Rule::When { otherwise, .. }) => errno(*otherwise),
        }
    }

    pub(crate) fn run(program: &[Insn], call: &Call) -> u32 {
        let (mut pc, mut accumulator) = (0usize, 0u32);
        loop {
            let i = program[pc];
            pc += 1;
            let either = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
            match i.code {
                LOAD => {
                    accumulator = match i.k {
                        OFFSET_NR => call.nr,
                        OFFSET_ARCH => call.arch,
                        k => (call.args[(k - OFFSET_ARGS) as usize / 8] >> (8 * ((k - OFFSET_ARGS) % 8))) as u32,
                    }
                }
                AND => accumulator &= i.k,
                JUMP => pc += i.k as usize,
                JUMP_EQ => pc += either(accumulator == i.k),
                JUMP_GE => pc += either(accumulator >= i.k),
                JUMP_SET => pc += either(accumulator & i.k != 0),
                RETURN => return i.k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::interpreter::{Call, run, verdict};
    use super::*;
    use proptest::prelude::*;

    fn any_test() -> impl Strategy<Value = Test> {
        let mask = prop_oneof![Just(u32::MAX), any::<u32>(), Just(15)];
        let values = proptest::collection::vec(prop_oneof![any::<u32>(), 0u32..16], 1..40);
        prop_oneof![
            (mask, values).prop_map(|(mask, values)| Test::OneOf { mask, values }),
            any::<u32>().prop_map(Test::NoneOfBits),
        ]
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let condition = (0u32..6, any_test()).prop_map(|(arg, test)| Condition { arg, test });
        prop_oneof![
            Just(Rule::Allow),
            (1u16..200).prop_map(Rule::Errno),
            (proptest::collection::vec(condition, 1..4), 1u16..200)
                .prop_map(|(conditions, otherwise)| Rule::When { conditions, otherwise }),
        ]
    }

    proptest! {
        /// The search finds the range a linear scan would, whatever the ranges are.
        #[test]
        fn search_equals_scan(
            starts in proptest::collection::btree_map(1u32..3000, any_rule(), 0..300),
            first in any_rule(),
            probes in proptest::collection::vec(
                (0u32..3100, proptest::array::uniform6(prop_oneof![any::<u64>(), 0u64..16])), 50),
        ) {
            let ranges: Vec<(u32, Rule)> = std::iter::once((0, first)).chain(starts).collect();
            let program = compile(7, &ranges);
            for (nr, args) in probes {
                let (_, rule) = ranges.iter().rev().find(|(start, _)| *start <= nr).unwrap();
                let expected = verdict(Some(rule), &args);
                prop_assert_eq!(run(&program, &Call { arch: 7, nr, args }), expected);
            }
        }
    }
}
