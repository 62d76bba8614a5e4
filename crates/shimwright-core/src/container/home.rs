//! The variable `HOME` of a process without one.
//!
//! It is read here, outside the container, as text. The C library would read it inside the
//! container, and load the image's name service modules for that.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use oci_spec::runtime::{Mount, Process};

use super::entrypoint;
use crate::error::{Context, Error};

const PASSWD: &str = "/etc/passwd";

/// How much of the file is read, in bytes.
const MOST: u64 = 1 << 20;

/// The home of a user that the file does not list, as runc has it.
const UNKNOWN: &str = "/";

/// Leaves one variable of each name, and sets `HOME` unless the process has one that is not empty: to what the first line of the container's
/// `/etc/passwd` for its user says, else to `/`. Launcher process.
///
/// # Errors
///
/// The file is there and cannot be read.
pub(crate) fn set(process: &mut Process, root: &Path, mounts: &[Mount]) -> Result<(), Error> {
    // runc adds nothing to none at all.
    let Some(mut env) = process.env().clone() else {
        return Ok(());
    };
    without_repetitions(&mut env);
    process.set_env(Some(env.clone()));
    let is_home = |variable: &String| variable.starts_with("HOME=");
    if env
        .iter()
        .any(|variable| is_home(variable) && variable != "HOME=")
    {
        return Ok(());
    }
    env.retain(|variable| !is_home(variable));
    let home = match entrypoint::open(root, mounts, Path::new(PASSWD))? {
        Some(file) => find(file, process.user().uid()).context("read the image's /etc/passwd")?,
        None => None,
    };
    let home = home.unwrap_or_else(|| UNKNOWN.to_owned());
    env.push(format!("HOME={home}"));
    process.set_env(Some(env));
    Ok(())
}

/// Leaves the last of the variables of each name: which of two a program would see depends on its C
/// library.
fn without_repetitions(env: &mut Vec<String>) {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut seen = HashSet::new();
    env.reverse();
    env.retain(|variable| seen.insert(name(variable)));
    env.reverse();
}

/// The sixth field of the first line whose third is `user` (`passwd(5)`), if it is a path. Lines that
/// are not such are passed over.
fn find(file: impl Read, user: u32) -> std::io::Result<Option<String>> {
    for line in BufReader::new(file.take(MOST)).split(b'\n') {
        if let Some(home) = home(&line?, user) {
            // No variable holds a NUL, and a line break in one would be a surprise.
            let is_path = home.starts_with('/') && !home.contains(char::is_control);
            return Ok(is_path.then_some(home));
        }
    }
    Ok(None)
}

fn home(line: &[u8], user: u32) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.trim_end_matches('\r').split(':');
    let id: u32 = fields.nth(2)?.parse().ok()?;
    (id == user).then(|| fields.nth(2).unwrap_or_default().to_owned())
}

/// Looks a user up in such a file, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(passwd: &[u8], user: u32) {
    if let Ok(Some(home)) = find(passwd, user) {
        assert!(home.starts_with('/') && !home.contains('\0') && !home.contains('\n'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_user_has_its_home() {
        let passwd = "broken\nx:x:-1\nroot:x:0:0:root:/root:/bin/sh\na:x:7:7::/home/a\n\
                      b:x:7:7::/home/b:/bin/sh\nc:x:8:8:::\nd:x:9:9::relative:/bin/sh\n";
        let find = |user| find(passwd.as_bytes(), user).unwrap();
        assert_eq!(find(0).as_deref(), Some("/root"));
        assert_eq!(find(7).as_deref(), Some("/home/a"));
        for user in [1, 8, 9, u32::MAX] {
            assert_eq!(find(user), None, "{user}");
        }
    }

    #[test]
    fn a_home_that_is_set_stays_and_an_empty_one_does_not() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "r:x:0:0::/root:/bin/sh\n").unwrap();
        let check = |env: &[&str], expected: &[&str]| {
            let mut process = Process::default();
            process.set_env(Some(env.iter().map(|&text| text.to_owned()).collect()));
            set(&mut process, root.path(), &[]).unwrap();
            assert_eq!(process.env().as_deref().unwrap(), expected);
        };
        check(&["HOME=/x", "A=b"], &["HOME=/x", "A=b"]);
        check(&["HOME=", "A=b"], &["A=b", "HOME=/root"]);
        check(&["HOMER=x"], &["HOMER=x", "HOME=/root"]);
        check(
            &["A=1", "B=2", "A=3", "HOME=/x"],
            &["B=2", "A=3", "HOME=/x"],
        );
        let mut none = Process::default();
        none.set_env(None);
        set(&mut none, root.path(), &[]).unwrap();
        assert!(none.env().is_none());
        std::fs::remove_file(root.path().join("etc/passwd")).unwrap();
        check(&[], &["HOME=/"]);
    }

    #[test]
    fn a_file_without_an_end_is_read_to_its_bound() {
        assert_eq!(find(std::io::repeat(b'a'), 0).unwrap(), None);
    }
}
