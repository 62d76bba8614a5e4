//! What a guest may see and use.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use shimwright_core::BoxError;
use shimwright_guests as guest;

use super::run;
use crate::case::{Case, Directory, Run};

pub(super) const CASES: &[Case] = &[
    run(
        "stdout_stderr",
        "Output is passed on as it is, each stream to its own",
        Run::guest(guest::STREAMS)
            .stdout("to standard output")
            .stderr("to standard error"),
    ),
    run(
        "stdin_eof",
        "Input is passed on as it is, and its end is seen",
        Run::guest(guest::CAT)
            .stdin("one\ntwo")
            .stdout("one\ntwo<end of input>\n"),
    ),
    run(
        "args",
        "Arguments are passed on in order, the program's name, empty and non-ASCII ones included",
        Run::guest(guest::ARGS)
            .args(&["name", "", "two words", "ü"])
            .stdout("name\n\ntwo words\nü\n"),
    ),
    run(
        "env",
        "The guest sees the workload's environment in order, and nothing of the host's",
        Run::guest(guest::ENV)
            .env(&[("B", "2"), ("A", "1=one"), ("EMPTY", "")])
            .stdout("B=2\nA=1=one\nEMPTY=\n"),
    ),
    run(
        "long_strings",
        "An argument and a variable may be longer than the 128 KiB that `execve` takes",
        Run::guest(guest::LENGTHS)
            .args(&["guest", LONG])
            .env(&[("LONG", LONG)])
            .stdout("5\n200000\n200005\n"),
    ),
    run(
        "preopen_read_write",
        "Files in a preopen can be created, read, written, listed, renamed and removed",
        Run::guest(guest::FILES).directory(FILES).stdout("done\n"),
    ),
    run(
        "preopen_escape_denied",
        "Neither `..` nor an absolute path nor a symbolic link leads out of a preopen",
        Run::guest(guest::ESCAPE)
            .directory(ESCAPE)
            .stdout("denied\n"),
    ),
    run(
        "memory_grows",
        "A guest's memory grows, here by 64 MiB",
        Run::guest(guest::MEMORY)
            .args(&["guest", "64"])
            .stdout("touched\n"),
    ),
    run(
        "clocks_random",
        "Clocks run, sleeping takes time, and random bytes differ",
        Run::guest(guest::CLOCKS_RANDOM).stdout("fine\n"),
    ),
];

const LONG: &str = match std::str::from_utf8(&[b'x'; 200_000]) {
    Ok(text) => text,
    Err(_) => panic!("it is ASCII"),
};

pub(super) const FILES: Directory = Directory {
    set_up: |beside| fs::write(beside.join("data/in.txt"), "twice\n"),
    check: |beside| {
        let found = fs::read_to_string(beside.join("data/out.txt"))?;
        if found != "twice\ntwice\n" {
            return Err(format!("out.txt holds {found:?}").into());
        }
        if beside.join("data/in.txt").exists() {
            return Err("in.txt was not removed".into());
        }
        Ok(())
    },
};

const ESCAPE: Directory = Directory {
    set_up: lay_traps,
    check: check_secret,
};

fn lay_traps(beside: &Path) -> io::Result<()> {
    fs::write(beside.join("secret"), "secret")?;
    symlink("../secret", beside.join("data/link"))?;
    symlink("..", beside.join("data/linkdir"))
}

fn check_secret(beside: &Path) -> Result<(), BoxError> {
    match fs::read_to_string(beside.join("secret")) {
        Ok(text) if text == "secret" => Ok(()),
        Ok(text) => Err(format!("secret holds {text:?}").into()),
        Err(error) => Err(format!("cannot read secret any more: {error}").into()),
    }
}
