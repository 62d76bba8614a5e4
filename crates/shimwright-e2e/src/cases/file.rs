//! The root file system, mounts, the working directory and the user.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use shimwright_testenv::containerd::SHORT;
use shimwright_testenv::error::{Context, Result, ensure};

use super::{Case, Needs};
use crate::stage::{GUESTS_USER, PROMPT, Stage, USER, check, check_failure};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "the root file system can be written",
        Needs::Ours,
        writable_root,
    ),
    Case::new(
        "a read-only root cannot be written",
        Needs::Ours,
        read_only_root,
    ),
    Case::new("a bind mount can be written", Needs::Ours, bind_mount),
    Case::new(
        "a read-only bind mount cannot be written",
        Needs::Ours,
        read_only_bind_mount,
    ),
    Case::new(
        "a guest starts in its working directory",
        Needs::Ours,
        working_directory,
    ),
    Case::new("a guest runs as the image's user", Needs::Ours, user),
];

fn writable_root(stage: &mut Stage) -> Result<()> {
    check(&stage.guest("files").run(stage)?, 0, "done\n")
}

fn read_only_root(stage: &mut Stage) -> Result<()> {
    check_failure(
        &stage.guest("files").option(&["--read-only"]).run(stage)?,
        1,
        &["mkdir"],
    )
}

/// A directory of the host for the guest `files`.
fn data(stage: &Stage) -> Result<PathBuf> {
    let directory = stage.containerd().directory().join("data");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir(&directory)?;
    fs::write(directory.join("in.txt"), "from the host\n")?;
    Ok(directory)
}

fn mount(directory: &Path, options: &str) -> String {
    format!(
        "type=bind,src={},dst=/data,options={options}",
        directory.display()
    )
}

fn bind_mount(stage: &mut Stage) -> Result<()> {
    let directory = data(stage)?;
    let container = stage
        .guest("files")
        .option(&["--mount", &mount(&directory, "rbind:rw")]);
    check(&container.run(stage)?, 0, "done\n")?;
    let written = fs::read_to_string(directory.join("out.txt")).context("read out.txt")?;
    ensure!(
        written == "from the host\nfrom the host\n",
        "the guest wrote {written:?}"
    );
    Ok(())
}

fn read_only_bind_mount(stage: &mut Stage) -> Result<()> {
    let directory = data(stage)?;
    let container = stage
        .guest("files")
        .option(&["--mount", &mount(&directory, "rbind:ro")]);
    check_failure(&container.run(stage)?, 1, &["mkdir"])?;
    ensure!(
        fs::read_dir(&directory)?.count() == 1,
        "the guest has written into it"
    );
    Ok(())
}

fn working_directory(stage: &mut Stage) -> Result<()> {
    // A program named without a leading slash is looked for from there.
    let container = stage
        .guest("hello")
        .program("./hello.wasm")
        .option(&["--cwd", "/nested"]);
    check(&container.run(stage)?, 0, "Hello from Wasm\n")
}

fn user(stage: &mut Stage) -> Result<()> {
    let container = stage.guest("idle").of_image(GUESTS_USER);
    let mut ctr = container.spawn(stage)?;
    ctr.wait_for_output("ready", SHORT)?;
    let pid = stage.running(container.id())?;
    let status = fs::metadata(format!("/proc/{pid}")).context("look at the guest's process")?;
    let owner = format!("{}:{}", status.uid(), status.gid());
    let ids = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let uid = ids
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .unwrap_or_default();
    let expected = USER.split(':').next().unwrap_or_default();
    ensure!(
        uid.split_whitespace().all(|id| id == expected),
        "the guest runs as {uid:?}, its /proc belongs to {owner}"
    );
    stage.kill(container.id(), "SIGKILL")?;
    check(&ctr.finish(PROMPT)?, 137, "ready\n")
}
