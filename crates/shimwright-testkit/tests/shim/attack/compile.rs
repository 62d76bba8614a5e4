//! Compilers and fetchers: what they may use, and for how long.

mod artifact;

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use shimwright_testkit::bundle::GUEST;
use shimwright_testkit::protos::api::CreateTaskRequest;
use shimwright_testkit::protos::protobuf::Message;
use shimwright_testkit::protos::ttrpc::{Code, Request};
use shimwright_testkit::{Bundle, Containerd, Shim, poll, poll_for};

use crate::crash::{compiler, slow_to_compile};
use crate::{containerd, finish, for_each_compiler, lives};

for_each_compiler! {
    a_compiler_has_nothing_and_is_held_to_little
    a_compile_ends_with_its_client
    a_create_that_is_given_up_leaves_neither_a_task_nor_the_shim
    a_compiler_ends_with_its_launcher
    no_more_compile_at_once_than_configured
    what_a_killed_launcher_leaves_is_removed_although_another_has_its_turn
    a_compile_that_needs_too_much_memory_says_so
}

/// A bundle with a module that takes a compiler long, no two of them the same, in a small container.
fn slow(containerd: &Containerd, id: &str) -> Bundle {
    let mut module = slow_to_compile();
    // A section that says nothing, so that no other test has compiled it.
    let name = format!("{}-{id}", containerd.namespace());
    let content = [&[u8::try_from(name.len()).unwrap()][..], name.as_bytes()].concat();
    module.extend(crate::binary::section(0, &content));
    let bundle = containerd.bundle(id).unwrap().pod("p").unwrap();
    let bundle = bundle.file(GUEST, &module, 0o755).unwrap();
    bundle.args(&[GUEST]).unwrap().overlay().unwrap()
}

/// Sets `[compile]` with a cgroup of this test alone.
fn configure(containerd: &Containerd, more: &str) {
    let group = format!("/{}-compile", containerd.namespace());
    let text = format!("[compile]\ncgroup = \"{group}\"\n{more}\n");
    containerd.configure(&text).unwrap();
}

/// The directories of the cgroup of this test's compiles.
fn groups(containerd: &Containerd) -> Vec<std::path::PathBuf> {
    let name = format!("{}-compile", containerd.namespace());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut found: Vec<_> = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| Some(Path::new(line.split(' ').nth(4)?).join(&name)))
        .filter(|path| path.is_dir())
        .collect();
    found.dedup();
    found
}

#[track_caller]
fn nothing_is_left(containerd: &Containerd) {
    let gone = poll(|| groups(containerd).is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", groups(containerd));
}

fn shim_pid(shim: &Shim) -> u32 {
    shim.connect_task("none").unwrap().shim_pid
}

fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

/// A call of `Create` as it goes over the connection (ttrpc's `PROTOCOL.md`).
fn frame(request: &CreateTaskRequest) -> Vec<u8> {
    let request = Request {
        service: "containerd.task.v3.Task".to_owned(),
        method: "Create".to_owned(),
        payload: request.write_to_bytes().unwrap(),
        ..Default::default()
    };
    let payload = request.write_to_bytes().unwrap();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    // Stream 1, a request, no flags.
    [&length[..], &1_u32.to_be_bytes(), &[1, 0], &payload].concat()
}

/// Creates a container on another connection, which the caller cuts by a deadline or an end.
fn creating<'s>(
    scope: &'s std::thread::Scope<'s, '_>,
    shim: &Shim,
    bundle: &Bundle,
) -> std::thread::ScopedJoinHandle<'s, String> {
    let (address, request) = (shim.address().to_owned(), bundle.request());
    scope.spawn(move || {
        let shim = Shim::connect(&address).unwrap();
        let created = shim
            .deadline(Duration::from_secs(300))
            .create_task(&request);
        created.map_or_else(|error| error.to_string(), |_| "created".to_owned())
    })
}

