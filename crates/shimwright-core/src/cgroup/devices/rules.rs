//! The device rules of a spec, applied in order: a later rule wins.
//!
//! The order, the devices that every container may use, and what cannot be kept to on cgroup v1 are
//! runc's (`devices_emulator.go` of opencontainers/cgroups, `AllowedDevices` of its `specconv`), but
//! for what would allow more than a rule says; see `docs/decisions/0011-device-program.md`.

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Spec};

use super::access::{Access, Devices, Kind};
use super::program::MOST;
use crate::error::Error;

/// A device that every container may use: the path of its node, unless it is about several, its
/// type, numbers, and what may be done.
type Default = (&'static str, Kind, Option<u32>, Option<u32>, Access);

/// What every container may use, whatever its spec's rules say: making nodes, which needs the
/// capability besides; the default devices of the OCI runtime spec; and `/dev/net/tun`, which is of
/// the container's network namespace.
const DEFAULTS: [Default; 11] = [
    ("", Kind::Char, None, None, Access::MAKE),
    ("", Kind::Block, None, None, Access::MAKE),
    ("/dev/null", Kind::Char, Some(1), Some(3), Access::ALL),
    ("/dev/random", Kind::Char, Some(1), Some(8), Access::ALL),
    ("/dev/full", Kind::Char, Some(1), Some(7), Access::ALL),
    ("/dev/tty", Kind::Char, Some(5), Some(0), Access::ALL),
    ("/dev/zero", Kind::Char, Some(1), Some(5), Access::ALL),
    ("/dev/urandom", Kind::Char, Some(1), Some(9), Access::ALL),
    ("", Kind::Char, Some(136), None, Access::ALL),
    ("", Kind::Char, Some(5), Some(2), Access::ALL),
    ("", Kind::Char, Some(10), Some(200), Access::ALL),
];

/// Which devices the processes of a container may use: all or none, with exceptions.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Rules {
    default_allow: bool,
    exceptions: BTreeMap<Devices, Access>,
}

/// A line for `devices.allow` or `devices.deny` of cgroup v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) allow: bool,
    pub(super) text: String,
}

impl Rules {
    /// The rules of a container. A spec without any allows the default devices alone.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the rule.
    pub(crate) fn of_spec(spec: &Spec) -> Result<Self, Error> {
        let resources = spec.linux().as_ref().and_then(|l| l.resources().as_ref());
        let rules = resources.and_then(|resources| resources.devices().as_deref());
        Self::new(rules.unwrap_or_default(), nodes(spec))
    }

    /// The rules of a list, with the default devices on top but for those whose node is among these
    /// (`createDevices` of runc: then the spec has to allow it itself).
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the rule.
    pub(crate) fn new(list: &[LinuxDeviceCgroup], nodes: &[LinuxDevice]) -> Result<Self, Error> {
        let mut rules = Self::without_defaults(list)?;
        for (path, kind, major, minor, access) in DEFAULTS {
            if nodes.iter().any(|node| node.path() == Path::new(path)) {
                continue;
            }
            let devices = Devices { kind, major, minor };
            let applied = rules.except(true, devices, access);
            applied.map_err(|reason| {
                Error::invalid(format!(
                    "resources.devices: {devices} {access} is always allowed: {reason}"
                ))
            })?;
        }
        Ok(rules)
    }

    pub(super) fn without_defaults(list: &[LinuxDeviceCgroup]) -> Result<Self, Error> {
        let mut rules = Self::default();
        for (index, rule) in list.iter().enumerate() {
            let applied = rules.apply(rule);
            applied.map_err(|reason| {
                Error::invalid(format!("resources.devices[{index}]: {reason}"))
            })?;
        }
        Ok(rules)
    }

    pub(super) fn allows_by_default(&self) -> bool {
        self.default_allow
    }

    pub(super) fn exceptions(&self) -> impl Iterator<Item = (Devices, Access)> {
        self.exceptions
            .iter()
            .map(|(&devices, &access)| (devices, access))
    }

