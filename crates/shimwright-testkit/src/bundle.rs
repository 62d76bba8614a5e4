//! Bundles, as containerd lays them out for `ctr run`.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::types::mount::Mount;
use serde_json::{Value, json};
use shimwright_guests::Guest;

use crate::Result;
use crate::stdio::{Input, Output};

/// A spec as containerd generates it, without machine-specific parts.
const TEMPLATE: &str = include_str!("config.json");

/// The annotation by which CRI groups the containers of a pod.
const POD: &str = "io.kubernetes.cri.sandbox-id";

/// The path of a guest in its container.
pub const GUEST: &str = "/guest.wasm";

/// A bundle. Its spec is written when it is changed, so it is always complete.
#[derive(Debug)]
pub struct Bundle {
    id: String,
    directory: PathBuf,
    /// The image's files, beside the bundle: `root.path`, or the lower layer of an overlay.
    image: PathBuf,
    spec: Value,
    overlay: bool,
    /// Further options of the overlay.
    overlay_options: Vec<String>,
    /// The lower layer of the overlay.
    lower: PathBuf,
    streams: [String; 3],
    /// Both ends of the log's FIFO.
    log: Option<File>,
}

impl Bundle {
    pub(crate) fn new(parent: &Path, namespace: &str, id: &str) -> Result<Self> {
        let directory = parent.join("bundles").join(id);
        let image = parent.join("images").join(id);
        fs::create_dir_all(&directory)?;
        fs::create_dir_all(&image)?;
        fs::set_permissions(&image, fs::Permissions::from_mode(0o755))?;
        let mut spec: Value = serde_json::from_str(TEMPLATE)?;
        spec["root"]["path"] = json!(image);
        spec["linux"]["cgroupsPath"] = json!(format!("/{namespace}/{id}"));
        let bundle = Self {
            id: id.to_owned(),
            directory,
            lower: image.clone(),
            image,
            spec,
            overlay: false,
            overlay_options: Vec::new(),
            streams: Default::default(),
            log: None,
        };
        bundle.write()?;
        Ok(bundle)
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The bundle's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of the image's files.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Puts a guest at [`GUEST`] and makes it the entrypoint.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn guest(self, guest: Guest) -> Result<Self> {
        self.file(GUEST, guest.wasm(), 0o755)?.args(&[GUEST])
    }

    /// Puts a file into the image.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn file(self, path: &str, content: &[u8], mode: u32) -> Result<Self> {
        let path = self.image.join(path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(self)
    }

    /// Changes the spec.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn spec(mut self, change: impl FnOnce(&mut Value)) -> Result<Self> {
        change(&mut self.spec);
        self.write()?;
        Ok(self)
    }

    /// Sets the command.
    ///
    /// # Errors
    ///
    /// If the spec cannot be written.
    pub fn args(self, args: &[&str]) -> Result<Self> {
        self.spec(|spec| spec["process"]["args"] = json!(args))
    }

    /// Sets the environment, each variable as `NAME=value`.
    ///
    /// # Errors
    ///
    /// If the spec cannot be written.
    pub fn env(self, env: &[&str]) -> Result<Self> {
        self.spec(|spec| spec["process"]["env"] = json!(env))
    }

    /// Sets the user and the group.
    ///
    /// # Errors
    ///
    /// If the spec cannot be written.
    pub fn user(self, uid: u32, gid: u32) -> Result<Self> {
        self.spec(|spec| spec["process"]["user"] = json!({ "uid": uid, "gid": gid }))
    }

    /// Makes the root file system read-only.
    ///
    /// # Errors
    ///
    /// If the spec cannot be written.
    pub fn readonly_root(self) -> Result<Self> {
        self.spec(|spec| spec["root"]["readonly"] = json!(true))
    }

    /// Gives the process a terminal of this size.
    ///
    /// # Errors
    ///
    /// If the spec cannot be written.
    pub fn terminal(self, width: u32, height: u32) -> Result<Self> {
        self.spec(|spec| {
            spec["process"]["terminal"] = json!(true);
            spec["process"]["consoleSize"] = json!({ "width": width, "height": height });
        })
    }

    /// Adds an annotation.
    ///
    /// # Errors
    ///
    /// If the spec cannot be written.
    pub fn annotation(self, name: &str, value: &str) -> Result<Self> {
        self.spec(|spec| spec["annotations"][name] = json!(value))
    }

    /// Puts the container into a pod.
    ///
    /// # Errors
    ///
    /// If the spec cannot be written.
    pub fn pod(self, pod: &str) -> Result<Self> {
        self.annotation(POD, pod)
    }

