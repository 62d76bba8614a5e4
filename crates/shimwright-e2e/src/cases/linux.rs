//! Linux containers: the pause and the sidecars of a pod run under the same shim.

use shimwright_testenv::error::{Result, ensure};

use super::{Case, Needs};
use crate::stage::{LINUX, LINUX_ENV, Stage, check};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "a Linux program sees the environment of its spec only",
        Needs::AnyRuntime,
        env,
    ),
    Case::new(
        "the exit code of a container is a Linux program's",
        Needs::AnyRuntime,
        exit_code,
    ),
    Case::new(
        "a Linux program starts in its working directory",
        Needs::AnyRuntime,
        working_directory,
    ),
    Case::new(
        "a Linux program is found in the container's PATH",
        Needs::AnyRuntime,
        path,
    ),
];

fn env(stage: &mut Stage) -> Result<()> {
    let container = stage.image(LINUX).option(&["--env", "FROM_SPEC=too"]);
    let finished = container.run(stage)?;
    // runc and others add a HOME, which programs expect and containerd leaves to them.
    let lines = finished.stdout.lines();
    let mut seen: Vec<_> = lines.filter(|line| !line.starts_with("HOME=")).collect();
    seen.sort_unstable();
    let mut expected = [LINUX_ENV[0], LINUX_ENV[1], "FROM_SPEC=too"];
    expected.sort_unstable();
    ensure!(
        finished.code == 0 && seen == expected,
        "the program sees {finished:?}"
    );
    Ok(())
}

fn exit_code(stage: &mut Stage) -> Result<()> {
    check(
        &stage.linux(&["sh", "-c", "echo out; exit 7"]).run(stage)?,
        7,
        "out\n",
    )
}

fn working_directory(stage: &mut Stage) -> Result<()> {
    check(
        &stage
            .linux(&["pwd"])
            .option(&["--cwd", "/tmp"])
            .run(stage)?,
        0,
        "/tmp\n",
    )
}

fn path(stage: &mut Stage) -> Result<()> {
    check(
        &stage
            .image(LINUX)
            .args(&["busybox", "echo", "found"])
            .run(stage)?,
        0,
        "found\n",
    )
}