    fn apply(&mut self, rule: &LinuxDeviceCgroup) -> Result<(), String> {
        let access = Access::parse(rule.access().as_deref().unwrap_or_default())?;
        let (major, minor) = (
            number("major", rule.major())?,
            number("minor", rule.minor())?,
        );
        let kind = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C => Kind::Char,
            LinuxDeviceType::A => {
                // The kernel and runc look at nothing else of such a rule.
                let is_all = (major, minor, access) == (None, None, Access::ALL);
                if rule.allow() && !is_all {
                    return Err("type a allows every device, whatever else it says".to_owned());
                }
                *self = Self {
                    default_allow: rule.allow(),
                    exceptions: BTreeMap::new(),
                };
                return Ok(());
            }
            other => return Err(format!("type: {:?} is not a, b or c", other.as_str())),
        };
        self.except(rule.allow(), Devices { kind, major, minor }, access)
    }

    /// Makes an exception, or takes back what was one.
    fn except(&mut self, allow: bool, devices: Devices, access: Access) -> Result<(), String> {
        if allow != self.default_allow {
            let entry = self.exceptions.entry(devices).or_insert(Access::NONE);
            *entry = entry.with(access);
            return Ok(());
        }
        for (&other, granted) in &mut self.exceptions {
            if !granted.meets(access) || !other.meets(devices) {
                continue;
            }
            let is_same = other == devices;
            // A denial also takes what lies within it. What is allowed again takes back exactly the
            // same denial alone, as on cgroup v1 and with runc.
            if is_same || !allow && devices.covers(other) {
                *granted = granted.without(access);
            } else if !allow || other.covers(devices) {
                return Err(format!(
                    "cannot make an exception from \"{other} {granted}\", as cgroup v1 has none"
                ));
            }
        }
        self.exceptions.retain(|_, granted| !granted.is_empty());
        Ok(())
    }

    /// Reads `devices.list`. What a group denies that allows the rest is not in there.
    pub(super) fn parse(list: &str) -> Result<Self, String> {
        let mut rules = Self::default();
        for line in list.lines() {
            let invalid = || format!("devices.list: {line:?}");
            let mut words = line.split([' ', ':']);
            let mut word = || words.next().ok_or_else(invalid);
            let (kind, major, minor, access) = (word()?, word()?, word()?, word()?);
            let kind = match kind {
                "a" => {
                    rules.default_allow = true;
                    continue;
                }
                "b" => Kind::Block,
                "c" => Kind::Char,
                _ => return Err(invalid()),
            };
            let number = |text: &str| match text {
                "*" => Ok(None),
                text => text.parse().map(Some).map_err(|_| invalid()),
            };
            let (major, minor) = (number(major)?, number(minor)?);
            let access = Access::parse(access)?;
            rules
                .exceptions
                .insert(Devices { kind, major, minor }, access);
        }
        if rules.default_allow {
            rules.exceptions.clear();
        }
        Ok(rules)
    }

    /// What to write to a group with the rules `self` until it has others, with as few moments as
    /// possible in which it denies what both allow.
    pub(super) fn lines_to(&self, wanted: &Self) -> Vec<Line> {
        let mut lines = Vec::new();
        let none = BTreeMap::new();
        // What a group denies that allows the rest is not known.
        let before = if self.default_allow || wanted.default_allow {
            lines.push(Line {
                allow: wanted.default_allow,
                text: "a *:* rwm".to_owned(),
            });
            &none
        } else {
            &self.exceptions
        };
        let differences = [
            (before, &wanted.exceptions, wanted.default_allow),
            (&wanted.exceptions, before, !wanted.default_allow),
        ];
        for (these, others, allow) in differences {
            for (devices, &access) in these {
                let other = others.get(devices).copied().unwrap_or(Access::NONE);
                let access = access.without(other);
                if !access.is_empty() {
                    let text = format!("{devices} {access}");
                    lines.push(Line { allow, text });
                }
            }
        }
        lines
    }

    /// Whether a group of cgroup v1 cannot come to these rules without a moment in which it allows
    /// what they deny.
    pub(super) fn opens_for_a_moment(&self) -> bool {
        self.default_allow && !self.exceptions.is_empty()
    }
}

/// The device nodes of a spec.
pub(crate) fn nodes(spec: &Spec) -> &[LinuxDevice] {
    let linux = spec.linux().as_ref();
    linux
        .and_then(|linux| linux.devices().as_deref())
        .unwrap_or_default()
}