    /// Adds a bind mount.
    ///
    /// # Errors
    ///
    /// If the spec cannot be written.
    pub fn bind(self, source: &Path, destination: &str) -> Result<Self> {
        let mount = json!({
            "destination": destination, "type": "bind", "source": source,
            "options": ["rbind", "rw"],
        });
        self.spec(|spec| {
            if let Some(mounts) = spec["mounts"].as_array_mut() {
                mounts.push(mount);
            }
        })
    }

    /// Lets the shim mount an overlay over the image's files, as a snapshotter's is.
    ///
    /// # Errors
    ///
    /// If the spec cannot be written.
    pub fn overlay(mut self) -> Result<Self> {
        self.overlay = true;
        for layer in ["upper", "work"] {
            fs::create_dir_all(self.layer(layer))?;
        }
        fs::set_permissions(self.layer("upper"), fs::Permissions::from_mode(0o755))?;
        self.spec(|spec| spec["root"]["path"] = json!("rootfs"))
    }

    /// Adds an option of the overlay.
    pub fn overlay_option(mut self, option: &str) -> Self {
        self.overlay_options.push(option.to_owned());
        self
    }

    /// The same over the files of another bundle's image: containers of one image share its
    /// layers, and so its files with all that the kernel knows about them.
    ///
    /// # Errors
    ///
    /// If the spec cannot be written.
    pub fn overlay_of(mut self, other: &Self) -> Result<Self> {
        self.lower.clone_from(&other.image);
        self.overlay()
    }

    /// The same over this directory, which may be on any file system.
    ///
    /// # Errors
    ///
    /// If the spec cannot be written.
    pub fn overlay_over(mut self, layer: &Path) -> Result<Self> {
        layer.clone_into(&mut self.lower);
        self.overlay()
    }

    /// Creates the FIFO of the standard output and begins to read it.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn stdout(&mut self) -> Result<Output> {
        let output = Output::new(&self.stream("stdout"))?;
        self.streams[1] = output.path();
        Ok(output)
    }

    /// Creates the FIFO of the standard error and begins to read it.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn stderr(&mut self) -> Result<Output> {
        let output = Output::new(&self.stream("stderr"))?;
        self.streams[2] = output.path();
        Ok(output)
    }

    /// Creates the FIFO of the standard input.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn stdin(&mut self) -> Result<Input> {
        let input = Input::new(&self.stream("stdin"))?;
        self.streams[0] = input.path();
        Ok(input)
    }

    /// Creates a FIFO for the standard output that nobody opens.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn unread_stdout(&mut self) -> Result<PathBuf> {
        let path = self.stream("stdout");
        crate::stdio::fifo(&path)?;
        self.streams[1] = path.to_string_lossy().into_owned();
        Ok(path)
    }

    /// Creates the FIFO for the log of the shim, without which some do not start. What they write
    /// waits in it as long as the bundle lives.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn log(mut self) -> Result<Self> {
        let path = self.directory.join("log");
        crate::stdio::fifo(&path)?;
        self.log = Some(File::options().read(true).write(true).open(path)?);
        Ok(self)
    }

    /// Removes the bundle, as the daemon does when its container is gone, with the image's files
    /// and the streams.
    ///
    /// # Errors
    ///
    /// If it cannot be removed.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.directory)?;
        fs::remove_dir_all(&self.image)?;
        for stream in self.streams.iter().filter(|path| !path.is_empty()) {
            fs::remove_file(stream)?;
        }
        Ok(())
    }

    /// The request that creates the container.
    pub fn request(&self) -> CreateTaskRequest {
        let [stdin, stdout, stderr] = self.streams.clone();
        CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.directory.to_string_lossy().into_owned(),
            rootfs: self
                .overlay
                .then(|| self.overlay_mount())
                .into_iter()
                .collect(),
            stdin,
            stdout,
            stderr,
            terminal: self.spec["process"]["terminal"] == true,
            ..Default::default()
        }
    }

    fn overlay_mount(&self) -> Mount {
        let option = |name, path: &Path| format!("{name}={}", path.display());
        let layers = [
            option("lowerdir", &self.lower),
            option("upperdir", &self.layer("upper")),
            option("workdir", &self.layer("work")),
        ];
        let options = layers.into_iter().chain(self.overlay_options.clone());
        Mount {
            type_: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options: options.collect(),
            ..Default::default()
        }
    }

    fn layer(&self, name: &str) -> PathBuf {
        self.image.with_file_name(format!("{}.{name}", self.id))
    }

    fn stream(&self, name: &str) -> PathBuf {
        self.image.with_file_name(format!("{}.{name}", self.id))
    }

    fn write(&self) -> Result<()> {
        Ok(fs::write(
            self.directory.join("config.json"),
            self.spec.to_string(),
        )?)
    }
}
