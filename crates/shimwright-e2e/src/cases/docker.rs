//! Docker on the containerd image store. What it asks of a shim is in `docs/operations.md`.

mod container;
mod exec;
mod resources;

use std::fs;
use std::path::PathBuf;

use shimwright_testenv::containerd::SHORT;
use shimwright_testenv::error::{Context, Result, ensure, error};
use shimwright_testenv::process;

use super::{Case, Needs};
use crate::dockerd::{CONFIGURED_RUNTIME, RUNTIME_WITH_OPTIONS, UNKNOWN_OPTION};
use crate::stage::{GUESTS_WASI, LAYER_MODULE, LINUX, PROMPT, Stage, check, check_failure};
use container::{Container, exits_with, guest, idle, image, linux};
use exec::{exec, terminal, terminal_size};
use resources::{limits, out_of_memory, update};

pub(crate) const CASES: &[Case] = &[
    Case::docker(
        "docker runs an image of platform wasi/wasm",
        Needs::Ours,
        |stage| check(&guest(stage, "hello").run(stage)?, 0, HELLO),
    ),
    Case::docker("docker runs a Wasm layer", Needs::Ours, wasm_layer),
    Case::docker("docker runs a Linux image", Needs::AnyRuntime, linux_image),
    Case::docker(
        "docker knows the shim by a name of its configuration",
        Needs::Ours,
        configured,
    ),
    Case::docker(
        "docker hands its configuration's options to the shim",
        Needs::Ours,
        options,
    ),
    Case::docker(
        "docker load brings back what docker save has written",
        Needs::Ours,
        load,
    ),
    Case::docker(
        "docker run ends as the program does",
        Needs::AnyRuntime,
        exit_code,
    ),
    Case::docker("docker shows why a guest trapped", Needs::Ours, trap),
    Case::docker(
        "docker is told that there is no such program",
        Needs::AnyRuntime,
        missing,
    ),
    Case::docker(
        "docker run -e, -w and -u reach a guest",
        Needs::Ours,
        process_options,
    ),
    Case::docker("docker run -v mounts a directory", Needs::Ours, volume),
    Case::docker(
        "docker run --read-only protects the root",
        Needs::Ours,
        read_only,
    ),
    Case::docker(
        "docker run -i passes on standard input",
        Needs::AnyRuntime,
        stdin,
    ),
    Case::docker(
        "docker logs and docker wait tell of an end",
        Needs::AnyRuntime,
        logs,
    ),
    Case::docker("docker stop ends a guest at once", Needs::Ours, stop),
    Case::docker("docker kill sends a signal", Needs::AnyRuntime, kill),
    Case::docker(
        "docker rm -f removes what runs",
        Needs::AnyRuntime,
        remove_running,
    ),
    Case::docker(
        "docker restarts what has failed",
        Needs::AnyRuntime,
        restart_policy,
    ),
    Case::docker("docker run -p publishes a port", Needs::AnyRuntime, publish),
    Case::docker(
        "docker run -p publishes a guest that handles HTTP",
        Needs::Ours,
        publish_guest,
    ),
    Case::docker(
        "docker run --network none, host and bridge differ",
        Needs::AnyRuntime,
        networks,
    ),
    Case::docker(
        "docker run --memory and --cpus limit, docker stats tells",
        Needs::AnyRuntime,
        limits,
    ),
    Case::docker("docker top lists processes", Needs::AnyRuntime, top),
    Case::docker(
        "a container survives a restart of dockerd",
        Needs::AnyRuntime,
        survives,
    ),
    Case::docker("docker exec runs a program", Needs::AnyRuntime, exec),
    Case::docker(
        "docker run -t and docker exec -t have a terminal",
        Needs::AnyRuntime,
        terminal,
    ),
    Case::docker(
        "docker run -it follows the size of the terminal",
        Needs::AnyRuntime,
        terminal_size,
    ),
    Case::docker(
        "docker pause and unpause stop and go on",
        Needs::AnyRuntime,
        pause,
    ),
    Case::docker("docker update changes a limit", Needs::AnyRuntime, update),
    Case::docker(
        "docker tells that memory ran out",
        Needs::AnyRuntime,
        out_of_memory,
    ),
];

