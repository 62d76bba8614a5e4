//! The table of `docs/oci-fields.md` has every field that the types of `oci-spec` have, and what it
//! calls refused is refused.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer, StringDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Value, json};

use super::*;

const TABLE: &str = include_str!("../../../../../docs/oci-fields.md");

/// Makes a value in which nothing is absent, and writes down the path of each field.
///
/// What serde derives tells a deserializer the names of all fields of a type, so a field that a new
/// version of `oci-spec` adds is found here without anybody's help.
struct Recorder<'a> {
    path: String,
    leaves: &'a RefCell<BTreeSet<String>>,
}

impl Recorder<'_> {
    fn below(&self, path: String) -> Self {
        Self {
            path,
            leaves: self.leaves,
        }
    }

    /// This is a value of its own.
    fn leaf(&self) {
        let path = self.path.trim_end_matches("[]").trim_end_matches("{}");
        self.leaves.borrow_mut().insert(path.to_owned());
    }

    /// A text that the type of every field takes.
    fn text(&self) -> &'static str {
        if self.path.contains("capabilities") {
            "CAP_KILL"
        } else {
            "0"
        }
    }
}

macro_rules! leaves {
    ($($method:ident: $visit:ident($($value:expr)?);)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
                self.leaf();
                visitor.$visit($($value)?)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Recorder<'_> {
    type Error = ValueError;

    leaves! {
        deserialize_any: visit_unit();
        deserialize_bool: visit_bool(false);
        deserialize_i8: visit_u8(0);
        deserialize_i16: visit_u8(0);
        deserialize_i32: visit_u8(0);
        deserialize_i64: visit_u8(0);
        deserialize_u8: visit_u8(0);
        deserialize_u16: visit_u8(0);
        deserialize_u32: visit_u8(0);
        deserialize_u64: visit_u8(0);
        deserialize_f32: visit_u8(0);
        deserialize_f64: visit_u8(0);
        deserialize_char: visit_char('0');
        deserialize_unit: visit_unit();
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        self.leaf();
        visitor.visit_str(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        let element = self.below(format!("{}[]", self.path));
        visitor.visit_seq(Elements(Some(element)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        let value = self.below(format!("{}{{}}", self.path));
        visitor.visit_map(Entries {
            entries: vec![("key".to_owned(), value)],
            value: None,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let inner = |field: &&str| {
            let dot = if self.path.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{field}", self.path);
            ((*field).to_owned(), self.below(path))
        };
        visitor.visit_map(Entries {
            entries: fields.iter().map(inner).collect(),
            value: None,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.leaf();
        let first: StrDeserializer<ValueError> = variants[0].into_deserializer();
        visitor.visit_enum(Variant(first))
    }

    serde::forward_to_deserialize_any! {
        bytes byte_buf unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// One variant of an enumeration without values.
struct Variant(StrDeserializer<'static, ValueError>);

impl<'de> EnumAccess<'de> for Variant {
    type Error = ValueError;
    type Variant = <StrDeserializer<'static, ValueError> as EnumAccess<'de>>::Variant;

    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), ValueError> {
        self.0.variant_seed(seed)
    }
}

struct Elements<'a>(Option<Recorder<'a>>);

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ValueError> {
        self.0
            .take()
            .map(|element| seed.deserialize(element))
            .transpose()
    }
}

struct Entries<'a> {
    entries: Vec<(String, Recorder<'a>)>,
    value: Option<Recorder<'a>>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ValueError> {
        let Some((key, value)) = self.entries.pop() else {
            return Ok(None);
        };
        self.value = Some(value);
        let key: StringDeserializer<ValueError> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<T::Value, ValueError> {
        seed.deserialize(self.value.take().expect("the key came first"))
    }
}

/// The path of every field of a spec.
fn fields() -> BTreeSet<String> {
    let leaves = RefCell::default();
    let all = Recorder {
        path: String::new(),
        leaves: &leaves,
    };
    Spec::deserialize(all).unwrap();
    leaves.into_inner()
}

/// A row of the table: the field, and what becomes of it.
#[derive(Debug)]
struct Row {
    field: &'static str,
    linux: &'static str,
    guests: &'static str,
}

fn rows() -> Vec<Row> {
    // The table of options is none of fields.
    let fields = TABLE.split("## Mount options").next().unwrap_or_default();
    let lines = fields.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &'static str| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let mut next = || cells.next().unwrap_or_default();
        let row = Row {
            field: next().trim_matches('`'),
            linux: next(),
            guests: next(),
        };
        assert!(!next().is_empty(), "no reason: {line}");
        row
    };
    lines.map(row).collect()
}

/// Whether a row is about a field: `*` stands for one name, at the end for all that is below.
fn covers(row: &str, field: &str) -> bool {
    let mut names = field.split('.');
    let mut wanted = row.split('.').peekable();
    while let Some(pattern) = wanted.next() {
        let Some(name) = names.next() else {
            return false;
        };
        if pattern == "*" && wanted.peek().is_none() {
            return true;
        }
        let is_same = match pattern.strip_prefix('*') {
            Some(end) => name.ends_with(end),
            None => name == pattern,
        };
        if !is_same {
            return false;
        }
    }
    names.next().is_none()
}

#[test]
fn the_table_has_every_field_once_and_no_other() {
    let (fields, rows) = (fields(), rows());
    assert!(fields.contains("linux.resources.memory.swappiness"));
    assert!(fields.contains("hooks.poststop[].timeout"));
    let mut problems = Vec::new();
    for field in &fields {
        let about = rows.iter().filter(|row| covers(row.field, field)).count();
        if about != 1 {
            problems.push(format!("{field} is in {about} rows"));
        }
    }
    for row in &rows {
        if !fields.iter().any(|field| covers(row.field, field)) {
            problems.push(format!("oci-spec has no field {}", row.field));
        }
        for cell in [row.linux, row.guests] {
            let known = ["done", "refused", "no effect"];
            if !known.iter().any(|word| cell.starts_with(word)) {
                problems.push(format!("{}: {cell:?} is none of {known:?}", row.field));
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

/// For each field that is refused, something that has it, and whether cgroups are v1.
fn refused_examples() -> Vec<(&'static str, Value, bool)> {
    let process = |process: Value| json!({ "process": process });
    let linux = |linux: Value| json!({ "linux": linux });
    let resources = |resources: Value| json!({ "linux": { "resources": resources } });
    let mount = |mount: Value| json!({ "mounts": [mount] });
    let bind = |option: &str| {
        let options = ["rbind", option];
        json!({ "mounts": [{ "destination": "/a", "source": "/a", "options": options }] })
    };
    let map = json!([{ "hostID": 1, "containerID": 0, "size": 1 }]);
    let hook = |stage: &str| json!({ "hooks": { stage: [{ "path": "/a", "timeout": 0 }] } });
    let rlimit = json!({ "type": "RLIMIT_CORE", "hard": 0, "soft": 0 });
    let device = json!({ "major": 8, "minor": 0, "leafWeight": 10 });
    let weighted = json!({ "major": 8, "minor": 0, "weight": 10 });
    let scheduler = |key: &str, value: i64| {
        process(json!({ "scheduler": { "policy": "SCHED_OTHER", key: value } }))
    };
    let user_namespace = json!({ "namespaces": [{ "type": "user" }] });
    let two_namespaces = json!({ "namespaces": [{ "type": "pid" }, { "type": "pid" }] });
    let relative = json!({ "namespaces": [{ "type": "pid", "path": "ns" }] });
    let vm = json!({ "vm": { "kernel": { "path": "/a" } } });
    vec![
        ("ociVersion", json!({ "ociVersion": "2.0.0" }), true),
        ("process.cwd", process(json!({ "cwd": "a" })), true),
        (
            "process.commandLine",
            process(json!({ "commandLine": "a" })),
            true,
        ),
        (
            "process.user.username",
            process(json!({ "user": { "username": "a" } })),
            true,
        ),
        (
            "process.selinuxLabel",
            process(json!({ "selinuxLabel": "a:b:c:d" })),
            true,
        ),
        (
            "process.apparmorProfile",
            process(json!({ "apparmorProfile": "a" })),
            true,
        ),
        (
            "process.execCPUAffinity.initial",
            process(json!({ "execCPUAffinity": { "initial": "0" } })),
            true,
        ),
        (
            "process.execCPUAffinity.final",
            process(json!({ "execCPUAffinity": { "final": "0" } })),
            true,
        ),
        (
            "process.rlimits[].type",
            process(json!({ "rlimits": [rlimit, rlimit] })),
            true,
        ),
        (
            "process.ioPriority.priority",
            process(json!({ "ioPriority": { "class": "IOPRIO_CLASS_RT", "priority": 8 } })),
            true,
        ),
        ("process.scheduler.nice", scheduler("nice", 20), true),
        ("process.scheduler.priority", scheduler("priority", 1), true),
        ("process.scheduler.runtime", scheduler("runtime", 1), true),
        ("process.scheduler.deadline", scheduler("deadline", 1), true),
        ("process.scheduler.period", scheduler("period", 1), true),
        ("hooks.*[].timeout", hook("prestart"), true),
        ("hooks.*[].timeout", hook("createRuntime"), true),
        ("hooks.*[].timeout", hook("createContainer"), true),
        ("hooks.*[].timeout", hook("startContainer"), true),
        ("hooks.*[].timeout", hook("poststart"), true),
        ("hooks.*[].timeout", hook("poststop"), true),
        ("mounts[].options", bind("ridmap"), true),
        ("mounts[].options", bind("mode=755"), true),
        (
            "mounts[].uidMappings[].*",
            mount(json!({ "destination": "/a", "type": "bind", "uidMappings": map })),
            true,
        ),
        (
            "mounts[].gidMappings[].*",
            mount(json!({ "destination": "/a", "type": "bind", "gidMappings": map })),
            true,
        ),
        ("uidMappings[].*", json!({ "uidMappings": map }), true),
        ("gidMappings[].*", json!({ "gidMappings": map }), true),
        (
            "linux.mountLabel",
            linux(json!({ "mountLabel": "a:b:c:d" })),
            true,
        ),
        (
            "linux.intelRdt.*",
            linux(json!({ "intelRdt": { "closID": "a" } })),
            true,
        ),
        (
            "linux.personality.flags",
            linux(json!({ "personality": { "domain": "LINUX", "flags": ["a"] } })),
            true,
        ),
        (
            "linux.rootfsPropagation",
            linux(json!({ "rootfsPropagation": "public" })),
            true,
        ),
        ("linux.namespaces[].type", linux(user_namespace), true),
        ("linux.namespaces[].type", linux(two_namespaces), true),
        ("linux.namespaces[].path", linux(relative), true),
        (
            "linux.resources.memory.kernel",
            resources(json!({ "memory": { "kernel": 1 } })),
            false,
        ),
        (
            "linux.resources.memory.kernelTCP",
            resources(json!({ "memory": { "kernelTCP": 1 } })),
            false,
        ),
        (
            "linux.resources.blockIO.leafWeight",
            resources(json!({ "blockIO": { "leafWeight": 10 } })),
            true,
        ),
        (
            "linux.resources.blockIO.weightDevice[].leafWeight",
            resources(json!({ "blockIO": { "weightDevice": [device] } })),
            false,
        ),
        (
            "linux.resources.blockIO.weightDevice[].weight",
            resources(json!({ "blockIO": { "weightDevice": [weighted] } })),
            true,
        ),
        (
            "linux.resources.network.classID",
            resources(json!({ "network": { "classID": 1 } })),
            false,
        ),
        (
            "linux.resources.network.priorities[].*",
            resources(json!({ "network": { "priorities": [{ "name": "a", "priority": 1 }] } })),
            false,
        ),
        (
            "linux.resources.rdma{}.*",
            resources(json!({ "rdma": { "a": { "hcaHandles": 1 } } })),
            true,
        ),
        (
            "linux.resources.unified",
            resources(json!({ "unified": { "memory.high": "1" } })),
            true,
        ),
        (
            "linux.resources.unified",
            resources(json!({ "unified": { "../memory.high": "1" } })),
            false,
        ),
        ("solaris.*", json!({ "solaris": {} }), true),
        ("vm.*", vm, true),
        ("windows.*", json!({ "windows": {} }), true),
        ("zos.*", json!({ "zos": {} }), true),
    ]
}

/// A spec that is accepted, with these changes.
fn spec(change: &Value) -> Spec {
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": { "cwd": "/", "args": ["a"], "user": { "uid": 0, "gid": 0 } },
        "linux": { "namespaces": [{ "type": "mount" }] },
    });
    merge(&mut spec, change);
    serde_json::from_value(spec).unwrap()
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

#[test]
fn what_the_table_calls_refused_is_refused() {
    check(&spec(&json!({})), Node::default()).unwrap();
    let mut shown = BTreeSet::new();
    for (field, change, cgroup_v1) in refused_examples() {
        let node = Node {
            cgroup_v1,
            ..Node::default()
        };
        let text = check(&spec(&change), node).unwrap_err().to_string();
        let is_named = match field.split_once('*') {
            // One of several stages of hooks, or a section.
            Some((start, end)) => {
                let start = start.trim_end_matches(['.', '[', ']', '{', '}']);
                text.starts_with(start) && text.contains(&format!("{end}:"))
            }
            None => text.starts_with(&format!("{field}:")),
        };
        assert!(is_named, "{field}: {text}");
        shown.insert(field);
    }
    let rows = rows().into_iter();
    let refused: BTreeSet<_> = rows
        .filter(|row| row.linux.contains("refused") || row.guests.contains("refused"))
        .map(|row| row.field)
        .collect();
    assert_eq!(refused, shown);
}

/// What containerd, its CRI plugin and Docker write by themselves.
#[test]
fn what_clients_write_by_default_is_accepted() {
    let defaults = [
        json!({ "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
            { "destination": "/etc/hosts", "type": "bind", "source": "/a",
              "options": ["rbind", "rprivate", "ro"] },
            { "destination": "/data", "type": "bind", "source": "/a",
              "options": ["rbind", "rprivate", "rro"] } ] }),
        json!({ "hostname": "a", "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "network" }, { "type": "uts" }],
            "sysctl": { "net.ipv4.ip_unprivileged_port_start": "0" },
            "rootfsPropagation": "", "mountLabel": "",
            "resources": {
                "memory": { "limit": 1, "swap": 1, "disableOOMKiller": false, "swappiness": 0 },
                "cpu": { "shares": 2, "quota": 1000, "period": 100000, "cpus": "0" },
                "pids": { "limit": 10 }, "hugepageLimits": [], "network": {}, "rdma": {},
                "blockIO": { "weight": 10, "weightDevice": [], "throttleReadBpsDevice": [] } } } }),
        json!({ "process": { "consoleSize": { "height": 1, "width": 1 }, "selinuxLabel": "",
            "apparmorProfile": "", "commandLine": "", "oomScoreAdj": -998,
            "user": { "username": "", "additionalGids": [0, 10], "umask": 18 } } }),
    ];
    for change in &defaults {
        for cgroup_v1 in [false, true] {
            let node = Node {
                cgroup_v1,
                ..Node::default()
            };
            check(&spec(change), node).unwrap();
        }
    }
}

#[test]
fn labels_are_kept_where_the_kernel_knows_them() {
    let change = json!({ "process": { "selinuxLabel": "a:b:c:d", "apparmorProfile": "p" } });
    let node = Node {
        selinux: true,
        apparmor: true,
        cgroup_v1: false,
    };
    check(&spec(&change), node).unwrap();
}

#[test]
fn an_exec_is_checked_alone_and_against_the_filter_of_its_container() {
    let container = spec(&json!({}));
    let process = |change: Value| {
        spec(&json!({ "process": change }))
            .process()
            .clone()
            .unwrap()
    };
    let check = |process: &Process, container: &Spec| {
        let checked = check_exec(process, container, Node::default());
        checked.map_err(|error| error.to_string())
    };
    check(&process(json!({})), &container).unwrap();
    for (field, change) in [
        ("process.selinuxLabel", json!({ "selinuxLabel": "a:b:c:d" })),
        (
            "process.execCPUAffinity.final",
            json!({ "execCPUAffinity": { "final": "1" } }),
        ),
        (
            "process.user.username",
            json!({ "user": { "username": "a" } }),
        ),
    ] {
        let error = check(&process(change), &container).unwrap_err();
        assert!(error.starts_with(field), "{error}");
    }
    let notifies = spec(&json!({ "linux": { "seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a",
        "syscalls": [{ "names": ["mount"], "action": "SCMP_ACT_NOTIFY" }] } } }));
    let error = check(&process(json!({})), &notifies).unwrap_err();
    assert!(error.starts_with("linux.seccomp"), "{error}");
}

#[test]
fn ids_are_mapped_for_bind_mounts_with_both_maps() {
    let map = json!([{ "hostID": 1, "containerID": 0, "size": 1 }]);
    let checked = |kind: &str, options: Value, linux: Value| {
        let spec = spec(
            &json!({ "linux": linux, "mounts": [{ "destination": "/a", "source": "/a",
            "type": kind, "options": options, "uidMappings": map, "gidMappings": map }] }),
        );
        check(&spec, Node::default())
    };
    checked("bind", json!(["rbind", "ridmap"]), json!({})).unwrap();
    checked("", json!(["rbind"]), json!({})).unwrap();
    checked("tmpfs", json!([]), json!({})).unwrap_err();
    let user =
        json!({ "namespaces": [{ "type": "user" }], "uidMappings": map, "gidMappings": map });
    let bind = json!([{ "destination": "/a", "source": "/a", "options": ["bind", "idmap"] }]);
    let spec = spec(&json!({ "mounts": bind, "linux": user }));
    check(&spec, Node::default()).unwrap();
}

#[test]
fn a_mask_of_files_does_not_depend_on_the_shims() {
    let umask = |change: Value| {
        let mut spec = spec(&json!({ "process": { "user": change } }));
        complete(&mut spec);
        spec.process().as_ref().unwrap().user().umask()
    };
    assert_eq!(umask(json!({})), Some(0o022));
    assert_eq!(umask(json!({ "umask": 0 })), Some(0));
}
