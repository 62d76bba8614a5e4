//! What a case changes: a spec, a root and the files of the node around it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{self, MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};
use shimwright_testkit::Result;

use crate::World;
use crate::holder::Holder;

/// A spec as containerd generates it, but for machine-specific parts.
const TEMPLATE: &str = include_str!("spec.json");

/// Directories of every root.
const DIRECTORIES: [&str; 7] = ["bin", "dev", "etc", "proc", "run", "sys", "tmp"];

/// What hooks write to, on the node and, as far as it is mounted, in the container.
const HOOKS: &str = "hooks";

/// Where what is mounted is, on the node.
const NODE: &str = "node";

/// One run's spec and its files, in a directory of the node.
#[derive(Debug)]
pub struct Stage {
    /// The spec.
    pub spec: Value,
    place: PathBuf,
    /// The program inside, for hooks on the node.
    probe: PathBuf,
    busybox: PathBuf,
    /// Has a namespace that is joined.
    holder: Option<Holder>,
    is_real: bool,
}

impl Stage {
    /// A root and the spec that `ctr run` makes for it, in a directory of this name.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn new(world: &World, name: &str, cgroup: &str) -> Result<Self> {
        let place = world.place(name)?;
        let root = place.join("root");
        for directory in DIRECTORIES {
            fs::create_dir_all(root.join(directory))?;
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
        // In memory, linking them saves copying.
        fs::hard_link(world.probe(), root.join("probe"))?;
        fs::hard_link(world.busybox(), root.join("bin/busybox"))?;
        symlink("busybox", root.join("bin/sh"))?;
        let users = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
        fs::write(root.join("etc/passwd"), users)?;
        fs::write(
            root.join("etc/group"),
            "root:x:0:\nuser:x:1000:\nmore:x:1001:user\n",
        )?;
        // As on a node, what is mounted is elsewhere than the root.
        let node = place.join(NODE);
        fs::create_dir(&node)?;
        mount::mount("node", &node, "tmpfs", MountFlags::empty(), None)?;
        mount::mount_change(&node, MountPropagationFlags::SHARED)?;
        let hooks = place.join(HOOKS);
        fs::write(&hooks, "")?;
        fs::set_permissions(&hooks, fs::Permissions::from_mode(0o666))?;
        Ok(Self {
            spec: template(&root, cgroup)?,
            place,
            probe: world.probe(),
            busybox: world.busybox(),
            holder: None,
            is_real: true,
        })
    }

    /// One whose spec alone is of interest: nothing is done on the node.
    ///
    /// # Errors
    ///
    /// If there is no spec.
    pub fn imagined() -> Result<Self> {
        Ok(Self {
            spec: template(Path::new("/place/root"), "/cgroup")?,
            place: "/place".into(),
            probe: "/probe".into(),
            busybox: "/busybox".into(),
            holder: None,
            is_real: false,
        })
    }

    /// Does something on the node.
    pub fn act(&self, act: impl FnOnce() -> std::io::Result<()>) -> &Self {
        if self.is_real {
            // A case whose files cannot be made has failed.
            act().unwrap_or_else(|error| panic!("cannot prepare the case: {error}"));
        }
        self
    }

    /// A static busybox, of the node.
    pub fn busybox(&self) -> &Path {
        &self.busybox
    }

    /// The directory of all of this.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The directory that becomes the root, or a path in it.
    pub fn root(&self, path: &str) -> PathBuf {
        self.place.join("root").join(path.trim_start_matches('/'))
    }

    /// A file of the node, beside the root.
    pub fn node(&self, path: &str) -> PathBuf {
        self.place.join(path)
    }

    /// The path of something that is mounted.
    pub fn on_node(&self, name: &str) -> PathBuf {
        self.place.join(NODE).join(name)
    }

    /// Puts a file into the root.
    pub fn file(&self, path: &str, content: &str) -> &Self {
        self.act(|| make(&self.root(path), content))
    }

    /// Puts a directory into the root.
    pub fn directory(&self, path: &str) -> &Self {
        self.act(|| fs::create_dir_all(self.root(path)))
    }

    /// Puts a link into the root.
    pub fn link(&self, target: &str, path: &str) -> &Self {
        let path = self.root(path);
        self.act(|| {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            symlink(target, path)
        })
    }

    /// A directory of the node with one file, which can be mounted.
    pub fn source(&self, name: &str) -> String {
        let source = self.on_node(name);
        self.act(|| make(&source.join("file"), "content\n"));
        source.to_string_lossy().into_owned()
    }

    /// A file of the node, which can be mounted.
    pub fn source_file(&self, name: &str) -> String {
        let source = self.on_node(name);
        self.act(|| make(&source, "content\n"));
        source.to_string_lossy().into_owned()
    }

    /// Adds a mount.
    pub fn mount(&mut self, mount: Value) -> &mut Self {
        if let Some(mounts) = self.spec["mounts"].as_array_mut() {
            mounts.push(mount);
        }
        self
    }

    /// Adds a bind mount of a directory with one file.
    pub fn bind(&mut self, destination: &str, options: &[&str]) -> &mut Self {
        let source = self.source("source");
        let mount = json!({
            "destination": destination, "type": "bind", "source": source, "options": options,
        });
        self.mount(mount)
    }

    /// Adds a tmpfs.
    pub fn tmpfs(&mut self, destination: &str, options: &[&str]) -> &mut Self {
        self.mount(json!({
            "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options,
        }))
    }

