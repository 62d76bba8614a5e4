//! The commands of the executable that precede any container.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use shimwright_guests::HELLO;
use shimwright_testkit::protos::protobuf::Message;
use shimwright_testkit::protos::protobuf::well_known_types::any::Any;
use shimwright_testkit::protos::types::introspection::RuntimeInfo;
use shimwright_testkit::{Bundle, Containerd, Shim};

use crate::{containerd, finish, for_each_engine, run};

for_each_engine! {
    without_input_the_answer_is_a_bare_address
    options_on_stdin_are_answered_with_a_bare_address
    bootstrap_parameters_are_answered_in_kind
    containers_of_a_pod_share_one_process
    concurrent_starts_of_a_pod_share_one_process
    a_start_whose_client_has_gone_leaves_nothing
    a_start_whose_client_has_gone_leaves_the_process_to_others
    containers_without_a_pod_have_a_process_each
    the_socket_is_for_root_only
    the_address_file_holds_the_address
    information_needs_no_container
    the_version_is_printed
}

fn bundle(containerd: &Containerd, id: &str) -> Bundle {
    containerd.bundle(id).unwrap().guest(HELLO).unwrap()
}

/// Checks that this is all that was written, and that a shim answers there.
fn check_bare_address(containerd: &Containerd, text: &str) {
    assert!(text.starts_with("unix:///"), "{text}");
    assert!(!text.trim().contains(char::is_whitespace), "{text}");
    let shim = Shim::connect(text.trim()).unwrap();
    assert!(shim.connect_task("a").unwrap().shim_pid > 0);
    finish(containerd, &shim);
}

fn without_input_the_answer_is_a_bare_address(engine: &str) {
    let containerd = containerd(engine);
    let text = containerd
        .run_start(&bundle(&containerd, "a"), &[])
        .unwrap()
        .text()
        .unwrap();
    check_bare_address(&containerd, &text);
}

fn options_on_stdin_are_answered_with_a_bare_address(engine: &str) {
    let containerd = containerd(engine);
    let options = Any {
        type_url: "runtimeoptions.v1.Options".to_owned(),
        ..Default::default()
    };
    let stdin = options.write_to_bytes().unwrap();
    let text = containerd
        .run_start(&bundle(&containerd, "a"), &stdin)
        .unwrap()
        .text()
        .unwrap();
    check_bare_address(&containerd, &text);
}

fn bootstrap_parameters_are_answered_in_kind(engine: &str) {
    let containerd = containerd(engine);
    let result = containerd.bootstrap(&bundle(&containerd, "a")).unwrap();
    assert_eq!((result.version, result.protocol.as_str()), (2, "ttrpc"));
    check_bare_address(&containerd, &result.address);
}

fn containers_of_a_pod_share_one_process(engine: &str) {
    let containerd = containerd(engine);
    let start = |id| {
        containerd
            .start(&bundle(&containerd, id).pod("p").unwrap())
            .unwrap()
    };
    let (first, second) = (start("a"), start("b"));
    assert_eq!(first.address(), second.address());
    assert_eq!(containerd.snapshot().shims().len(), 1);
    drop(second);
    finish(&containerd, &first);
}

fn concurrent_starts_of_a_pod_share_one_process(engine: &str) {
    let containerd = containerd(engine);
    let start = |id: &str| {
        containerd
            .start(&bundle(&containerd, id).pod("p").unwrap())
            .unwrap()
    };
    let shims: Vec<Shim> = std::thread::scope(|scope| {
        let starting: Vec<_> = ["a", "b", "c", "d"]
            .map(|id| scope.spawn(move || start(id)))
            .into_iter()
            .collect();
        starting
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(
        shims
            .iter()
            .all(|shim| shim.address() == shims[0].address())
    );
    assert_eq!(containerd.snapshot().shims().len(), 1);
    finish(&containerd, &shims[0]);
}

/// Runs `start` for a bundle until others can find the process but the command cannot say so: its
/// client does not read. Then does `meanwhile`, and the client goes.
pub(crate) fn start_without_client<T>(
    containerd: &Containerd,
    bundle: &Bundle,
    meanwhile: impl FnOnce() -> T,
) -> T {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[0; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut command = containerd.begin_start(bundle, writer).unwrap();
    let outcome = meanwhile();
    drop(reader);
    assert!(!command.wait().unwrap().success());
    outcome
}

fn a_start_whose_client_has_gone_leaves_nothing(engine: &str) {
    let containerd = containerd(engine);
    start_without_client(&containerd, &bundle(&containerd, "a"), || ());
    containerd.wait_until_clean().unwrap();
}

fn a_start_whose_client_has_gone_leaves_the_process_to_others(engine: &str) {
    let containerd = containerd(engine);
    let bundle = |id| bundle(&containerd, id).pod("p").unwrap();
    // A client may also try the same container again.
    for second in ["b", "a"] {
        let (first, second) = (bundle("a"), bundle(second));
        let start = || containerd.run_start(&second, &[]).unwrap().text().unwrap();
        let address = start_without_client(&containerd, &first, start);
        let shim = Shim::connect(address.trim()).unwrap();
        shim.create(&second).unwrap();
        assert_eq!(run(&shim, second.id()), 0);
        shim.delete(second.id()).unwrap();
        finish(&containerd, &shim);
        std::fs::remove_dir_all(first.directory()).unwrap();
    }
}

fn containers_without_a_pod_have_a_process_each(engine: &str) {
    let containerd = containerd(engine);
    let start = |id| containerd.start(&bundle(&containerd, id)).unwrap();
    let (first, second) = (start("a"), start("b"));
    assert_ne!(first.address(), second.address());
    assert_eq!(containerd.snapshot().shims().len(), 2);
    second.shutdown();
    finish(&containerd, &first);
}

fn the_socket_is_for_root_only(engine: &str) {
    let containerd = containerd(engine);
    let shim = containerd.start(&bundle(&containerd, "a")).unwrap();
    let metadata = std::fs::metadata(shim.address().trim_start_matches("unix://")).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    finish(&containerd, &shim);
}

fn the_address_file_holds_the_address(engine: &str) {
    let containerd = containerd(engine);
    let bundle = bundle(&containerd, "a");
    let shim = containerd.start(&bundle).unwrap();
    let file = std::fs::read_to_string(bundle.directory().join("address")).unwrap();
    assert_eq!(file, shim.address());
    finish(&containerd, &shim);
}

fn information_needs_no_container(engine: &str) {
    let containerd = containerd(engine);
    let ran = containerd
        .run(containerd.directory(), &["-info"], &[])
        .unwrap();
    let info = RuntimeInfo::parse_from_bytes(&ran.success().unwrap()).unwrap();
    assert_eq!(info.name, crate::engine(engine).runtime);
    assert!(!info.version.version.is_empty());
    assert!(info.features.type_url.ends_with("/Features"));
    let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
    // What containerd's CRI plugin looks for before it offers recursive read-only mounts.
    let options = features["mountOptions"].as_array().unwrap();
    assert!(options.iter().any(|option| option == "rro"), "{features}");
    // And before it offers user namespaces.
    let idmap = &features["linux"]["mountExtensions"]["idmap"]["enabled"];
    assert_eq!(*idmap, serde_json::json!(true));
    assert!(containerd.snapshot().is_empty());
}

fn the_version_is_printed(engine: &str) {
    let containerd = containerd(engine);
    let text = containerd
        .run(containerd.directory(), &["-v"], &[])
        .unwrap()
        .text()
        .unwrap();
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
}