fn a_compiler_has_nothing_and_is_held_to_little(engine: &str) {
    let containerd = containerd(engine);
    configure(&containerd, "memory = 1073741824\ncpu = 0.5");
    let bundle = slow(&containerd, "a");
    let shim = containerd.start(&bundle).unwrap();
    let pid = shim_pid(&shim);
    std::thread::scope(|scope| {
        let created = creating(scope, &shim, &bundle);
        let compiler = poll(|| compiler(pid)).expect("the module is compiled");
        // It enters its jail after it has been executed.
        poll(|| (status(compiler, "Seccomp") == "2").then_some(())).expect("a filter");
        let uid: u32 = status(compiler, "Uid")
            .split('\t')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(uid >= 2_100_000_000, "{uid}");
        assert_eq!(status(compiler, "NoNewPrivs"), "1");
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(status(compiler, set), "0000000000000000", "{set}");
        }
        // The second pid is that of its own namespace.
        assert_eq!(status(compiler, "NSpid"), format!("{compiler}\t1"));
        let score = fs::read_to_string(format!("/proc/{compiler}/oom_score_adj")).unwrap();
        assert_eq!(score.trim(), "1000");
        for (namespace, differs) in [("pid", true), ("net", true), ("ipc", true), ("user", false)] {
            let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
            assert_eq!(
                of(&compiler.to_string()) != of("self"),
                differs,
                "{namespace}"
            );
        }
        let cgroups = fs::read_to_string(format!("/proc/{compiler}/cgroup")).unwrap();
        let name = format!("/{}-compile/", containerd.namespace());
        for line in cgroups.lines() {
            let limited = ["memory", "cpu", "pids"].contains(&line.split(':').nth(1).unwrap());
            assert!(!limited || line.contains(&name), "{cgroups}");
        }
        assert!(cgroups.contains(&name), "{cgroups}");
        for directory in groups(&containerd) {
            for group in fs::read_dir(&directory).unwrap().flatten() {
                let read = |file: &str| fs::read_to_string(group.path().join(file)).ok();
                if let Some(limit) = read("memory.limit_in_bytes").or(read("memory.max")) {
                    assert_eq!(limit.trim(), "1073741824");
                }
                if let Some(quota) = read("cpu.cfs_quota_us") {
                    assert_eq!(quota.trim(), "50000");
                }
            }
        }
        let launcher = crate::crash::parent(compiler).unwrap();
        crate::signal(launcher, Signal::KILL);
        created.join().unwrap();
    });
    nothing_is_left(&containerd);
    finish(&containerd, &shim);
}

fn a_compile_ends_with_its_client(engine: &str) {
    let containerd = containerd(engine);
    // So slow that it is not done before the longest of the times below.
    configure(&containerd, "cpu = 0.1");
    let bundle = slow(&containerd, "a");
    let shim = containerd.start(&bundle).unwrap();
    let pid = shim_pid(&shim);
    let client = Shim::connect(shim.address()).unwrap();
    let request = bundle.request();
    // The call ends with its time, and with it what it asked for.
    let times_out = |seconds| {
        std::thread::scope(|scope| {
            let client = client.clone().deadline(Duration::from_secs(seconds));
            let created = scope.spawn({
                let request = &request;
                move || client.create_task(request).unwrap_err()
            });
            let compiler = poll_for(Duration::from_secs(seconds), || compiler(pid));
            created.join().unwrap();
            compiler
        })
    };
    // A slow machine may not get as far in the first of these times.
    let compiler = [3, 12, 48].into_iter().find_map(times_out);
    let compiler = compiler.expect("the module is compiled");
    let launcher_ended = poll_for(Duration::from_secs(5), || (!lives(compiler)).then_some(()));
    assert!(launcher_ended.is_some(), "the compiler goes on");
    nothing_is_left(&containerd);
    // The launcher undoes what it made.
    poll(|| crate::crash::children(pid).is_empty().then_some(())).expect("no launcher");
    // Its id is free again, and a client that hangs up has the same effect.
    let request = bundle.request();
    let (compiler, _cut) = std::thread::scope(|scope| {
        let stream = std::os::unix::net::UnixStream::connect(
            shim.address()
                .strip_prefix("unix://")
                .unwrap_or(shim.address()),
        )
        .unwrap();
        std::io::Write::write_all(&mut &stream, &frame(&request)).unwrap();
        let found = scope.spawn(move || poll(|| crate::crash::compiler(pid)));
        let compiler = found.join().unwrap().expect("the module is compiled");
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        (compiler, stream)
    });
    let ended = poll_for(Duration::from_secs(5), || (!lives(compiler)).then_some(()));
    assert!(ended.is_some(), "the compiler goes on");
    nothing_is_left(&containerd);
    finish(&containerd, &shim);
}

/// The client of a create may go without a word: ttrpc has none for that. What containerd says next
/// tells, which is `Delete` for a container of a pod, and `Shutdown` for others.
fn a_create_that_is_given_up_leaves_neither_a_task_nor_the_shim(engine: &str) {
    let containerd = containerd(engine);
    configure(&containerd, "");
    let bundle = slow(&containerd, "a");
    let shim = containerd.start(&bundle).unwrap();
    let pid = shim_pid(&shim);
    std::thread::scope(|scope| {
        let created = creating(scope, &shim, &bundle);
        poll(|| compiler(pid)).expect("the module is compiled");
        crate::refused(shim.delete("a"), Code::NOT_FOUND);
        // It has been undone when the answer is there.
        assert!(crate::crash::children(pid).is_empty());
        assert!(created.join().unwrap().contains("nobody waits"));
        nothing_is_left(&containerd);

        let created = creating(scope, &shim, &bundle);
        poll(|| compiler(pid)).expect("the module is compiled");
        shim.shutdown_after("a");
        created.join().unwrap();
    });
    containerd.wait_until_clean().unwrap();
    nothing_is_left(&containerd);
}

