//! Docker on the containerd image store. What it asks of a shim is in `docs/operations.md`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use shimwright_testenv::containerd::{LONG, SHORT};
use shimwright_testenv::error::{Context, Result, ensure, error};
use shimwright_testenv::process::{self, Finished, Process};

use super::{Case, Needs};
use crate::dockerd::{CONFIGURED_RUNTIME, RUNTIME_WITH_OPTIONS, UNKNOWN_OPTION};
use crate::stage::{GUESTS_WASI, LAYER_MODULE, LINUX, PROMPT, Stage, check, check_failure};

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
    Case::docker("docker save and docker load", Needs::Ours, load),
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
    Case::docker("docker run -e, -w and -u", Needs::Ours, process_options),
    Case::docker("docker run -v", Needs::Ours, volume),
    Case::docker("docker run --read-only", Needs::Ours, read_only),
    Case::docker("docker run -i", Needs::AnyRuntime, stdin),
    Case::docker("docker logs and docker wait", Needs::AnyRuntime, logs),
    Case::docker("docker stop ends a guest at once", Needs::Ours, stop),
    Case::docker("docker kill", Needs::AnyRuntime, kill),
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
        "docker run --network none, host and bridge",
        Needs::AnyRuntime,
        networks,
    ),
    Case::docker(
        "docker run --memory and --cpus, docker stats",
        Needs::AnyRuntime,
        limits,
    ),
    Case::docker("docker top", Needs::AnyRuntime, top),
    Case::docker(
        "a container survives a restart of dockerd",
        Needs::AnyRuntime,
        survives,
    ),
    Case::docker("docker exec", Needs::AnyRuntime, exec),
    Case::docker(
        "docker run -t and docker exec -t",
        Needs::AnyRuntime,
        terminal,
    ),
    Case::docker(
        "docker run -it follows the size of the terminal",
        Needs::AnyRuntime,
        terminal_size,
    ),
    Case::docker("docker pause and unpause", Needs::AnyRuntime, pause),
    Case::docker("docker update", Needs::AnyRuntime, update),
    Case::docker(
        "docker tells that memory ran out",
        Needs::AnyRuntime,
        out_of_memory,
    ),
];

const HELLO: &str = "Hello from Wasm\n";

/// How many bytes a MiB has.
const MIB: u64 = 1 << 20;

/// A container to be run by Docker.
#[derive(Clone)]
struct Container {
    name: String,
    options: Vec<String>,
    image: &'static str,
    args: Vec<String>,
}

/// A container that runs a guest of the image [`GUESTS_WASI`].
fn guest(stage: &mut Stage, name: &str) -> Container {
    let program = format!("/{name}.wasm");
    image(stage, GUESTS_WASI).option(&["--platform=wasi/wasm", "--entrypoint", &program])
}

/// A container that runs a command of busybox.
fn linux(stage: &mut Stage, command: &[&str]) -> Container {
    image(stage, LINUX)
        .option(&["--entrypoint", "/bin/busybox"])
        .args(command)
}

/// A container that says `ready` and waits: of WebAssembly if the runtime can run it.
fn idle(stage: &mut Stage) -> Container {
    if stage.runs_wasm() {
        guest(stage, "idle")
    } else {
        linux(
            stage,
            &["sh", "-c", "echo ready; exec /bin/busybox sleep 86400"],
        )
    }
}

/// A container that ends at once with this exit code.
fn exits_with(stage: &mut Stage, code: &str) -> Container {
    if stage.runs_wasm() {
        guest(stage, "exit-code").args(&[code])
    } else {
        linux(stage, &["sh", "-c", &format!("exit {code}")])
    }
}

/// A container that runs what the image says.
fn image(stage: &mut Stage, image: &'static str) -> Container {
    Container {
        name: stage.new_id(),
        options: vec![format!("--runtime={}", stage.runtime())],
        image,
        args: Vec::new(),
    }
}

