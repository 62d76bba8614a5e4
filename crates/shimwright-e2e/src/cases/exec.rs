//! Further processes in running containers, and terminals.

use std::process::Command;

use shimwright_testenv::containerd::{LONG, SHORT};
use shimwright_testenv::error::{Result, ensure};
use shimwright_testenv::process;

use super::{Case, Needs};
use crate::stage::{Container, Stage, check};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "a Linux program is executed in a running container",
        Needs::AnyRuntime,
        program,
    ),
    Case::new(
        "a guest is executed beside a running guest",
        Needs::Ours,
        guest,
    ),
    Case::new(
        "what cannot be executed is an error with the reason",
        Needs::Ours,
        missing,
    ),
    Case::new("a guest has a terminal", Needs::Ours, guest_terminal),
    Case::new(
        "a Linux program has a terminal",
        Needs::AnyRuntime,
        program_terminal,
    ),
    Case::new(
        "a program that is executed has a terminal",
        Needs::AnyRuntime,
        exec_terminal,
    ),
    Case::new(
        "a guest is executed after a restart of containerd",
        Needs::Ours,
        after_restart,
    ),
];

/// `ctr task exec` in a container.
fn exec(container: &Container, options: &[&str], command: &[&str], stage: &Stage) -> Command {
    let mut ctr = stage.containerd().ctr();
    ctr.args(["task", "exec", "--exec-id", "e"]).args(options);
    ctr.arg("--fifo-dir")
        .arg(stage.containerd().directory().join("fifo"));
    ctr.arg(container.id()).args(command);
    ctr
}

/// Runs a command with a terminal, which `ctr` demands, and checks its code and what is shown.
/// `script` shows more than that: the end of its own input, for instance.
fn check_in_terminal(command: &Command, code: i32, shown: &str) -> Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")))
        .collect();
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &words.join(" ")])
        .arg("/dev/null");
    for (name, value) in command.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    let finished = process::run(script, LONG)?;
    ensure!(
        finished.code == code && finished.stdout.contains(shown),
        "expected exit code {code} and {shown:?} on the terminal, but got {finished:?}"
    );
    Ok(())
}

/// Runs `body` beside a container, then ends that.
fn beside(
    container: &Container,
    stage: &mut Stage,
    body: impl FnOnce(&mut Stage) -> Result<()>,
) -> Result<()> {
    container.detach(stage)?;
    body(stage)?;
    stage.end(container.id())
}

fn program(stage: &mut Stage) -> Result<()> {
    let container = stage.linux(&["sleep", "86400"]);
    beside(&container, stage, |stage| {
        let script = "echo in $(/bin/busybox cat /proc/1/comm); exit 9";
        let command = ["/bin/busybox", "sh", "-c", script];
        let ctr = exec(&container, &[], &command, stage);
        check(&process::run(ctr, SHORT)?, 9, "in busybox\n")
    })
}

fn guest(stage: &mut Stage) -> Result<()> {
    let container = stage.guest("idle");
    beside(&container, stage, |stage| {
        let args = exec(&container, &[], &["/args.wasm", "one"], stage);
        check(&process::run(args, SHORT)?, 0, "/args.wasm\none\n")?;
        let function = exec(&container, &[], &["/reactor.wasm#greet"], stage);
        check(&process::run(function, SHORT)?, 0, "greetings\n")?;
        let code = exec(&container, &[], &["/exit-code.wasm", "9"], stage);
        check(&process::run(code, SHORT)?, 9, "")?;
        stage.running(container.id()).map(drop)
    })
}

fn missing(stage: &mut Stage) -> Result<()> {
    let container = stage.guest("idle");
    beside(&container, stage, |stage| {
        let ctr = exec(&container, &[], &["/nothing.wasm"], stage);
        let finished = process::run(ctr, SHORT)?;
        ensure!(
            finished.code == 1 && finished.stderr.contains("no such file or directory"),
            "ctr ended with {finished:?}"
        );
        stage.running(container.id()).map(drop)
    })
}

fn guest_terminal(stage: &mut Stage) -> Result<()> {
    let container = stage.guest("hello").option(&["--tty"]);
    let ctr = container.attached(stage);
    check_in_terminal(&ctr, 0, "Hello from Wasm\r")
}

/// Prints the name of its terminal, and has a code of its own.
const SHOW_TERMINAL: [&str; 4] = ["/bin/busybox", "sh", "-c", "/bin/busybox tty; exit 4"];

fn program_terminal(stage: &mut Stage) -> Result<()> {
    let container = stage.linux(&SHOW_TERMINAL[1..]).option(&["--tty"]);
    let ctr = container.attached(stage);
    check_in_terminal(&ctr, 4, "/dev/pts/0\r")
}

fn exec_terminal(stage: &mut Stage) -> Result<()> {
    let container = stage.linux(&["sleep", "86400"]);
    beside(&container, stage, |stage| {
        let ctr = exec(&container, &["--tty"], &SHOW_TERMINAL, stage);
        check_in_terminal(&ctr, 4, "/dev/pts/0\r")
    })
}

fn after_restart(stage: &mut Stage) -> Result<()> {
    let container = stage.guest("idle");
    beside(&container, stage, |stage| {
        stage.containerd_mut().kill()?;
        stage.containerd_mut().relaunch()?;
        let ctr = exec(&container, &[], &["/hello.wasm"], stage);
        check(&process::run(ctr, SHORT)?, 0, "Hello from Wasm\n")
    })
}