fn a_compiler_ends_with_its_launcher(engine: &str) {
    let containerd = containerd(engine);
    configure(&containerd, "");
    let bundle = slow(&containerd, "a");
    let shim = containerd.start(&bundle).unwrap();
    let pid = shim_pid(&shim);
    std::thread::scope(|scope| {
        let created = creating(scope, &shim, &bundle);
        let compiler = poll(|| compiler(pid)).expect("the module is compiled");
        // The change of user would have cleared the signal of its parent's death.
        poll(|| (status(compiler, "Seccomp") == "2").then_some(())).expect("a filter");
        crate::signal(crate::crash::parent(compiler).unwrap(), Signal::KILL);
        let ended = poll_for(Duration::from_secs(5), || (!lives(compiler)).then_some(()));
        assert!(ended.is_some(), "the compiler goes on");
        created.join().unwrap();
    });
    nothing_is_left(&containerd);
    finish(&containerd, &shim);
}

fn no_more_compile_at_once_than_configured(engine: &str) {
    let containerd = containerd(engine);
    let cache = containerd.directory().join("cache");
    let containerd = containerd.with_cache(&cache).unwrap();
    configure(&containerd, "at_once = 1");
    let [a, b] = ["a", "b"].map(|id| slow(&containerd, id));
    let shim = containerd.start(&a).unwrap();
    let pid = shim_pid(&shim);
    std::thread::scope(|scope| {
        let created = [creating(scope, &shim, &a), creating(scope, &shim, &b)];
        let first = poll(|| compiler(pid)).expect("a module is compiled");
        // Both launchers are there, and only one has a compiler.
        let launchers = || crate::crash::children(pid).len() == 2;
        poll(|| launchers().then_some(())).expect("two launchers");
        assert_eq!(crate::crash::compilers(pid), [first]);
        crate::signal(crate::crash::parent(first).unwrap(), Signal::KILL);
        let second = poll(|| compiler(pid).filter(|pid| *pid != first)).expect("the other one");
        crate::signal(crate::crash::parent(second).unwrap(), Signal::KILL);
        for created in created {
            assert!(created.join().unwrap().contains("without an answer"));
        }
    });
    nothing_is_left(&containerd);
    finish(&containerd, &shim);
}

fn what_a_killed_launcher_leaves_is_removed_although_another_has_its_turn(engine: &str) {
    let (killed, other) = (containerd(engine), containerd(engine));
    let cache = killed.directory().join("cache");
    let killed = killed.with_cache(&cache).unwrap();
    let other = other.with_cache(&cache).unwrap();
    let containerds = [&killed, &other];
    // Each has its own cgroup for compiles, as after a change of the configuration.
    for containerd in containerds {
        configure(containerd, "at_once = 1");
    }
    let bundles = containerds.map(|containerd| slow(containerd, "a"));
    let shims = [0, 1].map(|at| containerds[at].start(&bundles[at]).unwrap());
    let pids = [0, 1].map(|at| shim_pid(&shims[at]));
    std::thread::scope(|scope| {
        let first = creating(scope, &shims[0], &bundles[0]);
        let compiler_of_first = poll(|| compiler(pids[0])).expect("a module is compiled");
        let second = creating(scope, &shims[1], &bundles[1]);
        poll(|| (crate::crash::children(pids[1]).len() == 1).then_some(())).expect("it waits");
        crate::signal(
            crate::crash::parent(compiler_of_first).unwrap(),
            Signal::KILL,
        );
        first.join().unwrap();
        let compiler = poll(|| compiler(pids[1])).expect("the other one");
        nothing_is_left(&killed);
        assert!(lives(compiler) && !groups(&other).is_empty());
        crate::signal(crate::crash::parent(compiler).unwrap(), Signal::KILL);
        second.join().unwrap();
    });
    nothing_is_left(&other);
    finish(&killed, &shims[0]);
    finish(&other, &shims[1]);
}

/// A module with one function of more than two million instructions, which a compiler has in its memory
/// at once.
fn large() -> Vec<u8> {
    let body = [
        &[0, 0x41, 0][..],
        &[0x41, 1, 0x6a].repeat(1_200_000),
        &[0x1a, 0x0b],
    ]
    .concat();
    let code = [&crate::binary::leb128(body.len())[..], &body].concat();
    [
        &b"\0asm\x01\0\0\0"[..],
        &crate::binary::section(1, &[1, 0x60, 0, 0]),
        &crate::binary::section(3, &[1, 0]),
        &crate::binary::section(7, &[&[1, 6][..], b"_start", &[0, 0]].concat()),
        &crate::binary::section(10, &[&[1][..], &code].concat()),
    ]
    .concat()
}

fn a_compile_that_needs_too_much_memory_says_so(engine: &str) {
    let containerd = containerd(engine);
    configure(&containerd, "memory = 67108864");
    let bundle = containerd
        .bundle("a")
        .unwrap()
        .file(GUEST, &large(), 0o755)
        .unwrap();
    let bundle = bundle.args(&[GUEST]).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let created = std::thread::scope(|scope| creating(scope, &shim, &bundle).join().unwrap());
    assert!(
        created.contains("more than compile.memory = 67108864"),
        "{created}"
    );
    nothing_is_left(&containerd);
    finish(&containerd, &shim);
}
