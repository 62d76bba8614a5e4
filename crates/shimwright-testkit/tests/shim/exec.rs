//! Further processes in a container.

mod output;
mod state;

use std::fs;

use serde_json::{Value, json};
use shimwright_guests::{ARGS, CAT, EXIT_CODE, HELLO, IDLE, TRAP};
use shimwright_testkit::events::Content;
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::shim::Exec;
use shimwright_testkit::{Bundle, Containerd, Input, Output, Shim, poll};

use crate::{end, finish, for_each_engine, linux, lives, refused, signal};

for_each_engine! {
    a_guest_joins_the_container_of_another
    a_linux_program_joins_the_container_of_a_guest
    a_guest_joins_the_container_of_a_linux_program
    a_linux_program_joins_another
    an_exec_has_the_user_of_its_own_spec_and_the_walls_of_the_container
    an_exec_reads_its_input_to_the_end
    the_trap_of_an_exec_is_its_own
    an_exec_is_signalled_alone
    a_created_container_can_be_joined
    execs_start_at_the_same_time
    a_killed_shim_takes_its_execs_along
}

/// A container with several programs, of which one waits.
pub(crate) struct Container {
    pub(crate) containerd: Containerd,
    bundle: Bundle,
    pub(crate) shim: Shim,
    pub(crate) pid: u32,
    output: Output,
}

/// A guest that waits.
pub(crate) fn guest(engine: &str) -> Container {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    running(containerd, bundle)
}

/// A Linux program that waits.
pub(crate) fn program(engine: &str) -> Container {
    let containerd = crate::containerd(engine);
    let bundle = linux::bundle(&containerd, "a", "wait");
    running(containerd, bundle)
}

/// A container of this bundle, which waits once it has written `ready`.
pub(crate) fn running(containerd: Containerd, bundle: Bundle) -> Container {
    let mut bundle = bundle
        .file("/program", &linux::program(&containerd), 0o755)
        .unwrap();
    for guest in [ARGS, CAT, EXIT_CODE, HELLO, IDLE, TRAP] {
        let path = format!("/{}.wasm", guest.name());
        bundle = bundle.file(&path, guest.wasm(), 0o755).unwrap();
    }
    bundle = bundle.file("/text", b"no program", 0o755).unwrap();
    // Its beginning is a program's, so only executing it shows that it is none.
    bundle = bundle.file("/broken", b"\x7fELF, almost", 0o755).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let output = bundle.stdout().unwrap();
    let pid = shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for("ready").unwrap();
    Container {
        containerd,
        bundle,
        shim,
        pid,
        output,
    }
}

/// A process with these arguments.
pub(crate) fn process(args: &[&str]) -> Value {
    json!({
        "args": args, "cwd": "/", "env": ["ONLY=this"], "user": { "uid": 0, "gid": 0 },
        "capabilities": {}, "noNewPrivileges": true,
    })
}

impl Container {
    /// The files of its image.
    pub(crate) fn image(&self) -> &std::path::Path {
        self.bundle.image()
    }

    /// What its first process has written so far.
    pub(crate) fn written(&self) -> String {
        let found = self
            .output
            .find(|bytes, _| Some(String::from_utf8_lossy(bytes).into_owned()));
        found.unwrap()
    }

    /// A FIFO of the client.
    pub(crate) fn output(&self, name: &str) -> Output {
        Output::new(&self.containerd.directory().join(name)).unwrap()
    }

    /// Adds an exec whose output nobody wants.
    pub(crate) fn add(&self, exec: &str, args: &[&str]) -> Exec {
        let none = Default::default();
        self.shim.add_exec("a", exec, &process(args), none).unwrap()
    }

    /// Has the guest that waits join the container, and returns its pid once it does.
    pub(crate) fn join_idle(&self) -> u32 {
        let output = self.output("idle.out");
        let streams = [String::new(), output.path(), String::new()];
        let spec = process(&["/idle.wasm"]);
        let idle = self.shim.add_exec("a", "idle", &spec, streams).unwrap();
        let pid = idle.start().unwrap();
        output.wait_for("ready").unwrap();
        pid
    }