const HELLO: &str = "Hello from Wasm\n";

fn wasm_layer(stage: &mut Stage) -> Result<()> {
    let container = image(stage, LAYER_MODULE).option(&["--platform=wasi/wasm"]);
    check(&container.run(stage)?, 0, HELLO)
}

fn linux_image(stage: &mut Stage) -> Result<()> {
    let finished = image(stage, LINUX).run(stage)?;
    ensure!(
        finished.code == 0 && finished.stdout.lines().any(|line| line == "FROM_IMAGE=yes"),
        "the image's program has not shown its environment: {finished:?}"
    );
    Ok(())
}

fn configured(stage: &mut Stage) -> Result<()> {
    let container = guest(stage, "hello").option(&[&format!("--runtime={CONFIGURED_RUNTIME}")]);
    check(&container.run(stage)?, 0, HELLO)
}

fn options(stage: &mut Stage) -> Result<()> {
    let container = guest(stage, "hello").option(&[&format!("--runtime={RUNTIME_WITH_OPTIONS}")]);
    check_failure(&container.run(stage)?, 125, &[UNKNOWN_OPTION])
}

fn load(stage: &mut Stage) -> Result<()> {
    const LOADED: &str = "e2e.invalid/loaded:1";
    let archive = stage.containerd().directory().join("docker-image.tar");
    let archive = archive.display().to_string();
    let docker = stage.docker()?;
    docker.ask(&["tag", GUESTS_WASI, LOADED])?.success()?;
    docker
        .ask(&["save", "--output", &archive, LOADED])?
        .success()?;
    docker.ask(&["rmi", LOADED])?.success()?;
    docker.ask(&["load", "--input", &archive])?.success()?;
    let container = image(stage, LOADED).option(&["--platform=wasi/wasm"]);
    check(&container.run(stage)?, 0, HELLO)?;
    stage.docker()?.ask(&["rmi", LOADED])?.success()?;
    Ok(fs::remove_file(archive)?)
}

fn exit_code(stage: &mut Stage) -> Result<()> {
    check(&exits_with(stage, "3").run(stage)?, 3, "")
}

fn trap(stage: &mut Stage) -> Result<()> {
    check_failure(&guest(stage, "trap").run(stage)?, 134, &["unreachable"])
}

fn missing(stage: &mut Stage) -> Result<()> {
    // 127 is what Docker makes of the words `no such file or directory`.
    let container = exits_with(stage, "0").option(&["--entrypoint", "/missing.wasm"]);
    check_failure(&container.run(stage)?, 127, &["/missing.wasm"])
}

fn process_options(stage: &mut Stage) -> Result<()> {
    let finished = guest(stage, "env").option(&["-e", "FIRST=1"]).run(stage)?;
    ensure!(
        finished.code == 0 && finished.stdout.lines().any(|line| line == "FIRST=1"),
        "the guest has {finished:?}"
    );
    // A program named without a leading slash is looked for from there.
    let nested = guest(stage, "hello").option(&["-w", "/nested", "--entrypoint", "./hello.wasm"]);
    check(&nested.run(stage)?, 0, HELLO)?;
    let container = guest(stage, "idle").option(&["-u", "65533:65532"]);
    container.detach_ready(stage)?;
    let pid = container.pid(stage)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for (name, id) in [("Uid:", "65533"), ("Gid:", "65532")] {
        let ids = status.lines().find_map(|line| line.strip_prefix(name));
        ensure!(
            ids.is_some_and(|ids| ids.split_whitespace().all(|found| found == id)),
            "the guest runs with {name} {ids:?} instead of {id}"
        );
    }
    container.ask(stage, &["rm", "-f"]).map(drop)
}

/// A directory of the host for the guest `files`.
fn data(stage: &Stage) -> Result<PathBuf> {
    let directory = stage.containerd().directory().join("docker-volume");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir(&directory)?;
    fs::write(directory.join("in.txt"), "from the host\n")?;
    Ok(directory)
}

