//! Standard streams, and a daemon that goes away and comes back.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use shimwright_guests::{CAT, HELLO, IDLE};
use shimwright_testkit::{Containerd, Shim};

use crate::{end, finish, for_each_engine, run, running, started};

for_each_engine! {
    stdin_ends_after_close_io_and_not_before
    close_io_can_be_repeated
    eight_mebibytes_arrive_intact
    an_output_that_nobody_reads_blocks_nothing
    a_guest_whose_output_is_full_can_be_killed
    a_late_client_reads_everything
    both_outputs_may_be_the_same
    events_survive_a_restart_of_containerd
    a_stopped_containerd_delays_no_call
    a_stalled_file_system_delays_no_other_call
}

fn stdin_ends_after_close_io_and_not_before(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, CAT);
    let (mut input, output) = (bundle.stdin().unwrap(), bundle.stdout().unwrap());
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    input.write(b"first\n").unwrap();
    output.wait_for("first\n").unwrap();
    // A client that goes away, such as one of `ctr attach`, is not the end of input.
    input.close();
    let path = input.path();
    let mut input = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::io::Write::write_all(&mut input, b"second\n").unwrap();
    output.wait_for("second\n").unwrap();
    drop(input);
    shim.close_stdin("a").unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 0);
    assert_eq!(output.text().unwrap(), "first\nsecond\n<end of input>\n");
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn close_io_can_be_repeated(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    shim.close_stdin("a").unwrap();
    shim.close_stdin("a").unwrap();
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn eight_mebibytes_arrive_intact(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, CAT);
    let (mut input, output) = (bundle.stdin().unwrap(), bundle.stdout().unwrap());
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    let mut sent: Vec<u8> = (0..2_u32 << 20).flat_map(u32::to_le_bytes).collect();
    assert_eq!(sent.len(), 8 << 20);
    input.write(&sent).unwrap();
    input.close();
    shim.close_stdin("a").unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 0);
    sent.extend(b"<end of input>\n");
    // Not `assert_eq`, which would print all of it.
    assert!(output.bytes().unwrap() == sent);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn an_output_that_nobody_reads_blocks_nothing(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, HELLO);
    bundle.unread_stdout().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn a_guest_whose_output_is_full_can_be_killed(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, CAT);
    let mut input = bundle.stdin().unwrap();
    bundle.unread_stdout().unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    // Each FIFO holds 64 KiB, so this can be written only once the guest has filled its output.
    input.write(&vec![b'x'; (64 + 64 + 2) << 10]).unwrap();
    assert_eq!(shim.state("a").unwrap().exit_status, 0);
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn a_late_client_reads_everything(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, HELLO);
    let path = bundle.unread_stdout().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    let mut text = String::new();
    std::fs::File::open(path)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "Hello from Wasm\n");
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn both_outputs_may_be_the_same(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, shimwright_guests::STREAMS);
    let output = bundle.stdout().unwrap();
    let mut request = bundle.request();
    request.stderr = request.stdout.clone();
    shim.create_task(&request).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    assert_eq!(
        output.text().unwrap(),
        "to standard outputto standard error"
    );
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

/// The topics of the events, each once: the shim sends one again whose answer was lost when
/// containerd ended.
fn delivered(containerd: &Containerd) -> Vec<String> {
    let mut topics = containerd.events().topics("a");
    topics.dedup();
    topics
}

fn events_survive_a_restart_of_containerd(engine: &str) {
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    containerd.events().wait_for_topic("a", "start").unwrap();
    containerd.events().stop();
    end(&shim, "a");
    assert_eq!(delivered(&containerd), ["create", "start"]);
    containerd.events().restart().unwrap();
    containerd.events().wait_for_topic("a", "delete").unwrap();
    assert_eq!(
        delivered(&containerd),
        ["create", "start", "exit", "delete"]
    );
    finish(&containerd, &shim);
}

fn a_stopped_containerd_delays_no_call(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    containerd.events().stop();
    let begin = std::time::Instant::now();
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    assert!(begin.elapsed().as_secs() < 5);
    // containerd connects again, to the address in the bundle.
    containerd.events().restart().unwrap();
    let again = Shim::connect(shim.address()).unwrap();
    assert!(again.connect_task("a").unwrap().shim_pid > 0);
    containerd.events().wait_for_topic("a", "delete").unwrap();
    finish(&containerd, &again);
}

/// A file system whose server never answers: whoever looks into it waits until it is dropped.
pub(crate) struct Stalled {
    point: PathBuf,
    server: Option<File>,
}

impl Stalled {
    pub(crate) fn mount(point: PathBuf) -> Self {
        fs::create_dir(&point).unwrap();
        let server = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            server.as_raw_fd()
        );
        let options = std::ffi::CString::new(options).unwrap();
        let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
        rustix::mount::mount("stalled", &point, "fuse", flags, &*options).unwrap();
        Self {
            point,
            server: Some(server),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        // Whoever waits gets an error.
        self.server = None;
        let detach = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(&self.point, detach).unwrap();
    }
}

/// A launcher that waits for a file system, uninterruptible as `proc_pid_stat(5)` calls it.
pub(crate) fn waiting_launcher(containerd: &Containerd) -> Option<()> {
    let waits = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains(") D ")
    };
    let shims = containerd.snapshot().shims();
    (shims.len() > 1 && shims.iter().any(waits)).then_some(())
}

fn a_stalled_file_system_delays_no_other_call(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let other = containerd.bundle("b").unwrap().guest(HELLO).unwrap();
    for (number, scheme) in ["file://", "fifo://", ""].into_iter().enumerate() {
        let stalled = Stalled::mount(containerd.directory().join(format!("stalled-{number}")));
        let file = stalled.path().join("log").display().to_string();
        let mut request = bundle.request();
        request.stdout = format!("{scheme}{file}");
        std::thread::scope(|scope| {
            let created = scope.spawn(|| shim.create_task(&request));
            let waits = shimwright_testkit::poll(|| waiting_launcher(&containerd));
            assert!(waits.is_some(), "no launcher waits for {}", request.stdout);
            shim.create(&other).unwrap();
            assert_eq!(run(&shim, "b"), 0);
            shim.delete("b").unwrap();
            drop(stalled);
            let text = created.join().unwrap().unwrap_err().to_string();
            assert!(text.contains(&file), "{text}");
        });
    }
    finish(&containerd, &shim);
}