    /// Runs an exec to its end: its exit status and what it wrote.
    pub(crate) fn run(&self, exec: &str, args: &[&str]) -> (u32, String, String) {
        let (stdout, stderr) = (
            self.output(&format!("{exec}.out")),
            self.output(&format!("{exec}.err")),
        );
        let streams = [String::new(), stdout.path(), stderr.path()];
        let exec = self
            .shim
            .add_exec("a", exec, &process(args), streams)
            .unwrap();
        exec.start().unwrap();
        let status = exec.wait().unwrap().exit_status;
        assert_eq!(exec.delete().unwrap().exit_status, status);
        (status, stdout.text().unwrap(), stderr.text().unwrap())
    }

    /// Ends it, and checks that nothing is left.
    pub(crate) fn end(&self) {
        end(&self.shim, "a");
        finish(&self.containerd, &self.shim);
    }

    fn exits(&self) -> Vec<String> {
        let events = self.containerd.events().of("a").into_iter();
        let exit = |content| match content {
            Content::Exit(exit) => Some(exit.id),
            _ => None,
        };
        events.filter_map(|event| exit(event.content)).collect()
    }
}

fn namespace(pid: u32, name: &str) -> std::path::PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap()
}

/// Checks that a process is where the first one of its container is.
fn check_walls(container: &Container, pid: u32) {
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        assert_eq!(
            namespace(pid, name),
            namespace(container.pid, name),
            "{name}"
        );
    }
    let groups = |pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(groups(pid), groups(container.pid));
    // It closes those of its start by itself, and has as many as the first one then.
    let descriptors = |pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let same = poll(|| (descriptors(pid) == descriptors(container.pid)).then_some(()));
    assert!(same.is_some(), "{} descriptors", descriptors(pid));
}

fn a_guest_joins_the_container_of_another(engine: &str) {
    let container = guest(engine);
    let (status, stdout, _) = container.run("args", &["/args.wasm", "one", "two"]);
    assert_eq!((status, stdout.as_str()), (0, "/args.wasm\none\ntwo\n"));
    assert_eq!(container.run("code", &["/exit-code.wasm", "9"]).0, 9);
    let idle = container.add("idle", &["/idle.wasm"]);
    check_walls(&container, idle.start().unwrap());
    idle.kill(libc::SIGTERM).unwrap();
    assert_eq!(idle.wait().unwrap().exit_status, 143);
    idle.delete().unwrap();
    container.end();
}

fn a_linux_program_joins_the_container_of_a_guest(engine: &str) {
    let container = guest(engine);
    let (status, stdout, _) = container.run("env", &["/program", "env"]);
    assert_eq!((status, stdout.as_str()), (7, "ONLY=this\nHOME=/\n"));
    container.end();
}

fn a_guest_joins_the_container_of_a_linux_program(engine: &str) {
    let container = program(engine);
    let (status, stdout, _) = container.run("hello", &["/hello.wasm"]);
    assert_eq!((status, stdout.as_str()), (0, "Hello from Wasm\n"));
    container.end();
}

fn a_linux_program_joins_another(engine: &str) {
    let container = program(engine);
    let (status, stdout, _) = container.run("env", &["/program", "env"]);
    assert_eq!((status, stdout.as_str()), (7, "ONLY=this\nHOME=/\n"));
    assert_eq!(
        container.run("files", &["/program", "files"]).1,
        "0\n1\n2\n"
    );
    let waiting = container.add("wait", &["/program", "wait"]);
    check_walls(&container, waiting.start().unwrap());
    waiting.kill(libc::SIGKILL).unwrap();
    assert_eq!(waiting.wait().unwrap().exit_status, 137);
    container.end();
}

