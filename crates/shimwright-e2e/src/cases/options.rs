//! The options of `ctr run`: what each does to the container, and not only that it is accepted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use shimwright_testenv::containerd::SHORT;
use shimwright_testenv::error::{Context, Result, ensure, error};
use shimwright_testenv::process::Finished;

use super::{Case, Needs};
use crate::stage::{Container, Stage, check, check_failure};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "--null-io drops the output of a guest",
        Needs::Ours,
        |stage| {
            let container = stage.guest("hello").option(&["--null-io"]);
            check(&container.run(stage)?, 0, "")
        },
    ),
    Case::new("--memory-limit limits a guest", Needs::Ours, |stage| {
        let limit = 128_u64 << 20;
        let container = stage.guest("idle");
        let container = container.option(&["--memory-limit", &limit.to_string()]);
        with_process(&container, stage, |_, pid| {
            let files = ("memory.limit_in_bytes", "memory.max");
            check_group(pid, "memory", files, &[&limit.to_string()])
        })
    }),
    Case::new("--cpus limits a guest", Needs::Ours, |stage| {
        let container = stage.guest("idle").option(&["--cpus", "0.5"]);
        with_process(&container, stage, half_a_processor)
    }),
    Case::new(
        "--cpus limits a Linux program",
        Needs::AnyRuntime,
        |stage| {
            let container = sleeping(stage).option(&["--cpus", "0.5"]);
            with_process(&container, stage, half_a_processor)
        },
    ),
    Case::new(
        "--seccomp filters a guest's system calls",
        Needs::Ours,
        |stage| {
            let container = stage.guest("idle").option(&["--seccomp"]);
            with_process(&container, stage, |_, pid| {
                check_status(pid, "Seccomp", &["2"])
            })
        },
    ),
    Case::new("--user is a guest's user", Needs::UserOption, |stage| {
        let container = stage.guest("idle").option(&["--user", "1234:5678"]);
        with_process(&container, stage, |_, pid| {
            check_status(pid, "Uid", &["1234"; 4])?;
            check_status(pid, "Gid", &["5678"; 4])
        })
    }),
    Case::new(
        "--net-host leaves a guest in the node's network",
        Needs::Ours,
        |stage| {
            let container = stage.guest("idle").option(&["--net-host"]);
            with_process(&container, stage, |_, pid| check_network(pid, true))
        },
    ),
    Case::new(
        "without --net-host a guest has another network",
        Needs::Ours,
        |stage| {
            let container = stage.guest("idle");
            with_process(&container, stage, |_, pid| check_network(pid, false))
        },
    ),
    Case::new(
        "--log-uri of a file takes a guest's outputs",
        Needs::Ours,
        log_file,
    ),
    Case::new(
        "--log-uri of a program feeds it a guest's outputs",
        Needs::Ours,
        |stage| {
            let container = stage.guest("streams");
            log_program(stage, container)
        },
    ),
    Case::new(
        "--log-uri of a program feeds it a Linux program's outputs",
        Needs::AnyRuntime,
        |stage| {
            let script = "printf 'to standard output'; printf 'to standard error' >&2";
            let container = stage.linux(&["sh", "-c", script]);
            log_program(stage, container)
        },
    ),
    Case::new(
        "--runtime-config-path of a file limits a guest",
        Needs::Ours,
        |stage| {
            let finished = with_options(stage, "[limits]\ntime_limit = 1\n")?;
            check_failure(&finished, 124, &["the guest has reached its time limit"])
        },
    ),
    Case::new(
        "--runtime-config-path of a file with a misspelt limit is refused",
        Needs::Ours,
        |stage| {
            let finished = with_options(stage, "[limits]\ntimelimit = 1\n")?;
            check_failure(&finished, 1, &["timelimit"])
        },
    ),
    Case::new("a variable limits a guest's time", Needs::Ours, |stage| {
        let container = stage
            .guest("spin")
            .option(&["--env", "SHIMWRIGHT_TIME_LIMIT=1"]);
        check_failure(
            &container.run(stage)?,
            124,
            &["the guest has reached its time limit"],
        )
    }),
    Case::new(
        "an annotation hides the image from a guest",
        Needs::Ours,
        |stage| {
            let container = stage.guest("files");
            let annotation = ["--annotation", "dev.shimwright.rootfs=none"];
            let finished = container.option(&annotation).run(stage)?;
            ensure!(
                finished.code != 0,
                "the guest has found its files: {finished:?}"
            );
            Ok(())
        },
    ),
];

/// A Linux program that waits.
fn sleeping(stage: &mut Stage) -> Container {
    stage.linux(&["sh", "-c", "echo ready; exec /bin/busybox sleep 86400"])
}

