//! The engine that is a shared library: what it can do, and that an image has no part in what is
//! loaded.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use shimwright_guests::{HELLO, IDLE, SPIN, WASMEDGE_SERVER};
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Containerd, Snapshot};

use crate::options::{cri, request};
use crate::{end, finish, http, refused, run, running, started};

const ENGINE: &str = "containerd-shim-wasmedge-v1";

#[test]
fn a_guest_serves_with_sockets_of_wasmedge() {
    let (containerd, bundle, shim) = started(ENGINE, WASMEDGE_SERVER);
    let address = http::address();
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let mut bundle = bundle
        .args(&["/guest.wasm", &ip, &port])
        .unwrap()
        .spec(http::join_our_network)
        .unwrap();
    let output = bundle.stdout().unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for("listening\n").unwrap();
    for body in ["one", "another"] {
        let answer = http::block_on(async {
            let mut sender = http::connect(address).await;
            let request = http::request("/", body);
            http::text(sender.send_request(request).await.unwrap()).await
        });
        assert_eq!(answer, (200, body.to_owned()));
    }
    // It waits in a call of the host.
    shim.kill("a", libc::SIGTERM).unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 143);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

#[test]
fn compiled_code_in_a_tight_loop_is_ended_by_sigterm() {
    let (containerd, _, shim, _) = running(ENGINE, SPIN, "spinning\n");
    shim.kill("a", libc::SIGTERM).unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 143);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

#[test]
fn a_plug_in_that_the_node_lacks_is_named() {
    let (containerd, mut bundle, shim) = started(ENGINE, HELLO);
    let errors = bundle.stderr().unwrap();
    let options = cri("[engine]\nplugins = ['wasi_nn']\n");
    shim.create_task(&request(&bundle, options)).unwrap();
    assert_eq!(run(&shim, "a"), 125);
    let text = errors.text().unwrap();
    assert!(text.contains("libwasmedgePluginWasiNN.so"), "{text}");
    shim.delete("a").unwrap();
    let unknown = cri("[engine]\nplugins = ['wasmedge_process']\n");
    let text = refused(
        shim.create_task(&request(&bundle, unknown)),
        Code::INVALID_ARGUMENT,
    );
    assert!(text.contains("wasmedge_process"), "{text}");
    finish(&containerd, &shim);
}

#[test]
fn a_damaged_module_is_refused() {
    let (containerd, bundle, shim) = started(ENGINE, HELLO);
    let half = &HELLO.wasm()[..HELLO.wasm().len() / 2];
    let bundle = bundle.file("/guest.wasm", half, 0o755).unwrap();
    let text = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
    assert!(text.contains("not a valid module"), "{text}");
    finish(&containerd, &shim);
}

/// What the directory of the libraries and its files were in the runner.
#[test]
fn a_running_guest_has_left_the_directory_of_the_libraries() {
    let (containerd, _, shim, _) = running(ENGINE, IDLE, "ready\n");
    let pid = shim.state("a").unwrap().pid;
    let identity = |name: &str| {
        let found = fs::metadata(format!("/proc/{pid}/{name}")).unwrap();
        (found.dev(), found.ino())
    };
    assert_eq!(identity("cwd"), identity("root"));
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let found = fs::metadata(entry.unwrap().path()).unwrap();
        assert!(!found.is_dir() || (found.dev(), found.ino()) == identity("root"));
    }
    // It is the program that is linked to the library.
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    assert!(maps.contains("/libwasmedge.so"), "{maps}");
    end(&shim, "a");
    finish(&containerd, &shim);
}

/// A library that says that it was loaded, which is tried out.
fn telltale(directory: &Path) -> Vec<u8> {
    const SAYS: &str = r#"
        #include <unistd.h>
        __attribute__((constructor)) static void say(void) {
          (void)!write(2, "the library of the image\n", 25);
        }"#;
    let (source, library) = (directory.join("say.c"), directory.join("say.so"));
    fs::write(&source, SAYS).unwrap();
    let built = Command::new("gcc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .unwrap();
    assert!(built.success());
    let tried = Command::new("/bin/true")
        .env("LD_PRELOAD", &library)
        .output()
        .unwrap();
    assert_eq!(tried.stderr, b"the library of the image\n");
    fs::read(library).unwrap()
}

#[test]
fn no_library_of_an_image_is_loaded() {
    let (containerd, mut bundle, shim) = started(ENGINE, HELLO);
    let library = telltale(containerd.directory());
    for path in [
        "/libwasmedge.so.0",
        "/libc.so.6",
        "/libgcc_s.so.1",
        "/lib/x86_64-linux-gnu/libwasmedge.so.0",
        "/usr/lib/x86_64-linux-gnu/libnss_files.so.2",
        "/plugins/libwasmedgePluginWasiNN.so",
        "/plugin/libwasmedgePluginWasiNN.so",
        "/usr/lib/wasmedge/libwasmedgePluginWasiNN.so",
    ] {
        bundle = bundle.file(path, &library, 0o755).unwrap();
    }
    let preload = b"/plugins/libwasmedgePluginWasiNN.so\n";
    let mut bundle = bundle
        .file("/etc/ld.so.preload", preload, 0o644)
        .unwrap()
        .file("/ld.so.preload", preload, 0o644)
        .unwrap()
        .env(&[
            "LD_PRELOAD=/plugins/libwasmedgePluginWasiNN.so",
            "LD_LIBRARY_PATH=/",
            "WASMEDGE_PLUGIN_PATH=/plugins",
        ])
        .unwrap();
    let (output, errors) = (bundle.stdout().unwrap(), bundle.stderr().unwrap());
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    assert_eq!(output.text().unwrap(), "Hello from Wasm\n");
    assert_eq!(errors.text().unwrap(), "");
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

/// The shim under test, in a place of its own.
fn alone(prefix: &Path) -> PathBuf {
    let shims = std::env::var_os("SHIMWRIGHT_SHIM_DIR").unwrap();
    fs::create_dir_all(prefix.join("bin")).unwrap();
    let shim = prefix.join("bin").join(ENGINE);
    fs::copy(Path::new(&shims).join(ENGINE), &shim).unwrap();
    shim
}

#[test]
fn without_its_libraries_a_create_fails_and_says_what_to_do() {
    let elsewhere = crate::containerd(ENGINE);
    let prefix = elsewhere.directory().join("prefix");
    let containerd = Containerd::with_shim(&alone(&prefix)).unwrap();
    let bundle = containerd.bundle("a").unwrap().guest(HELLO).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let before: Snapshot = containerd.snapshot();
    let text = refused(shim.create(&bundle), Code::INVALID_ARGUMENT);
    let place = prefix.join("lib/shimwright/wasmedge-");
    for part in [&*place.to_string_lossy(), "cargo xtask wasmedge"] {
        assert!(text.contains(part), "{text}");
    }
    let same = || (containerd.snapshot() == before).then_some(());
    assert!(shimwright_testkit::poll(same).is_some());
    finish(&containerd, &shim);
}
