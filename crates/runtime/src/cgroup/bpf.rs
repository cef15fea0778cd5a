//! Device rules as a BPF program for cgroup v2, which has no files for them.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use sys::bpf::{Insn, attach_device_program, detach_device_program, device_programs, load_device_program};

use super::device::{Kind, Rule};

// Operations: class, size or source, and kind, as in linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const SET: u8 = 0xb7;
const JUMP: u8 = 0x05;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_IF_ANY_BIT: u8 = 0x45;
const EXIT: u8 = 0x95;

/// The answer.
const R0: u8 = 0;
/// `struct bpf_cgroup_dev_ctx`: access and type, major, minor.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// The wanted accesses that no rule has decided yet.
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn insn(code: u8, to: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: to, offset, immediate }
}

/// The program: 1 permits, 0 denies. The rules are tried from the last to the first, each settling the accesses it is
/// about; a denied one ends it, and so does having none left. Pure.
pub(super) fn program(rules: &[Rule]) -> Vec<Insn> {
    let load = |to, offset| Insn { code: LOAD_WORD, registers: to | CONTEXT << 4, offset, immediate: 0 };
    let mut out = vec![
        load(KIND, 0),
        insn(AND, KIND, 0, 0xffff),
        load(OPEN, 0),
        insn(SHIFT_RIGHT, OPEN, 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        if rule.is_total() {
            answer(&mut out, rule.allow);
            // The verifier refuses what cannot be reached.
            return out;
        }
        one(&mut out, rule);
    }
    answer(&mut out, false);
    out
}

fn answer(out: &mut Vec<Insn>, allow: bool) {
    out.push(insn(SET, R0, 0, allow.into()));
    out.push(insn(EXIT, 0, 0, 0));
}

fn one(out: &mut Vec<Insn>, rule: &Rule) {
    let access = i32::from(rule.access);
    let mut body = vec![];
    if rule.allow {
        body.push(insn(AND, OPEN, 0, !access));
        body.push(insn(JUMP_NOT_EQUAL, OPEN, 2, 0));
    } else {
        body.push(insn(JUMP_IF_ANY_BIT, OPEN, 1, access));
        body.push(insn(JUMP, 0, 2, 0));
    }
    answer(&mut body, rule.allow);
    let kind = rule.kind.map(|k| if k == Kind::Block { 1 } else { 2 });
    let tests: Vec<(u8, i32)> = [(KIND, kind), (MAJOR, rule.major), (MINOR, rule.minor)]
        .into_iter()
        .filter_map(|(register, wanted)| Some((register, wanted?.cast_signed())))
        .collect();
    for (i, (register, wanted)) in tests.iter().enumerate() {
        let rest = tests.len() - i - 1 + body.len();
        out.push(insn(JUMP_NOT_EQUAL, *register, rest as i16, *wanted));
    }
    out.append(&mut body);
}

/// Puts the rules in force for a cgroup, in place of the programs it has had.
///
/// # Errors
/// Those of bpf(2): `EPERM` without privilege.
pub(super) fn enforce(cgroup: &Path, rules: &[Rule]) -> io::Result<()> {
    let program = load_device_program(&program(rules))?;
    let dir = std::fs::File::open(cgroup)?;
    // The new one first: at no moment is there none.
    let old = device_programs(dir.as_fd())?;
    attach_device_program(dir.as_fd(), program.as_fd())?;
    for program in old {
        detach_device_program(dir.as_fd(), program.as_fd())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::device::{ALL, MAKE, READ, WRITE, rules};
    use super::*;
    use serde_json::json;

    /// Runs the program as the kernel would; panics on anything the verifier would refuse.
    fn interpret(program: &[Insn], kind: u64, access: u8, major: u64, minor: u64) -> bool {
        let context = [kind | u64::from(access) << 16, major, minor];
        let mut r = [0_u64; 11];
        let mut at = 0_usize;
        loop {
            let i = program[at];
            let (to, from) = (usize::from(i.registers & 15), i.registers >> 4);
            let constant = i64::from(i.immediate).cast_unsigned();
            let mut jump = false;
            match i.code {
                LOAD_WORD => {
                    assert_eq!(from, CONTEXT);
                    r[to] = context[usize::try_from(i.offset / 4).unwrap()];
                }
                AND => r[to] = r[to] & constant & 0xffff_ffff,
                SHIFT_RIGHT => r[to] = (r[to] & 0xffff_ffff) >> i.immediate,
                SET => r[to] = constant,
                JUMP => jump = true,
                JUMP_NOT_EQUAL => jump = r[to] != constant,
                JUMP_IF_ANY_BIT => jump = r[to] & constant != 0,
                EXIT => return r[0] != 0,
                other => panic!("operation {other:#x}"),
            }
            at += 1 + usize::try_from(if jump { i.offset } else { 0 }).unwrap();
        }
    }

    /// What the rules mean, in the plainest words: for each access the last rule about it.
    fn meaning(rules: &[Rule], kind: u64, access: u8, major: u64, minor: u64) -> bool {
        let fits = |r: &Rule| {
            r.kind.is_none_or(|k| (k == Kind::Block) == (kind == 1))
                && r.major.is_none_or(|n| u64::from(n) == major)
                && r.minor.is_none_or(|n| u64::from(n) == minor)
        };
        [MAKE, READ, WRITE]
            .iter()
            .filter(|bit| access & **bit != 0)
            .all(|bit| rules.iter().rev().find(|r| fits(r) && r.access & bit != 0).is_some_and(|r| r.allow))
    }

    fn of(value: serde_json::Value) -> Vec<Rule> {
        rules(&serde_json::from_value::<Vec<_>>(value).unwrap()).unwrap()
    }

    #[test]
    fn the_program_means_what_the_rules_mean() {
        let lists = [
            json!([]),
            json!([{"allow": false, "access": "rwm"}]),
            json!([{"allow": true}]),
            json!([{"allow": true}, {"allow": false, "type": "b"}, {"allow": true, "type": "b", "major": 8, "access": "r"}]),
            json!([{"allow": true, "type": "c", "major": 10, "access": "r"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "w"}]),
            json!([{"allow": true, "type": "c", "major": 10}, {"allow": false, "type": "c", "major": 10, "minor": 200, "access": "wm"}]),
        ];
        for list in lists {
            let rules = of(list.clone());
            let program = program(&rules);
            for kind in [1, 2] {
                for (major, minor) in [(1, 3), (1, 11), (5, 2), (8, 0), (8, 1), (10, 200), (10, 229), (136, 7)] {
                    for access in 1..=ALL {
                        assert_eq!(
                            interpret(&program, kind, access, major, minor),
                            meaning(&rules, kind, access, major, minor),
                            "{list} kind {kind} access {access} {major}:{minor}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_unreachable() {
        for list in [json!([{"allow": true}]), json!([{"allow": false}]), json!([])] {
            let program = program(&of(list));
            let exits = program.iter().filter(|i| i.code == EXIT).count();
            assert_eq!(program.last().unwrap().code, EXIT);
            assert_eq!(exits, 12, "eleven rules and the end");
        }
    }
}
