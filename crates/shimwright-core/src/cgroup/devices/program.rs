//! Device rules as a BPF program for cgroup v2 (`BPF_PROG_TYPE_CGROUP_DEVICE`).
//!
//! The program decides as the `devices` controller of cgroup v1 does (`match_exception` and
//! `match_exception_partial` in `security/device_cgroup.c`), so that a spec means the same on both.

use super::access::{Access, Devices, Kind};
use super::rules::Rules;
use crate::sys::bpf::Instruction;

/// The largest number of a device that an instruction can compare with, two bits to the left.
pub(super) const MOST: u32 = i32::MAX.unsigned_abs() >> 2;

/// `dst = *(u32 *)(src + offset)`; the rest are on 64 bits.
const LOAD: u8 = 0x61;
/// `dst = src`.
const MOVE: u8 = 0xbf;
/// `dst = immediate`.
const SET: u8 = 0xb7;
/// `dst |= src`.
const OR: u8 = 0x4f;
/// `dst &= src`.
const AND: u8 = 0x5f;
/// `dst &= immediate`.
const MASK: u8 = 0x57;
/// `dst ^= immediate`.
const DIFFER: u8 = 0xa7;
/// `dst -= immediate`.
const SUBTRACT: u8 = 0x17;
/// `dst = -dst`.
const NEGATE: u8 = 0x87;
/// `dst <<= immediate`.
const LEFT: u8 = 0x67;
/// `dst >>= immediate`.
const RIGHT: u8 = 0x77;
/// Returns the verdict.
const EXIT: u8 = 0x95;

/// Whether an exception is about the request; in the end the verdict: 1 allows, 0 denies.
const VERDICT: u8 = 0;
/// Where the program finds the address of its `struct bpf_cgroup_dev_ctx`.
const CONTEXT: u8 = 1;
/// 1 for a block device, 2 for a character device.
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
/// The major number and the type, in the two lowest bits.
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// What differs from an exception.
const DIFFERENCE: u8 = 6;
const SCRATCH: u8 = 7;

/// The program for these rules.
///
/// It has no jumps: the verifier follows each way through a program, and takes five times as long for
/// one that compares and jumps.
pub(super) fn generate(rules: &Rules) -> Vec<Instruction> {
    let mut program = vec![
        // The type is the lower half of the first number, what is done the upper half.
        Instruction::new(LOAD, TYPE, CONTEXT, 0, 0),
        Instruction::new(LOAD, MAJOR, CONTEXT, 4, 0),
        Instruction::new(LOAD, MINOR, CONTEXT, 8, 0),
        copy(ACCESS, TYPE),
        with(RIGHT, ACCESS, 16),
        with(MASK, TYPE, 3),
        with(LEFT, MAJOR, 2),
        from(OR, MAJOR, TYPE),
        with(SET, VERDICT, 0),
    ];
    for (devices, access) in rules.exceptions() {
        exception(&mut program, devices, access, !rules.allows_by_default());
    }
    program.extend([
        with(DIFFER, VERDICT, rules.allows_by_default().into()),
        // What the verifier of an older kernel knows of the result.
        with(MASK, VERDICT, 1),
        Instruction::new(EXIT, 0, 0, 0, 0),
    ]);
    program
}

fn copy(to: u8, source: u8) -> Instruction {
    from(MOVE, to, source)
}

fn from(code: u8, to: u8, source: u8) -> Instruction {
    Instruction::new(code, to, source, 0, 0)
}

fn with(code: u8, to: u8, immediate: i32) -> Instruction {
    Instruction::new(code, to, 0, 0, immediate)
}

