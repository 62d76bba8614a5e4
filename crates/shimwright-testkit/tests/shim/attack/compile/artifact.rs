//! What is compiled and what is loaded: its size, and that it cannot be changed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use shimwright_guests::{HELLO, IDLE};
use shimwright_testkit::poll;
use shimwright_testkit::protos::ttrpc::Code;

use crate::{containerd, end, finish, for_each_engine, refused, run};

for_each_engine! {
    a_module_that_is_too_large_is_refused_before_it_is_read
    a_running_guest_has_one_descriptor_of_its_artifact_at_most
    what_a_mapping_has_changed_is_what_runs
}

/// A file that begins like a module and says to be 2 GiB large, of which nothing is on the disk.
fn sparse(path: &Path) {
    fs::write(path, b"\0asm\x01\0\0\0").unwrap();
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(2 << 30)
        .unwrap();
}

fn a_module_that_is_too_large_is_refused_before_it_is_read(engine: &str) {
    let containerd = containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(HELLO).unwrap();
    sparse(&bundle.image().join("guest.wasm"));
    let shim = containerd.start(&bundle).unwrap();
    let begin = std::time::Instant::now();
    let reason = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
    assert!(begin.elapsed() < Duration::from_secs(2));
    let expected = "2147483648 bytes, more than compile.module_size = 536870912";
    assert!(reason.contains(expected), "{reason}");

    let bundle = containerd
        .bundle("b")
        .unwrap()
        .pod("b")
        .unwrap()
        .guest(IDLE)
        .unwrap();
    sparse(&bundle.image().join("large.wasm"));
    let other = containerd.start(&bundle).unwrap();
    other.create(&bundle).unwrap();
    other.start("b").unwrap();
    let process = serde_json::json!({
        "args": ["/large.wasm"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
    });
    let exec = other
        .add_exec("b", "e", &process, Default::default())
        .unwrap();
    let begin = std::time::Instant::now();
    let reason = refused(exec.start(), Code::INVALID_ARGUMENT);
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert!(reason.contains(expected), "{reason}");
    exec.delete().unwrap();
    end(&other, "b");
    other.shutdown();
    // A limit of the node's own, and what is just within it.
    let size = HELLO.wasm().len();
    containerd
        .configure(&format!("[compile]\nmodule_size = {}", size - 1))
        .unwrap();
    let bundle = containerd.bundle("c").unwrap().guest(HELLO).unwrap();
    let reason = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
    assert!(reason.contains("more than compile.module_size"), "{reason}");
    containerd
        .configure(&format!("[compile]\nmodule_size = {size}"))
        .unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "c"), 0);
    shim.delete("c").unwrap();
    finish(&containerd, &shim);
}

fn a_running_guest_has_one_descriptor_of_its_artifact_at_most(engine: &str) {
    let (containerd, _bundle, shim, _output) = crate::running(engine, IDLE, "ready");
    let pid = shim.state("a").unwrap().pid;
    let cache = std::env::var(shimwright_testkit::CACHE_DIR_VARIABLE).unwrap_or_default();
    let mut artifacts = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap();
        let metadata = fs::metadata(entry.path());
        let is_file = metadata.is_ok_and(|metadata| metadata.is_file());
        // Seen from a mount that is attached nowhere, a path begins there.
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let is_digest = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_root = target == Path::new("/");
        if !is_file || !(is_digest || is_root || target.starts_with(&cache)) {
            continue;
        }
        artifacts += 1;
        // Even root can neither write to it nor give it another mode.
        let reopened = fs::File::options().write(true).open(entry.path());
        assert_eq!(
            reopened.unwrap_err().kind(),
            std::io::ErrorKind::ReadOnlyFilesystem
        );
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
        let changed = fs::set_permissions(entry.path(), mode);
        assert_eq!(
            changed.unwrap_err().kind(),
            std::io::ErrorKind::ReadOnlyFilesystem
        );
    }
    assert!(artifacts <= 1, "{artifacts} descriptors of the artifact");
    assert!(engine != "containerd-shim-wasmtime-v1" || artifacts == 1);
    end(&shim, "a");
    finish(&containerd, &shim);
}