impl Container {
    /// Arguments after the program.
    fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// An option of `docker run`; a later one replaces an earlier one of the same name.
    fn option(mut self, words: &[&str]) -> Self {
        self.options
            .extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Runs it to its end and removes it.
    fn run(&self, stage: &mut Stage) -> Result<Finished> {
        process::run(self.command(stage, &["--rm"])?, LONG)
    }

    /// The same with something on its standard input.
    fn run_with_input(&self, stage: &mut Stage, input: &str) -> Result<Finished> {
        let command = self.command(stage, &["--rm", "--interactive"])?;
        Process::spawn_with_input(command, input)?.finish(LONG)
    }

    /// Starts it and leaves it alone.
    fn detach(&self, stage: &mut Stage) -> Result<()> {
        process::run(self.command(stage, &["--detach"])?, LONG)?.success()?;
        Ok(())
    }

    /// Starts it and returns once it has written `ready`.
    fn detach_ready(&self, stage: &mut Stage) -> Result<()> {
        self.detach(stage)?;
        let mut logs = stage.docker()?.docker();
        logs.args(["logs", "--follow", &self.name]);
        Process::spawn(logs)?.wait_for_output("ready", SHORT)
    }

    fn command(&self, stage: &mut Stage, options: &[&str]) -> Result<Command> {
        let mut docker = stage.docker()?.docker();
        docker.args(["run", "--name", &self.name]).args(options);
        docker.args(&self.options).arg(self.image).args(&self.args);
        Ok(docker)
    }

    /// Runs `docker` with its name as the last argument.
    fn ask(&self, stage: &mut Stage, args: &[&str]) -> Result<String> {
        let mut args = args.to_vec();
        args.push(&self.name);
        stage.docker()?.ask(&args)?.success()
    }

    /// What `docker inspect` says.
    fn inspect(&self, stage: &mut Stage, format: &str) -> Result<String> {
        let found = self.ask(stage, &["inspect", "--format", format])?;
        Ok(found.trim().to_owned())
    }

    /// The process id of its first process.
    fn pid(&self, stage: &mut Stage) -> Result<i32> {
        let pid = self.inspect(stage, "{{.State.Pid}}")?;
        pid.parse().context("read a process id")
    }

    /// Waits for its end, checks its exit code, and removes it.
    fn ends_with(&self, stage: &mut Stage, code: i32) -> Result<()> {
        let mut wait = stage.docker()?.docker();
        wait.args(["wait", &self.name]);
        let waited = process::run(wait, PROMPT)?.success()?;
        ensure!(
            waited.trim() == code.to_string(),
            "the exit code is {} instead of {code}",
            waited.trim()
        );
        self.ask(stage, &["rm"]).map(drop)
    }
}

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

/// Reads a setting of the control group a process is in, by its file in version 1 or 2.
fn cgroup_setting(pid: i32, controller: &str, v1: &str, v2: &str) -> Result<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let group_of = |wanted: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            wanted(controllers).then(|| fields.next().unwrap_or_default().trim_start_matches('/'))
        })
    };
    let root = PathBuf::from("/sys/fs/cgroup");
    let version_1 = group_of(&|names| names.split(',').any(|name| name == controller));
    let path = match version_1 {
        Some(group) => root.join(controller).join(group).join(v1),
        None => {
            let group = group_of(&str::is_empty)
                .ok_or_else(|| error!("process {pid} is in no control group"))?;
            root.join(group).join(v2)
        }
    };
    let setting = fs::read_to_string(&path).context(format_args!("read {}", path.display()))?;
    Ok(setting.trim().to_owned())
}

fn memory_limit(pid: i32) -> Result<String> {
    cgroup_setting(pid, "memory", "memory.limit_in_bytes", "memory.max")
}

