//! The filter of system calls as the kernel takes it: questions about arguments, and the search of a
//! call's number by halves (`seccomp(2)`, `Documentation/networking/filter.rst`).

use std::collections::BTreeMap;
use std::mem::offset_of;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
};
use libc::{c_long, seccomp_data, sock_filter};

/// What the kernel calls this architecture (`AUDIT_ARCH_…` of `linux/audit.h`). A program may use
/// the numbers of another, which mean something else.
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the filter of system calls knows the numbers of x86_64 and aarch64 only");

pub(super) const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
pub(super) const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
pub(super) const NOT_THERE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

/// What an argument has to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    argument: usize,
    /// Those of its bits that are looked at.
    bits: i32,
    values: &'static [i32],
    /// Whether it has to be one of the values, or none of them.
    among: bool,
    /// The number of this process is one more of the values.
    own: bool,
}

impl Asked {
    pub(super) const OWN: Self = Self {
        own: true,
        ..Self::among(0, &[])
    };
    pub(super) const OWN_OR_ZERO: Self = Self {
        own: true,
        ..Self::among(0, &[0])
    };

    /// The argument is one of these.
    pub(super) const fn among(argument: usize, values: &'static [i32]) -> Self {
        Self::of(argument, -1, values)
    }

    /// These bits of the argument are one of these.
    pub(super) const fn of(argument: usize, bits: i32, values: &'static [i32]) -> Self {
        Self {
            argument,
            bits,
            values,
            among: true,
            own: false,
        }
    }

    /// The argument has this bit.
    pub(super) const fn has(argument: usize, bit: i32) -> Self {
        Self {
            among: false,
            ..Self::of(argument, bit, &[0])
        }
    }

    /// The argument does not have this bit.
    pub(super) const fn lacks(argument: usize, bit: i32) -> Self {
        Self::of(argument, bit, &[0])
    }

    /// The argument has none but these bits.
    pub(super) const fn only(argument: usize, bits: i32) -> Self {
        Self::of(argument, !bits, &[0])
    }

    /// Goes on if the argument is right, and skips `rest` more instructions otherwise.
    fn check(self, pid: i32, rest: usize) -> Vec<sock_filter> {
        let lower_half = if cfg!(target_endian = "big") { 4 } else { 0 };
        let place = offset_of!(seccomp_data, args) + self.argument * size_of::<u64>() + lower_half;
        let mut values = self.values.to_vec();
        values.extend(self.own.then_some(pid));
        let mut check = vec![load(place), keep_bits(self.bits)];
        for (at, value) in values.iter().enumerate() {
            // Past the other values and what is there for an argument that is none of them.
            check.push(jump(BPF_JEQ, value.cast_unsigned(), values.len() - at, 0));
        }
        // Found: past the jump. Otherwise: to it.
        if !self.among {
            check.push(jump_always(1));
        }
        check.push(jump_always(rest));
        check
    }
}

/// What is answered to a call, as instructions.
pub(super) type Verdict = Vec<sock_filter>;

/// A filter as the kernel's interpreter takes it (`seccomp(2)`).
pub(super) fn filter(segments: &[(u32, Verdict)]) -> Vec<sock_filter> {
    let mut filter = vec![
        load(offset_of!(seccomp_data, arch)),
        jump(BPF_JEQ, ARCHITECTURE, 1, 0),
        answer(REFUSE),
        load(offset_of!(seccomp_data, nr)),
    ];
    filter.extend(decide(segments));
    filter
}

pub(super) fn allow() -> Verdict {
    vec![answer(ALLOW)]
}

/// Allows a call for which one of the alternatives holds.
pub(super) fn question(alternatives: &[&[Asked]], pid: i32) -> Verdict {
    let mut question = Vec::new();
    for alternative in alternatives {
        // From its end, as what does not hold skips the rest.
        let mut checks = allow();
        for asked in alternative.iter().rev() {
            let mut check = asked.check(pid, checks.len());
            check.append(&mut checks);
            checks = check;
        }
        question.extend(checks);
    }
    question.push(answer(REFUSE));
    question
}

/// The numbers of all calls in order, as segments: where each begins, and what is answered in it.
/// Calls that are not named have the answer `otherwise`, but for those from `last` on.
pub(super) fn segments(
    verdicts: impl Iterator<Item = (u32, Verdict)>,
    otherwise: Verdict,
    last: Option<(u32, Verdict)>,
) -> Vec<(u32, Verdict)> {
    let calls: BTreeMap<u32, Verdict> = verdicts.collect();
    let mut segments = vec![(0, otherwise.clone())];
    let mut next = 0;
    let mut begin = |at, verdict: Verdict| match segments.last_mut() {
        Some(last) if is_same(&last.1, &verdict) => {}
        Some(last) if last.0 == at => last.1 = verdict,
        _ => segments.push((at, verdict)),
    };
    for (call, verdict) in calls {
        if call > next {
            begin(next, otherwise.clone());
        }
        begin(call, verdict);
        next = call + 1;
    }
    begin(next, otherwise);
    if let Some((from, verdict)) = last {
        begin(from, verdict);
    }
    segments
}

fn is_same(one: &[sock_filter], other: &[sock_filter]) -> bool {
    let parts = |filter: &sock_filter| (filter.code, filter.jt, filter.jf, filter.k);
    one.iter().map(parts).eq(other.iter().map(parts))
}

/// Finds the segment of a number by halves.
fn decide(segments: &[(u32, Verdict)]) -> Vec<sock_filter> {
    if let [(_, verdict)] = segments {
        return verdict.clone();
    }
    let (lower, upper) = segments.split_at(segments.len() / 2);
    let below = decide(lower);
    let mut decision = match u8::try_from(below.len()) {
        Ok(_) => vec![jump(BPF_JGE, upper[0].0, below.len(), 0)],
        // Farther than such a jump goes.
        Err(_) => vec![jump(BPF_JGE, upper[0].0, 0, 1), jump_always(below.len())],
    };
    decision.extend(below);
    decision.extend(decide(upper));
    decision
}

pub(super) fn number(call: c_long) -> u32 {
    u32::try_from(call).expect("the numbers of system calls are small")
}

/// Takes 32 bits of what the kernel says about a call.
fn load(place: usize) -> sock_filter {
    let place = u32::try_from(place).expect("the structure is small");
    instruction(BPF_LD | BPF_W | BPF_ABS, place, 0, 0)
}

/// Skips so many instructions if the comparison holds, and so many if not.
fn jump(comparison: u32, value: u32, holds: usize, otherwise: usize) -> sock_filter {
    let skip = |n: usize| u8::try_from(n).expect("a half of the filter is less than 256 long");
    instruction(
        BPF_JMP | comparison | BPF_K,
        value,
        skip(holds),
        skip(otherwise),
    )
}

fn jump_always(skipped: usize) -> sock_filter {
    let skipped = u32::try_from(skipped).expect("the filter is small");
    instruction(BPF_JMP | BPF_JA, skipped, 0, 0)
}

fn keep_bits(bits: i32) -> sock_filter {
    instruction(BPF_ALU | BPF_AND | BPF_K, bits.cast_unsigned(), 0, 0)
}

pub(super) fn answer(verdict: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, verdict, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    let code = u16::try_from(code).expect("a code has 16 bits");
    sock_filter { code, jt, jf, k }
}
