//! Programs that are recognised instead of being read again.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use shimwright_guests::EXIT_CODE;
use shimwright_testkit::{CACHE_DIR_VARIABLE, Containerd, poll};

use crate::binary::section;
use crate::{containerd, finish, run};

/// A guest with so much in a section that says nothing that its digest is worth remembering.
fn large() -> Vec<u8> {
    let mut guest = EXIT_CODE.wasm().to_vec();
    let content = [&[3][..], b"pad", &vec![0; 1 << 20]].concat();
    guest.extend(section(0, &content));
    guest
}

/// The digests that are remembered of a file in a layer.
fn remembered(file: &Path) -> Vec<PathBuf> {
    let metadata = std::fs::metadata(file).unwrap();
    // An earlier file may have had the same inode.
    let beginning = format!(
        "{}-{}-{}-{}-",
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime()
    );
    let cache = PathBuf::from(std::env::var_os(CACHE_DIR_VARIABLE).expect("a cache for the tests"));
    let boots = std::fs::read_dir(cache.join("digests"));
    let files = boots
        .into_iter()
        .flatten()
        .flat_map(|boot| std::fs::read_dir(boot.unwrap().path()).unwrap());
    files
        .map(|file| file.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(&beginning)
        })
        .collect()
}

/// A layer on a disk: of files in memory nothing is remembered. Removed when it is dropped.
struct Layer(PathBuf);

impl Layer {
    fn new(containerd: &Containerd) -> Self {
        let layer = Path::new("/var/tmp").join(containerd.namespace());
        std::fs::create_dir(&layer).unwrap();
        std::fs::set_permissions(&layer, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(layer.join("guest.wasm"), large()).unwrap();
        Self(layer)
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_program_in_a_layer_is_recognised_in_every_container_of_the_image() {
    let containerd = containerd("containerd-shim-wasmtime-v1");
    let layer = Layer::new(&containerd);
    let file = layer.0.join("guest.wasm");
    let bundle = |id: &str| {
        let bundle = containerd.bundle(id).unwrap().pod("p").unwrap();
        let bundle = bundle.args(&["/guest.wasm", "7"]).unwrap();
        bundle.overlay_over(&layer.0).unwrap()
    };
    let shim = containerd.start(&bundle("first")).unwrap();
    let live = |id: &str| {
        shim.create(&bundle(id)).unwrap();
        assert_eq!(run(&shim, id), 7);
        shim.delete(id).unwrap();
    };
    live("a");
    // What is so new could change unseen.
    let changed = Duration::from_secs(u64::try_from(file.metadata().unwrap().ctime()).unwrap());
    let is_old = || SystemTime::now() > SystemTime::UNIX_EPOCH + changed + Duration::from_secs(4);
    poll(|| is_old().then_some(())).unwrap();
    live("b");
    let [known] = &remembered(&file)[..] else {
        panic!("{:?}", remembered(&file));
    };
    // Each container has an overlay of its own; who recognises the program in the next one does
    // not read it, and believes what is remembered.
    std::fs::write(known, "0".repeat(64)).unwrap();
    live("c");
    let text = std::fs::read_to_string(known).unwrap();
    assert_eq!(text, "0".repeat(64));
    finish(&containerd, &shim);
}
