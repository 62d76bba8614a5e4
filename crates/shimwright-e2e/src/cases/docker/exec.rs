//! Further processes in a container, and terminals.

use std::process::Command;

use shimwright_testenv::containerd::{LONG, SHORT};
use shimwright_testenv::error::{Result, ensure};
use shimwright_testenv::process::Process;

use super::container::{guest, linux};
use crate::stage::{Stage, check};

pub(super) fn exec(stage: &mut Stage) -> Result<()> {
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

pub(super) fn terminal(stage: &mut Stage) -> Result<()> {
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

pub(super) fn terminal_size(stage: &mut Stage) -> Result<()> {
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
pub(super) fn quoted(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")));
    words.collect::<Vec<_>>().join(" ")
}