/// Lets `look` see the first process of a running container, and ends it.
fn with_process(
    container: &Container,
    stage: &Stage,
    look: impl FnOnce(&Stage, i32) -> Result<()>,
) -> Result<()> {
    let mut ctr = container.spawn(stage)?;
    ctr.wait_for_output("ready", SHORT)?;
    let seen = look(stage, stage.running(container.id())?);
    stage.kill(container.id(), "SIGKILL")?;
    check(&ctr.finish(SHORT)?, 137, "ready\n")?;
    seen
}

fn half_a_processor(_: &Stage, pid: i32) -> Result<()> {
    let quota = ("cpu.cfs_quota_us", "cpu.max");
    check_group(pid, "cpu", quota, &["50000", "50000 100000"])
}

/// Checks a file of the container's control group, by its name on either version.
fn check_group(
    pid: i32,
    controller: &str,
    (legacy, unified): (&str, &str),
    expected: &[&str],
) -> Result<()> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let lines = groups.lines().map(|line| line.splitn(3, ':'));
    let mut lines = lines.filter_map(|mut line| {
        line.next()?;
        Some((line.next()?, line.next()?))
    });
    let found = lines.find(|(controllers, _)| controllers.split(',').any(|c| c == controller));
    let (directory, file) = match found {
        Some((controllers, path)) => (mount_point(controllers)?.join(&path[1..]), legacy),
        None => {
            let path = groups.lines().find_map(|line| line.strip_prefix("0::/"));
            let path = path.ok_or_else(|| error!("no control group in {groups}"))?;
            (Path::new("/sys/fs/cgroup").join(path), unified)
        }
    };
    let path = directory.join(file);
    let value = fs::read_to_string(&path).context(format_args!("read {}", path.display()))?;
    ensure!(
        expected.contains(&value.trim()),
        "{} is {value:?}, not {expected:?}",
        path.display()
    );
    Ok(())
}

/// Where the version 1 hierarchy of these controllers is mounted.
fn mount_point(controllers: &str) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut points = mounts.lines().filter_map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        let has = |name: &str| words[3].split(',').any(|option| option == name);
        (words[2] == "cgroup" && controllers.split(',').all(has)).then(|| words[1].into())
    });
    points
        .next()
        .ok_or_else(|| error!("no hierarchy of {controllers} is mounted"))
}

fn check_status(pid: i32, name: &str, expected: &[&str]) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let values: Vec<_> = line.unwrap_or_default().split_whitespace().collect();
    ensure!(values == expected, "{name} is {values:?}, not {expected:?}");
    Ok(())
}

fn check_network(pid: i32, is_the_nodes: bool) -> Result<()> {
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
    let (theirs, ours) = (of(&pid.to_string())?, of("self")?);
    ensure!(
        (theirs == ours) == is_the_nodes,
        "the container's network is {theirs:?}, the node's {ours:?}"
    );
    Ok(())
}

/// Runs a guest that does not end by itself, with runtime options from a file.
fn with_options(stage: &mut Stage, toml: &str) -> Result<Finished> {
    let file = stage.containerd().directory().join("options.toml");
    fs::write(&file, toml)?;
    let path = file.display().to_string();
    let container = stage
        .guest("spin")
        .option(&["--runtime-config-path", &path]);
    let finished = container.run(stage)?;
    fs::remove_file(file)?;
    Ok(finished)
}

fn log_file(stage: &mut Stage) -> Result<()> {
    let directory = stage.containerd().directory().join("logs");
    let log = directory.join("guest.log");
    let uri = format!("file://{}", log.display());
    let container = stage.guest("streams").option(&["--log-uri", &uri]);
    check(&container.run(stage)?, 0, "")?;
    let text = fs::read_to_string(&log).context("read the log")?;
    fs::remove_dir_all(directory)?;
    ensure!(
        text == "to standard outputto standard error",
        "the log is {text:?}"
    );
    Ok(())
}

/// A logger as of `ctr` and nerdctl: it is told the container and reads both outputs.
fn log_program(stage: &Stage, container: Container) -> Result<()> {
    let directory = stage.containerd().directory().join("logger");
    fs::create_dir(&directory)?;
    let program = directory.join("logger");
    let script = "#!/bin/sh\nout=$2\necho $CONTAINER_ID $CONTAINER_NAMESPACE >$out.who\n\
                  cat <&3 >$out.stdout & cat <&4 >$out.stderr & exec 3<&- 4<&-\n\
                  printf r >&5; exec 5>&-; wait\n";
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let out = directory.join("log");
    let uri = format!("binary://{}?out={}", program.display(), out.display());
    let container = container.option(&["--log-uri", &uri]);
    check(&container.run(stage)?, 0, "")?;
    let read = |name: &str| fs::read_to_string(out.with_extension(name)).context("read the log");
    let (who, stdout, stderr) = (read("who")?, read("stdout")?, read("stderr")?);
    fs::remove_dir_all(directory)?;
    ensure!(
        who.starts_with(&format!("{} ", container.id()))
            && stdout == "to standard output"
            && stderr == "to standard error",
        "the logger has read {stdout:?} and {stderr:?} of {who:?}"
    );
    Ok(())
}