/// Sets the lowest bit of the verdict if the request is what this exception is about.
fn exception(program: &mut Vec<Instruction>, devices: Devices, access: Access, allow: bool) {
    let kind = match devices.kind {
        Kind::Block => 1,
        Kind::Char => 2,
    };
    // At most `MOST`, see `number` of the rules.
    let (register, value) = match devices.major {
        Some(major) => (MAJOR, (major << 2).cast_signed() | kind),
        None => (TYPE, kind),
    };
    program.extend([copy(DIFFERENCE, register), with(DIFFER, DIFFERENCE, value)]);
    if let Some(minor) = devices.minor {
        program.extend([
            copy(SCRATCH, MINOR),
            with(DIFFER, SCRATCH, minor.cast_signed()),
            from(OR, DIFFERENCE, SCRATCH),
        ]);
    }
    // All of what is done must be allowed.
    if allow && !access.others().is_empty() {
        program.extend([
            copy(SCRATCH, ACCESS),
            with(MASK, SCRATCH, access.others().bits().into()),
            from(OR, DIFFERENCE, SCRATCH),
        ]);
    }
    // The highest bit is set after this only if there was no difference.
    program.extend([with(SUBTRACT, DIFFERENCE, 1), with(RIGHT, DIFFERENCE, 63)]);
    // But it is enough if a part of it is denied.
    if !allow {
        program.extend([
            copy(SCRATCH, ACCESS),
            with(MASK, SCRATCH, access.bits().into()),
            Instruction::new(NEGATE, SCRATCH, 0, 0, 0),
            with(RIGHT, SCRATCH, 63),
            from(AND, DIFFERENCE, SCRATCH),
        ]);
    }
    program.push(from(OR, VERDICT, DIFFERENCE));
}