fn limits(stage: &mut Stage) -> Result<()> {
    let container = idle(stage).option(&["--memory", "64m", "--cpus", "0.5"]);
    container.detach_ready(stage)?;
    let pid = container.pid(stage)?;
    let memory = memory_limit(pid)?;
    ensure!(
        memory == (64 * MIB).to_string(),
        "the memory limit is {memory}"
    );
    let cpu = cgroup_setting(pid, "cpu", "cpu.cfs_quota_us", "cpu.max")?;
    ensure!(
        cpu.split(' ').next() == Some("50000"),
        "the processor quota is {cpu}"
    );
    let format = "{{.MemUsage}}, {{.PIDs}}";
    let stats = container.ask(stage, &["stats", "--no-stream", "--format", format])?;
    let stats = stats.trim();
    ensure!(
        stats.ends_with(" / 64MiB, 1") && !stats.starts_with("0B"),
        "the figures are {stats}"
    );
    container.ask(stage, &["rm", "-f"]).map(drop)
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

fn exec(stage: &mut Stage) -> Result<()> {
    let container = linux(
        stage,
        &["sh", "-c", "echo ready; exec /bin/busybox sleep 86400"],
    );
    container.detach_ready(stage)?;
    let script = "read line; echo $line in $(/bin/busybox cat /proc/1/comm); exit 9";
    let mut exec = stage.docker()?.docker();
    exec.args(["exec", "-i", "-e", "A=1", &container.name]);
    exec.args(["/bin/busybox", "sh", "-c", script]);
    let finished = Process::spawn_with_input(exec, "typed\n")?.finish(SHORT)?;
    check(&finished, 9, "typed in busybox\n")?;
    container.ask(stage, &["rm", "-f"])?;
    if stage.runs_wasm() {
        let container = guest(stage, "idle");
        container.detach_ready(stage)?;
        let exec = ["exec", &container.name, "/exit-code.wasm", "7"];
        check(&stage.docker()?.ask(&exec)?, 7, "")?;
        container.ask(stage, &["rm", "-f"])?;
    }
    Ok(())
}

fn terminal(stage: &mut Stage) -> Result<()> {
    // A terminal ends a line with both characters.
    let container = linux(stage, &["tty"]).option(&["--tty"]);
    check(&container.run(stage)?, 0, "/dev/pts/0\r\n")?;
    if stage.runs_wasm() {
        let container = guest(stage, "hello").option(&["--tty"]);
        check(&container.run(stage)?, 0, "Hello from Wasm\r\n")?;
    }
    let container = linux(
        stage,
        &["sh", "-c", "echo ready; exec /bin/busybox sleep 86400"],
    );
    container.detach_ready(stage)?;
    let exec = ["exec", "--tty", &container.name, "/bin/busybox", "tty"];
    check(&stage.docker()?.ask(&exec)?, 0, "/dev/pts/0\r\n")?;
    container.ask(stage, &["rm", "-f"]).map(drop)
}

fn terminal_size(stage: &mut Stage) -> Result<()> {
    // Docker tells the size only after the start.
    let script = "until [ \"$(/bin/busybox stty size)\" = '33 77' ]; do /bin/busybox sleep 0.1; done; \
                  read line; echo \"got $line\"; exit 5";
    let container = linux(stage, &["sh", "-c", script]);
    let docker = container.command(stage, &["--rm", "--interactive", "--tty"])?;
    // `docker` wants a terminal of its own, which `script` makes.
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command"]);
    let own = "stty rows 33 cols 77; eval exec \"$DOCKER_COMMAND\"";
    command.args([own, "/dev/null"]);
    command.env("DOCKER_COMMAND", quoted(&docker));
    command.envs(
        docker
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let finished = Process::spawn_with_input(command, "typed\n")?.finish(LONG)?;
    ensure!(
        finished.code == 5 && finished.stdout.contains("got typed\r\n"),
        "the terminal shows {finished:?}"
    );
    Ok(())
}

/// A command line for a shell.
fn quoted(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")));
    words.collect::<Vec<_>>().join(" ")
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

fn update(stage: &mut Stage) -> Result<()> {
    let container = idle(stage).option(&["--memory", "64m"]);
    container.detach_ready(stage)?;
    container.ask(
        stage,
        &["update", "--memory", "96m", "--memory-swap", "96m"],
    )?;
    let memory = memory_limit(container.pid(stage)?)?;
    ensure!(
        memory == (96 * MIB).to_string(),
        "the memory limit is {memory}"
    );
    container.ask(stage, &["rm", "-f"]).map(drop)
}

fn out_of_memory(stage: &mut Stage) -> Result<()> {
    let container = if stage.runs_wasm() {
        guest(stage, "memory").args(&["256"])
    } else {
        // What is written to a tmpfs is charged to whoever wrote it.
        let script = "exec /bin/busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=60";
        linux(stage, &["sh", "-c", script])
    };
    let container = container.option(&["--memory", "32m", "--memory-swap", "32m"]);
    container.detach(stage)?;
    let mut wait = stage.docker()?.docker();
    wait.args(["wait", &container.name]);
    process::run(wait, SHORT)?.success()?;
    let state = container.inspect(stage, "{{.State.ExitCode}} {{.State.OOMKilled}}")?;
    ensure!(state == "137 true", "exit code and OOMKilled are {state}");
    container.ask(stage, &["rm"]).map(drop)
}
