//! Compiles ranges of system call numbers into a binary search in classic BPF. Knows nothing of names or policy files.

use super::{Rule, Test};
use infield_sys::seccomp::Insn;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GE: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
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
        Rule::When { arg, test, otherwise } => {
            // Low half of a 64-bit argument; both supported architectures are little-endian.
            let mut code = vec![insn(LOAD, 0, 0, OFFSET_ARGS + 8 * arg)];
            match test {
                Test::NoneOfBits(bits) => {
                    code.extend([insn(JUMP_SET, 0, 1, *bits), ret_errno(*otherwise), ret(RET_ALLOW)]);
                }
                Test::OneOf(values) => {
                    for (i, value) in values.iter().enumerate() {
                        // Over the remaining comparisons and the refusal.
                        let over = (values.len() - i) as u8;
                        code.push(insn(JUMP_EQ, over, 0, *value));
                    }
                    code.extend([ret_errno(*otherwise), ret(RET_ALLOW)]);
                }
            }
            code
        }
    }
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
    use super::interpreter::{Call, run};
    use super::*;
    use proptest::prelude::*;

    fn any_rule() -> impl Strategy<Value = Rule> {
        prop_oneof![
            Just(Rule::Allow),
            (1u16..200).prop_map(Rule::Errno),
            (0u32..6, proptest::collection::vec(any::<u32>(), 1..40), 1u16..200)
                .prop_map(|(arg, values, otherwise)| Rule::When { arg, test: Test::OneOf(values), otherwise }),
            (0u32..6, any::<u32>(), 1u16..200).prop_map(|(arg, bits, otherwise)| Rule::When {
                arg,
                test: Test::NoneOfBits(bits),
                otherwise
            }),
        ]
    }

    proptest! {
        /// The search finds the range a linear scan would, whatever the ranges are.
        #[test]
        fn search_equals_scan(
            starts in proptest::collection::btree_map(1u32..3000, any_rule(), 0..300),
            first in any_rule(),
            probes in proptest::collection::vec((0u32..3100, any::<u64>()), 50),
        ) {
            let ranges: Vec<(u32, Rule)> = std::iter::once((0, first)).chain(starts).collect();
            let program = compile(7, &ranges);
            for (nr, arg) in probes {
                let (_, rule) = ranges.iter().rev().find(|(start, _)| *start <= nr).unwrap();
                let errno = |e: &u16| RET_ERRNO | u32::from(*e);
                let expected = match rule {
                    Rule::Allow => RET_ALLOW,
                    Rule::Errno(e) => errno(e),
                    Rule::When { test: Test::OneOf(v), otherwise, .. } =>
                        if v.contains(&(arg as u32)) { RET_ALLOW } else { errno(otherwise) },
                    Rule::When { test: Test::NoneOfBits(b), otherwise, .. } =>
                        if arg as u32 & b == 0 { RET_ALLOW } else { errno(otherwise) },
                };
                prop_assert_eq!(run(&program, &Call { arch: 7, nr, args: [arg; 6] }), expected);
            }
        }
    }
}
