//! Devices, and the kinds of access to them, as device rules name them.

use std::fmt;

/// The type of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block,
    Char,
}

/// One device, or all whose number is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Devices {
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
}

impl Devices {
    pub(super) fn covers(self, other: Self) -> bool {
        let covers = |all: Option<u32>, one| all.is_none() || all == one;
        self.kind == other.kind
            && covers(self.major, other.major)
            && covers(self.minor, other.minor)
    }

    pub(super) fn meets(self, other: Self) -> bool {
        let meets = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meets(self.major, other.major) && meets(self.minor, other.minor)
    }
}

/// As in `devices.allow` of cgroup v1 (`cgroup-v1/devices.rst`).
impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// What is done to a device: the bits of `BPF_DEVCG_ACC_*` in `linux/bpf.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access(u8);

impl Access {
    pub(super) const NONE: Self = Self(0);
    pub(super) const MAKE: Self = Self(1);
    pub(super) const READ: Self = Self(2);
    pub(super) const WRITE: Self = Self(4);
    pub(super) const ALL: Self = Self(7);

    /// Reads letters of `r`, `w` and `m`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut access = Self::NONE;
        for letter in text.chars() {
            access = access.with(match letter {
                'r' => Self::READ,
                'w' => Self::WRITE,
                'm' => Self::MAKE,
                _ => {
                    return Err(format!(
                        "access: {text:?} has other letters than r, w and m"
                    ));
                }
            });
        }
        if access.is_empty() {
            return Err("access is empty".to_owned());
        }
        Ok(access)
    }

    pub(super) fn bits(self) -> u8 {
        self.0
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// What is not among it.
    pub(super) fn others(self) -> Self {
        Self::ALL.without(self)
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (access, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MAKE, "m")] {
            if self.meets(access) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}