fn volume(stage: &mut Stage) -> Result<()> {
    let directory = data(stage)?;
    let volume = format!("{}:/data", directory.display());
    let container = guest(stage, "files").option(&["-v", &volume]);
    check(&container.run(stage)?, 0, "done\n")?;
    let written = fs::read_to_string(directory.join("out.txt")).context("read out.txt")?;
    ensure!(
        written == "from the host\nfrom the host\n",
        "the guest wrote {written:?}"
    );
    let directory = data(stage)?;
    let container = guest(stage, "files").option(&["-v", &format!("{volume}:ro")]);
    check_failure(&container.run(stage)?, 1, &["mkdir"])?;
    ensure!(
        fs::read_dir(&directory)?.count() == 1,
        "the guest has written into it"
    );
    Ok(())
}

fn read_only(stage: &mut Stage) -> Result<()> {
    check(&guest(stage, "files").run(stage)?, 0, "done\n")?;
    let container = guest(stage, "files").option(&["--read-only"]);
    check_failure(&container.run(stage)?, 1, &["mkdir"])
}

fn stdin(stage: &mut Stage) -> Result<()> {
    let (container, end) = if stage.runs_wasm() {
        (guest(stage, "cat"), "<end of input>\n")
    } else {
        (linux(stage, &["cat"]), "")
    };
    let finished = container.run_with_input(stage, "typed\n")?;
    check(&finished, 0, &format!("typed\n{end}"))
}

fn logs(stage: &mut Stage) -> Result<()> {
    let container = if stage.runs_wasm() {
        guest(stage, "streams")
    } else {
        let script = "printf 'to standard output'; printf 'to standard error' >&2";
        linux(stage, &["sh", "-c", script])
    };
    container.detach(stage)?;
    let waited = container.ask(stage, &["wait"])?;
    ensure!(waited == "0\n", "the exit code is {waited:?}");
    let logs = stage.docker()?.ask(&["logs", &container.name])?;
    check(&logs, 0, "to standard output")?;
    check_failure(&logs, 0, &["to standard error"])?;
    container.ask(stage, &["rm"]).map(drop)
}

fn stop(stage: &mut Stage) -> Result<()> {
    for name in ["idle", "spin"] {
        let container = guest(stage, name);
        container.detach(stage)?;
        // Docker would send SIGKILL after this time, and the exit code would be another.
        let mut stop = stage.docker()?.docker();
        stop.args(["stop", "--timeout", "30", &container.name]);
        process::run(stop, PROMPT)?.success()?;
        let state = container.inspect(stage, "{{.State.Status}} {{.State.ExitCode}}")?;
        ensure!(state == "exited 143", "the guest {name} is {state}");
        container.ask(stage, &["rm"])?;
    }
    Ok(())
}

fn kill(stage: &mut Stage) -> Result<()> {
    let container = idle(stage);
    container.detach_ready(stage)?;
    container.ask(stage, &["kill"])?;
    container.ends_with(stage, 137)?;
    // The kernel keeps from the first process of a pid namespace what it has no handler for.
    let container = if stage.runs_wasm() {
        idle(stage)
    } else {
        let script = "trap 'exit 143' TERM; echo ready; while :; do /bin/busybox sleep 0.1; done";
        linux(stage, &["sh", "-c", script])
    };
    container.detach_ready(stage)?;
    container.ask(stage, &["kill", "--signal", "TERM"])?;
    container.ends_with(stage, 143)
}

fn remove_running(stage: &mut Stage) -> Result<()> {
    let container = idle(stage);
    container.detach_ready(stage)?;
    let pid = container.pid(stage)?;
    container.ask(stage, &["rm", "-f"])?;
    process::wait_for_end_of(pid, PROMPT)
}

fn restart_policy(stage: &mut Stage) -> Result<()> {
    let container = exits_with(stage, "3").option(&["--restart", "on-failure:2"]);
    container.detach(stage)?;
    // `docker wait` ends with the first attempt.
    let mut last = String::new();
    let ended = process::poll_until("the last attempt", SHORT, || {
        last = container.inspect(
            stage,
            "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}",
        )?;
        Ok(last == "exited 3 2")
    });
    ended.map_err(|err| error!("{err}; at last it was {last}"))?;
    container.ask(stage, &["rm"]).map(drop)
}