fn an_exec_has_the_user_of_its_own_spec_and_the_walls_of_the_container(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let bundle = bundle.spec(|spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "names": ["bpf"], "action": "SCMP_ACT_ERRNO" }],
        });
    });
    let container = running(containerd, bundle.unwrap());
    let mut process = process(&["/idle.wasm"]);
    process["user"] = json!({ "uid": 1234, "gid": 5678, "additionalGids": [9] });
    process["noNewPrivileges"] = json!(false);
    process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 77 }]);
    let output = container.output("out");
    let streams = [String::new(), output.path(), String::new()];
    let exec = container
        .shim
        .add_exec("a", "e", &process, streams)
        .unwrap();
    let pid = exec.start().unwrap();
    output.wait_for("ready").unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in [
        "Uid:\t1234\t1234\t1234\t1234",
        "Gid:\t5678\t5678\t5678\t5678",
        "Groups:\t9 ",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        // The container's, the runner's own, and the one for when the guest's code is loaded.
        "Seccomp_filters:\t3",
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
    ] {
        assert!(status.contains(&format!("\n{line}\n")), "{line}: {status}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    assert!(files.unwrap().contains(" 77 "), "{limits}");
    check_walls(&container, pid);
    container.end();
}

fn an_exec_reads_its_input_to_the_end(engine: &str) {
    let container = guest(engine);
    let mut input = Input::new(&container.containerd.directory().join("in")).unwrap();
    let output = container.output("out");
    let streams = [input.path(), output.path(), String::new()];
    let spec = process(&["/cat.wasm"]);
    let exec = container.shim.add_exec("a", "e", &spec, streams).unwrap();
    exec.start().unwrap();
    input.write(b"typed\n").unwrap();
    output.wait_for("typed").unwrap();
    input.close();
    exec.close_stdin().unwrap();
    assert_eq!(exec.wait().unwrap().exit_status, 0);
    exec.delete().unwrap();
    assert_eq!(output.text().unwrap(), "typed\n<end of input>\n");
    container.end();
}

fn the_trap_of_an_exec_is_its_own(engine: &str) {
    let container = guest(engine);
    let (status, _, stderr) = container.run("trap", &["/trap.wasm"]);
    assert_eq!(status, 134);
    assert!(stderr.contains("unreachable"), "{stderr}");
    assert!(lives(container.pid));
    container.end();
}

fn an_exec_is_signalled_alone(engine: &str) {
    let container = guest(engine);
    let [one, two] = ["one", "two"].map(|id| container.add(id, &["/idle.wasm"]));
    let pids = [&one, &two].map(|exec| exec.start().unwrap());
    one.kill(libc::SIGKILL).unwrap();
    assert_eq!(one.wait().unwrap().exit_status, 137);
    refused(one.kill(libc::SIGKILL), Code::NOT_FOUND);
    assert!(!lives(pids[0]) && lives(pids[1]) && lives(container.pid));
    two.kill(0).unwrap();
    container.end();
}

fn a_created_container_can_be_joined(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let bundle = bundle.file("/code.wasm", EXIT_CODE.wasm(), 0o755).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    shim.create(&bundle).unwrap();
    let spec = process(&["/code.wasm", "4"]);
    let exec = shim.add_exec("a", "e", &spec, Default::default()).unwrap();
    exec.start().unwrap();
    assert_eq!(exec.wait().unwrap().exit_status, 4);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn execs_start_at_the_same_time(engine: &str) {
    let container = guest(engine);
    std::thread::scope(|scope| {
        for number in 0..12 {
            let container = &container;
            scope.spawn(move || {
                let code = number.to_string();
                let id = format!("e{number}");
                assert_eq!(container.run(&id, &["/exit-code.wasm", &code]).0, number);
            });
        }
    });
    container.end();
}

fn a_killed_shim_takes_its_execs_along(engine: &str) {
    let container = guest(engine);
    let pid = container.add("e", &["/idle.wasm"]).start().unwrap();
    let shim = container.shim.connect_task("a").unwrap().shim_pid;
    signal(shim, rustix::process::Signal::KILL);
    let bundle = container.bundle.directory();
    let deleted = container.containerd.delete(bundle, "a").unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (container.pid, 137));
    assert!(!lives(pid) && !lives(container.pid));
    container.containerd.wait_until_clean().unwrap();
}