/// Generates a program and looks at its form, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(rules: &Rules) {
    let program = generate(rules);
    assert!(program.len() <= 12 + 14 * rules.exceptions().count());
    let ends = program.iter().filter(|last| last.code == EXIT);
    assert_eq!(ends.count(), 1);
    assert_eq!(program.last().map(|last| last.code), Some(EXIT));
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxDeviceCgroup;

    use super::super::rules::tests::{allowed_at_last, rule};
    use super::*;

    /// What a process does to a device: the type and the bits of `linux/bpf.h`.
    #[derive(Clone, Copy, Debug)]
    struct Request {
        kind: u32,
        major: u32,
        minor: u32,
        access: u32,
    }

    /// Runs a program as the kernel would, and fails where its verifier would.
    fn run(program: &[Instruction], request: Request) -> bool {
        let context = [
            request.access << 16 | request.kind,
            request.major,
            request.minor,
        ];
        let mut registers: [Option<u64>; 11] = [None; 11];
        for instruction in program {
            let (to, from) = instruction.registers();
            let immediate = i64::from(instruction.immediate).cast_unsigned();
            // What has not been written cannot be read.
            let (old, other) = (registers[to], registers[from]);
            registers[to] = Some(match instruction.code {
                LOAD => {
                    assert!(from == usize::from(CONTEXT) && old.is_none());
                    let offset = usize::try_from(instruction.offset).unwrap();
                    assert_eq!(offset % 4, 0);
                    context[offset / 4].into()
                }
                MOVE => other.unwrap(),
                SET => immediate,
                OR => old.unwrap() | other.unwrap(),
                AND => old.unwrap() & other.unwrap(),
                MASK => old.unwrap() & immediate,
                DIFFER => old.unwrap() ^ immediate,
                SUBTRACT => old.unwrap().wrapping_sub(immediate),
                NEGATE => old.unwrap().wrapping_neg(),
                LEFT => old.unwrap() << immediate,
                RIGHT => old.unwrap() >> immediate,
                EXIT => {
                    let verdict = registers[usize::from(VERDICT)].unwrap();
                    assert!(verdict <= 1);
                    return verdict == 1;
                }
                other => panic!("no such instruction: {other:#x}"),
            });
        }
        panic!("the program does not end")
    }

    /// `devcgroup_legacy_check_permission` in `security/device_cgroup.c`.
    fn allowed_on_version_1(rules: &Rules, request: Request) -> bool {
        let kind = if request.kind == 1 {
            Kind::Block
        } else {
            Kind::Char
        };
        let mut about = rules.exceptions().filter(|(devices, _)| {
            devices.kind == kind
                && devices.major.is_none_or(|major| major == request.major)
                && devices.minor.is_none_or(|minor| minor == request.minor)
        });
        if rules.allows_by_default() {
            !about.any(|(_, access)| u32::from(access.bits()) & request.access != 0)
        } else {
            about.any(|(_, access)| request.access & !u32::from(access.bits()) == 0)
        }
    }

    fn requests() -> impl Iterator<Item = Request> {
        let numbers = || 0..4_u32;
        (1..3).flat_map(move |kind| {
            numbers().flat_map(move |major| {
                numbers().flat_map(move |minor| {
                    (0..8).map(move |access| Request {
                        kind,
                        major,
                        minor,
                        access,
                    })
                })
            })
        })
    }

    /// A sequence of numbers that looks random and is the same each time.
    fn random() -> impl FnMut(usize) -> usize {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        move |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap() % below
        }
    }

    #[test]
    fn any_rules_mean_the_same_as_on_version_1_and_never_more_than_they_say() {
        let mut random = random();
        let mut used = [0; 2];
        for _ in 0..4000 {
            let count = random(6);
            let list: Vec<LinuxDeviceCgroup> = (0..count)
                .map(|_| {
                    let number = |random: &mut dyn FnMut(usize) -> usize| [-1, 0, 1, 2][random(4)];
                    let kind = ["b", "c", "c", "b", "a"][random(5)];
                    let allow = random(2) == 0;
                    let (major, minor) = (number(&mut random), number(&mut random));
                    let access = ["r", "w", "m", "rw", "rm", "wm", "rwm"][random(7)];
                    if kind == "a" {
                        rule(allow, "a", -1, -1, "rwm")
                    } else {
                        rule(allow, kind, major, minor, access)
                    }
                })
                .collect();
            // Some cannot be kept to on v1.
            let Ok(rules) = Rules::without_defaults(&list) else {
                continue;
            };
            used[usize::from(rules.allows_by_default())] += 1;
            fuzz(&rules);
            let program = generate(&rules);
            for request in requests() {
                let found = run(&program, request);
                let expected = allowed_on_version_1(&rules, request);
                assert_eq!(found, expected, "{list:?} {request:?}");
                let at_last = allowed_at_last(
                    &list,
                    request.kind == 1,
                    (request.major, request.minor),
                    request.access,
                );
                assert!(!found || at_last, "{list:?} {request:?}");
                let is_one = request.access.is_power_of_two();
                if is_one && !rules.allows_by_default() {
                    assert_eq!(found, at_last, "{list:?} {request:?}");
                }
            }
        }
        assert!(used.iter().all(|&lists| lists > 500), "{used:?}");
    }

    #[test]
    fn the_default_devices_are_there_and_nothing_else() {
        let program = generate(&Rules::new(&[], &[]).unwrap());
        let can = |kind, major, minor, access| {
            run(
                &program,
                Request {
                    kind,
                    major,
                    minor,
                    access,
                },
            )
        };
        let (make, read, write, both) = (1, 2, 4, 6);
        for (major, minor) in [
            (1, 3),
            (1, 5),
            (1, 7),
            (1, 8),
            (1, 9),
            (5, 0),
            (5, 2),
            (136, 77),
            (10, 200),
        ] {
            assert!(can(2, major, minor, both) && can(2, major, minor, make));
        }
        for (kind, major, minor) in [(2, 1, 1), (2, 1, 4), (2, 5, 1), (2, 1, 11), (1, 7, 0)] {
            assert!(can(kind, major, minor, make));
            assert!(!can(kind, major, minor, read) && !can(kind, major, minor, write));
            assert!(!can(kind, major, minor, make | read));
        }
        // The numbers of `null`, but of another type.
        assert!(!can(1, 1, 3, read));
    }

    #[test]
    fn the_program_of_the_default_devices_is_short() {
        let length = generate(&Rules::new(&[], &[]).unwrap()).len();
        assert_eq!(length, 97);
    }
}