fn publish(stage: &mut Stage) -> Result<()> {
    let script = "echo a page >/tmp/index.html; exec /bin/busybox httpd -f -p 80 -h /tmp";
    let container = linux(stage, &["sh", "-c", script]).option(&["-p", "127.0.0.1:8080:80"]);
    check_published(stage, &container, "a page\n")
}

fn publish_guest(stage: &mut Stage) -> Result<()> {
    let container = guest(stage, "http.component").option(&["-p", "127.0.0.1:8080:8080"]);
    check_published(stage, &container, HELLO)
}

/// Runs a server, gets a page from port 8080 of the daemon, and ends it.
fn check_published(stage: &mut Stage, container: &Container, page: &str) -> Result<()> {
    container.detach(stage)?;
    // The server does not tell when it listens.
    let mut last = None;
    let answered = process::poll_until("an answer", SHORT, || {
        let finished = stage.docker()?.fetch("http://127.0.0.1:8080/")?;
        let done = finished.code == 0 && finished.stdout == page;
        last = Some(finished);
        Ok(done)
    });
    answered.map_err(|err| error!("{err}; at last it was {last:?}"))?;
    container.ask(stage, &["rm", "-f"])?;
    let closed = stage.docker()?.fetch("http://127.0.0.1:8080/")?;
    ensure!(closed.code != 0, "the port is still open");
    Ok(())
}

fn networks(stage: &mut Stage) -> Result<()> {
    let own = fs::read_link("/proc/self/ns/net")?;
    for (network, is_host, has_link) in [
        ("none", false, false),
        ("host", true, false),
        ("bridge", false, true),
    ] {
        let container = idle(stage).option(&["--network", network]);
        container.detach_ready(stage)?;
        let pid = container.pid(stage)?;
        let namespace = fs::read_link(format!("/proc/{pid}/ns/net"))?;
        // The shim's network is ours, as it is the machine's in earnest.
        ensure!(
            (namespace == own) == is_host,
            "with --network {network} the container is in {}",
            namespace.display()
        );
        if !is_host {
            let links = fs::read_to_string(format!("/proc/{pid}/net/dev"))?;
            ensure!(
                links.contains("eth0:") == has_link,
                "with --network {network} the container has {links}"
            );
        }
        container.ask(stage, &["rm", "-f"])?;
    }
    Ok(())
}

fn top(stage: &mut Stage) -> Result<()> {
    let container = idle(stage);
    container.detach_ready(stage)?;
    let pid = container.pid(stage)?;
    let processes = stage.docker()?.ask(&["top", &container.name, "-o", "pid"]);
    let processes = processes?.success()?;
    let processes: Vec<_> = processes.split_whitespace().collect();
    ensure!(
        processes == ["PID", &pid.to_string()],
        "the processes are {processes:?} instead of {pid}"
    );
    container.ask(stage, &["rm", "-f"]).map(drop)
}

fn survives(stage: &mut Stage) -> Result<()> {
    let container = idle(stage);
    container.detach_ready(stage)?;
    let ends_meanwhile = idle(stage);
    ends_meanwhile.detach_ready(stage)?;
    let (pid, ending) = (container.pid(stage)?, ends_meanwhile.pid(stage)?);
    stage.docker()?.kill()?;
    super::daemon::kill(ending)?;
    process::wait_for_end_of(ending, SHORT)?;
    stage.docker()?.relaunch()?;
    let after = container.inspect(stage, "{{.State.Status}} {{.State.Pid}}")?;
    ensure!(
        after == format!("running {pid}"),
        "the process {pid} has become {after}"
    );
    ends_meanwhile.ends_with(stage, 137)?;
    container.ask(stage, &["kill"])?;
    container.ends_with(stage, 137)
}

fn pause(stage: &mut Stage) -> Result<()> {
    let container = idle(stage);
    container.detach_ready(stage)?;
    for (command, state) in [("pause", "paused"), ("unpause", "running")] {
        container.ask(stage, &[command])?;
        let status = container.inspect(stage, "{{.State.Status}}")?;
        ensure!(status == state, "after docker {command} it is {status}");
    }
    // What is paused can be ended.
    container.ask(stage, &["pause"])?;
    container.ask(stage, &["rm", "-f"]).map(drop)
}