/// A number of a rule; -1 and nothing stand for any, as in runc and in what Docker sends.
fn number(name: &str, value: Option<i64>) -> Result<Option<u32>, String> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => match u32::try_from(value) {
            Ok(number) if number <= MOST => Ok(Some(number)),
            _ => Err(format!("{name}: {value} is no number of a device")),
        },
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn rule(
        allow: bool,
        kind: &str,
        major: i64,
        minor: i64,
        access: &str,
    ) -> LinuxDeviceCgroup {
        serde_json::from_value(serde_json::json!({
            "allow": allow, "type": kind, "major": major, "minor": minor, "access": access,
        }))
        .unwrap()
    }

    /// What the last rule about each of these bits says: the meaning of a list of rules, told
    /// without any of the code above.
    pub(in super::super) fn allowed_at_last(
        list: &[LinuxDeviceCgroup],
        is_block: bool,
        (major, minor): (u32, u32),
        access: u32,
    ) -> bool {
        let letters = [(1, 'm'), (2, 'r'), (4, 'w')];
        letters.iter().all(|&(bit, letter)| {
            let last = list.iter().rev().find(|rule| {
                let is_number = |wanted: Option<i64>, number: u32| {
                    wanted == Some(-1) || wanted == Some(number.into())
                };
                let kind = rule.typ().unwrap();
                kind == LinuxDeviceType::A
                    || (kind == LinuxDeviceType::B) == is_block
                        && is_number(rule.major(), major)
                        && is_number(rule.minor(), minor)
                        && rule.access().as_ref().unwrap().contains(letter)
            });
            access & bit == 0 || last.is_some_and(LinuxDeviceCgroup::allow)
        }) && (access != 0 || allowed_something(list, is_block, (major, minor)))
    }

    /// A request for nothing is granted if there is anything that would be.
    fn allowed_something(list: &[LinuxDeviceCgroup], is_block: bool, numbers: (u32, u32)) -> bool {
        let any = [1, 2, 4].map(|bit| allowed_at_last(list, is_block, numbers, bit));
        // A group that allows by default denies nothing to such a request.
        let last = list
            .iter()
            .rev()
            .find(|r| r.typ() == Some(LinuxDeviceType::A));
        any.contains(&true) || last.is_some_and(LinuxDeviceCgroup::allow)
    }

    fn parsed(json: &str) -> Result<Rules, Error> {
        Rules::new(&serde_json::from_str::<Vec<_>>(json).unwrap(), &[])
    }

    /// What is written to a group of a new container whose parent allows everything.
    fn lines(rules: &Rules) -> Vec<String> {
        let fresh = Rules::parse("a *:* rwm\n").unwrap();
        let show = |line: Line| format!("{} {}", if line.allow { '+' } else { '-' }, line.text);
        fresh.lines_to(rules).into_iter().map(show).collect()
    }

    #[test]
    fn without_rules_only_the_default_devices_are_allowed() {
        let none = parsed("[]").unwrap();
        assert_eq!(
            lines(&none),
            [
                "- a *:* rwm",
                "+ b *:* m",
                "+ c *:* m",
                "+ c 1:3 rwm",
                "+ c 1:5 rwm",
                "+ c 1:7 rwm",
                "+ c 1:8 rwm",
                "+ c 1:9 rwm",
                "+ c 5:0 rwm",
                "+ c 5:2 rwm",
                "+ c 10:200 rwm",
                "+ c 136:* rwm",
            ]
        );
        let spec = |json: &str| Rules::of_spec(&serde_json::from_str::<Spec>(json).unwrap());
        assert_eq!(spec(r#"{"ociVersion":"1"}"#).unwrap(), none);
        assert_eq!(spec(r#"{"ociVersion":"1","linux":{}}"#).unwrap(), none);
        let denied = parsed(r#"[{"allow":false,"access":"rwm"}]"#).unwrap();
        assert_eq!(denied, none);
    }

    #[test]
    fn a_number_that_is_absent_or_below_zero_is_any() {
        for numbers in [r#""major":42"#, r#""major":42,"minor":-1"#] {
            let json = format!(r#"[{{"allow":true,"type":"c",{numbers},"access":"rw"}}]"#);
            let lines = lines(&parsed(&json).unwrap());
            assert!(lines.contains(&"+ c 42:* rw".to_owned()), "{lines:?}");
        }
        let both = parsed(r#"[{"allow":true,"type":"b","access":"r"}]"#).unwrap();
        assert!(lines(&both).contains(&"+ b *:* rm".to_owned()));
    }

    #[test]
    fn a_later_rule_wins() {
        let json = r#"[
            {"allow":true,"type":"c","major":42,"minor":0,"access":"rw"},
            {"allow":true,"type":"c","major":42,"minor":1,"access":"rw"},
            {"allow":false,"type":"c","major":42,"access":"w"},
            {"allow":true,"type":"c","major":42,"minor":1,"access":"w"}
        ]"#;
        let lines = lines(&parsed(json).unwrap());
        assert!(lines.contains(&"+ c 42:0 r".to_owned()), "{lines:?}");
        assert!(lines.contains(&"+ c 42:1 rw".to_owned()), "{lines:?}");
        let all = parsed(r#"[{"allow":true,"access":"rwm"}]"#).unwrap();
        assert_eq!(all.lines_to(&all), lines_of_all());
        assert!(!all.opens_for_a_moment());
    }

    fn lines_of_all() -> Vec<Line> {
        vec![Line {
            allow: true,
            text: "a *:* rwm".to_owned(),
        }]
    }

    #[test]
    fn all_but_some_is_kept_to_exactly() {
        let json = r#"[{"allow":true,"access":"rwm"},
            {"allow":false,"type":"b","major":7,"minor":0,"access":"rw"},
            {"allow":false,"type":"c","major":1,"minor":3,"access":"rwm"}]"#;
        let rules = parsed(json).unwrap();
        // The default devices are on top.
        assert_eq!(lines(&rules), ["+ a *:* rwm", "- b 7:0 rw"]);
        assert!(rules.opens_for_a_moment());
    }

    #[test]
    fn what_cannot_be_kept_to_is_refused_by_name() {
        let cases = [
            (r#"[{"allow":true,"type":"c"}]"#, "[0]: access is empty"),
            (r#"[{"allow":false}]"#, "[0]: access is empty"),
            (r#"[{"allow":true,"type":"c","access":"rx"}]"#, "\"rx\""),
            (r#"[{"allow":true,"type":"p","access":"r"}]"#, "\"p\""),
            (
                r#"[{"allow":true,"type":"c","major":-2,"access":"r"}]"#,
                "major: -2",
            ),
            (
                r#"[{"allow":true,"type":"c","minor":4294967295,"access":"r"}]"#,
                "minor: 4294967295",
            ),
            (
                r#"[{"allow":true,"major":10,"minor":200,"access":"rwm"}]"#,
                "every device",
            ),
            (r#"[{"allow":true,"access":"m"}]"#, "every device"),
            (
                r#"[{"allow":true,"type":"c","access":"rw"},
                    {"allow":false,"type":"c","major":1,"minor":1,"access":"w"}]"#,
                "[1]: cannot make an exception from \"c *:* rw\"",
            ),
            (
                r#"[{"allow":true,"type":"c","minor":1,"access":"rw"},
                    {"allow":false,"type":"c","major":1,"access":"w"}]"#,
                "c *:1 rw",
            ),
            (
                r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","access":"rwm"}]"#,
                "is always allowed",
            ),
        ];
        for (json, reason) in cases {
            let error = parsed(json).unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{json}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn a_node_of_the_spec_takes_the_place_of_a_default_device() {
        let nodes: Vec<LinuxDevice> = serde_json::from_str(
            r#"[{"path":"/dev/zero","type":"c","major":1,"minor":5},
                {"path":"/dev/other","type":"c","major":1,"minor":7}]"#,
        )
        .unwrap();
        let lines = lines(&Rules::new(&[], &nodes).unwrap());
        assert!(!lines.iter().any(|line| line.contains("1:5")), "{lines:?}");
        assert!(lines.contains(&"+ c 1:7 rwm".to_owned()), "{lines:?}");
    }

    #[test]
    fn a_group_is_changed_where_it_differs() {
        let before = Rules::parse("b *:* m\nc 1:3 rwm\nc 42:* rw\nc 136:* rwm\n").unwrap();
        let mut wanted = before.clone();
        assert!(before.lines_to(&wanted).is_empty());
        wanted.apply(&rule(false, "c", 42, -1, "w")).unwrap();
        wanted.apply(&rule(true, "b", 7, 0, "r")).unwrap();
        let lines = before.lines_to(&wanted);
        let shown: Vec<_> = lines.iter().map(|l| (l.allow, l.text.as_str())).collect();
        assert_eq!(shown, [(false, "c 42:* w"), (true, "b 7:0 r")]);
        for list in ["c 1:3\n", "x 1:3 r\n", "c 1:y r\n", "c 1:3 x\n", "c 1:3 \n"] {
            Rules::parse(list).unwrap_err();
        }
    }
}