/// Keeps a file mapped and, for each line that it reads, writes that byte near the file's end.
const MAPPER: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
int main(int argc, char **argv) {
    int value, fd = open(argv[1], O_RDWR);
    struct stat s;
    if (fd < 0 || fstat(fd, &s)) return 1;
    char *m = mmap(0, s.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (m == MAP_FAILED) return 2;
    while (scanf("%d", &value) == 1) { m[s.st_size - 4] = value; puts("written"); fflush(stdout); }
    return 0;
}
"#;

/// A large guest that exits with this status, below 64, which is the fourth byte from its end.
fn exits_with(status: u8) -> Vec<u8> {
    let pad = [&[3][..], b"pad", &vec![0; 2 << 20]].concat();
    // No locals; `i32.const`, `call` of `proc_exit`, `end`.
    let code = [1, 6, 0, 0x41, status, 0x10, 0, 0x0b];
    [
        &b"\0asm\x01\0\0\0"[..],
        &crate::binary::section(0, &pad),
        &crate::binary::section(1, &[2, 0x60, 1, 0x7f, 0, 0x60, 0, 0]),
        &crate::binary::section(
            2,
            &[
                &[1, 22][..],
                b"wasi_snapshot_preview1",
                &[9],
                b"proc_exit",
                &[0, 0],
            ]
            .concat(),
        ),
        &crate::binary::section(3, &[1, 1]),
        &crate::binary::section(5, &[1, 0, 1]),
        &crate::binary::section(
            7,
            &[&[2, 6][..], b"_start", &[0, 1, 6], b"memory", &[2, 0]].concat(),
        ),
        &crate::binary::section(10, &code),
    ]
    .concat()
}

fn what_a_mapping_has_changed_is_what_runs(engine: &str) {
    use std::io::{BufRead, Write};
    let containerd = containerd(engine);
    let mapper = containerd.directory().join("mapper");
    fs::write(&mapper, crate::attack::program(&containerd, MAPPER)).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&mapper, executable).unwrap();
    // In memory, where mappings change no time, and on a disk, where they do once.
    let disk = Path::new("/var/tmp").join(containerd.namespace());
    fs::create_dir_all(&disk).unwrap();
    for (number, layer) in [containerd.directory().join("layer"), disk.clone()]
        .iter()
        .enumerate()
    {
        fs::create_dir_all(layer).unwrap();
        fs::write(layer.join("guest.wasm"), exits_with(1)).unwrap();
        let mut child = std::process::Command::new(&mapper)
            .arg(layer.join("guest.wasm"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut write = |value: u8| {
            writeln!(child.stdin.as_ref().unwrap(), "{value}").unwrap();
            said.read_line(&mut String::new()).unwrap();
        };
        write(2);
        // So old that its digest is remembered.
        let changed = fs::metadata(layer.join("guest.wasm"))
            .unwrap()
            .modified()
            .unwrap();
        let is_old = || {
            changed
                .elapsed()
                .is_ok_and(|age| age > Duration::from_secs(3))
        };
        poll(|| is_old().then_some(())).unwrap();
        let first = containerd.bundle(&format!("first-{number}")).unwrap();
        let shim = containerd.start(&first.pod("p").unwrap()).unwrap();
        for value in [2, 3, 4] {
            write(value);
            let id = format!("c-{number}-{value}");
            let bundle = containerd.bundle(&id).unwrap().pod("p").unwrap();
            let bundle = bundle.args(&["/guest.wasm"]).unwrap();
            let bundle = bundle.overlay_over(layer).unwrap();
            shim.create(&bundle).unwrap();
            assert_eq!(run(&shim, &id), u32::from(value), "{}", layer.display());
            shim.delete(&id).unwrap();
        }
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        finish(&containerd, &shim);
    }
    fs::remove_dir_all(&disk).unwrap();
}