    /// Has the program inside do more.
    pub fn steps(&mut self, steps: &[&str]) -> &mut Self {
        if let Some(args) = self.spec["process"]["args"].as_array_mut() {
            args.extend(steps.iter().map(|step| json!(step)));
        }
        self
    }

    /// Changes fields of the process; null removes one.
    pub fn process(&mut self, fields: Value) -> &mut Self {
        merge(&mut self.spec["process"], fields);
        self
    }

    /// Changes fields of `linux`; null removes one.
    pub fn linux(&mut self, fields: Value) -> &mut Self {
        merge(&mut self.spec["linux"], fields);
        self
    }

    /// Changes limits; null removes one.
    pub fn resources(&mut self, fields: Value) -> &mut Self {
        merge(&mut self.spec["linux"]["resources"], fields);
        self
    }

    /// Adds a namespace.
    pub fn namespace(&mut self, namespace: Value) -> &mut Self {
        if let Some(namespaces) = self.spec["linux"]["namespaces"].as_array_mut() {
            namespaces.push(namespace);
        }
        self
    }

    /// Has the container join a namespace that is neither its own nor the node's.
    pub fn join(&mut self, kind: &str) -> &mut Self {
        let (file, flag) = match kind {
            "cgroup" => ("cgroup", UnshareFlags::NEWCGROUP),
            "ipc" => ("ipc", UnshareFlags::NEWIPC),
            "network" => ("net", UnshareFlags::NEWNET),
            _ => ("uts", UnshareFlags::NEWUTS),
        };
        self.holder = self.is_real.then(|| Holder::with(flag));
        let namespaces = self.holder.as_ref().map(Holder::namespaces);
        let path = format!("{}/{file}", namespaces.unwrap_or_default());
        self.without_namespace(kind);
        self.namespace(json!({ "type": kind, "path": path }))
    }

    /// What holds a namespace that is joined.
    pub(crate) fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// Leaves out a namespace.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Self {
        if let Some(namespaces) = self.spec["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != kind);
        }
        self
    }

    /// Leaves out the mounts at and below a path.
    pub fn without_mounts(&mut self, below: &str) -> &mut Self {
        if let Some(mounts) = self.spec["mounts"].as_array_mut() {
            let is_below = |mount: &Value| {
                let destination = mount["destination"].as_str().unwrap_or_default();
                destination == below || destination.starts_with(&format!("{below}/"))
            };
            mounts.retain(|mount| !is_below(mount));
        }
        self
    }

    /// Gives the process these capabilities in these sets.
    pub fn capabilities(&mut self, sets: &[&str], capabilities: &[&str]) -> &mut Self {
        for set in sets {
            self.spec["process"]["capabilities"][set] = json!(capabilities);
        }
        self
    }

    /// Adds a capability to the sets that the spec has.
    pub fn capability(&mut self, capability: &str) -> &mut Self {
        if let Some(sets) = self.spec["process"]["capabilities"].as_object_mut() {
            for set in sets.values_mut().filter_map(Value::as_array_mut) {
                set.push(json!(capability));
            }
        }
        self
    }

    /// Adds a hook of the node that writes down what it is given, with more fields.
    pub fn hook(&mut self, stage: &str, words: &[&str], fields: Value) -> &mut Self {
        let file = self.node(HOOKS).to_string_lossy().into_owned();
        let mut args = vec!["probe", "hook", &file, stage];
        args.extend(words);
        let hook = json!({ "path": self.probe, "args": args });
        self.add_hook(stage, hook, fields)
    }

    /// Adds a hook of the container, which runs where the node's files are mounted only if the case
    /// does so: its file is mounted at `/hooks`.
    pub fn inner_hook(&mut self, words: &[&str], fields: Value) -> &mut Self {
        let is_there = |mount: &Value| mount["destination"] == "/hooks";
        if !self.spec["mounts"]
            .as_array()
            .is_some_and(|mounts| mounts.iter().any(is_there))
        {
            let source = self.node(HOOKS);
            self.mount(json!({
                "destination": "/hooks", "type": "bind", "source": source, "options": ["bind"],
            }));
        }
        let mut args = vec!["probe", "hook", "/hooks", "startContainer"];
        args.extend(words);
        let hook = json!({ "path": "/probe", "args": args });
        self.add_hook("startContainer", hook, fields)
    }

    /// Adds any hook.
    pub fn add_hook(&mut self, stage: &str, mut hook: Value, fields: Value) -> &mut Self {
        merge(&mut hook, fields);
        let hooks = &mut self.spec["hooks"][stage];
        match hooks.as_array_mut() {
            Some(hooks) => hooks.push(hook),
            None => *hooks = json!([hook]),
        }
        self
    }

    /// What hooks have written.
    pub(crate) fn hooks(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.node(HOOKS)).unwrap_or_default();
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| json!(line));
        text.lines().map(parse).collect()
    }
}

/// Replaces fields of an object; null removes one.
pub fn merge(object: &mut Value, fields: Value) {
    let Value::Object(fields) = fields else {
        return;
    };
    for (name, value) in fields {
        if value.is_null() {
            if let Some(object) = object.as_object_mut() {
                object.remove(&name);
            }
        } else {
            object[name] = value;
        }
    }
}

/// The spec of a root.
fn template(root: &Path, cgroup: &str) -> Result<Value> {
    let mut spec: Value = serde_json::from_str(TEMPLATE)?;
    spec["root"]["path"] = json!(root);
    spec["linux"]["cgroupsPath"] = json!(cgroup);
    Ok(spec)
}

fn make(path: &Path, content: &str) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, content)
}
