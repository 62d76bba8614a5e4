//! Attacks by way of streams, names, messages and the log of a shim.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shimwright_guests::{CAT, IDLE, STREAMS};
use shimwright_testkit::protos::api::{CreateTaskRequest, WaitRequest};
use shimwright_testkit::protos::protobuf::Message;
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::protos::ttrpc::proto::{Request, Response};
use shimwright_testkit::{Bundle, Containerd, Shim, poll};

use super::program;
use crate::{end, finish, for_each_engine, lives, refused, run, running, signal, started};

for_each_engine! {
    a_log_file_is_not_the_containers
    a_plain_file_is_not_the_containers
    a_guest_holds_a_pipe_to_its_log_file
    a_terminal_writes_to_a_log_file
    a_copier_ends_with_its_shim
    an_exec_has_no_null_device_of_the_node
    names_cannot_forge_lines_or_steer_a_terminal
    the_state_in_the_log_has_no_secrets
    a_message_that_claims_four_gigabytes_is_answered
    one_call_too_many_is_refused_and_the_others_wait
}

/// Tries what the holder of a node's file could do to it, then prints what its streams are.
const VANDAL: &str = r##"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "wait")) { write(1, "ready\n", 6); for (;;) pause(); }
  char path[32];
  for (int fd = 0; fd < 3; fd++) {
    ftruncate(fd, 0);
    if (argc > 1 && !strcmp(argv[1], "null")) {
      struct stat is;
      fstat(fd, &is);
      int kept = fchmod(fd, 0666) && errno == EROFS;
      dprintf(1, "%llu %llu %d\n", (unsigned long long)is.st_dev,
              (unsigned long long)is.st_ino, kept);
      continue;
    }
    fchmod(fd, 04755);
    pwrite(fd, "#!/forged", 9, 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR | O_TRUNC | O_NONBLOCK);
    if (again >= 0) fchmod(again, 04755);
  }
  write(1, "out", 3);
  write(2, "err", 3);
  return 0;
}
"##;

fn process(args: &[&str]) -> Value {
    json!({
        "args": args, "cwd": "/", "env": ["TOKEN=s3cret-variable"],
        "user": { "uid": 0, "gid": 0 }, "capabilities": {}, "noNewPrivileges": true,
    })
}

/// A shim with a Linux program that attacks its streams.
fn vandal(engine: &str, args: &[&str]) -> (Containerd, Bundle, Shim) {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap();
    let bundle = bundle
        .file("/vandal", &program(&containerd, VANDAL), 0o755)
        .unwrap()
        .args(&[&["/vandal"], args].concat())
        .unwrap();
    let shim = containerd.start(&bundle).unwrap();
    (containerd, bundle, shim)
}

/// Checks that a file of the node was only ever appended to.
#[track_caller]
fn check(file: &Path, content: &str) {
    assert_eq!(fs::read_to_string(file).unwrap(), content);
    assert_eq!(
        fs::metadata(file).unwrap().permissions().mode() & 0o7777,
        0o644
    );
}

/// Attacks with the first process and with an exec; `name` says how a file is named.
fn attack_file(engine: &str, name: fn(&Path) -> String) {
    let (containerd, bundle, shim) = vandal(engine, &[]);
    let file = containerd.directory().join("log");
    fs::write(&file, "kept ").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let request = |args: &[&str]| {
        let mut request = bundle.request();
        request.stdout = name(&file);
        request.stderr = name(&file);
        if name(&file).starts_with('/') {
            request.stdin = name(&file);
        }
        assert!(args.is_empty());
        request
    };
    shim.create_task(&request(&[])).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    check(&file, "kept outerr");
    // The same by an exec, in a container that waits.
    let bundle = bundle.args(&["/vandal", "wait"]).unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    let streams = [String::new(), name(&file), name(&file)];
    let exec = shim
        .add_exec("a", "b", &process(&["/vandal"]), streams)
        .unwrap();
    exec.start().unwrap();
    assert_eq!(exec.wait().unwrap().exit_status, 0);
    exec.delete().unwrap();
    check(&file, "kept outerrouterr");
    end(&shim, "a");
    finish(&containerd, &shim);
}

fn a_log_file_is_not_the_containers(engine: &str) {
    attack_file(engine, |file| format!("file://{}", file.display()));
}

fn a_plain_file_is_not_the_containers(engine: &str) {
    attack_file(engine, |file| file.display().to_string());
}

fn a_guest_holds_a_pipe_to_its_log_file(engine: &str) {
    let (containerd, bundle, shim) = started(engine, STREAMS);
    let (file, typed) = (
        containerd.directory().join("log"),
        containerd.directory().join("typed"),
    );
    fs::write(&typed, "typed").unwrap();
    let mut request = bundle.request();
    request.stdin = typed.display().to_string();
    request.stdout = format!("file://{}", file.display());
    let pid = shim.create_task(&request).unwrap().pid;
    for stream in 0..2 {
        let target = fs::read_link(format!("/proc/{pid}/fd/{stream}")).unwrap();
        assert!(target.to_string_lossy().starts_with("pipe:"), "{target:?}");
    }
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    check(&file, "to standard output");
    // And what is read from a file arrives.
    let bundle = bundle.guest(CAT).unwrap();
    let mut request = bundle.request();
    request.stdin = typed.display().to_string();
    request.stdout = format!("file://{}", file.display());
    shim.create_task(&request).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    check(&file, "to standard outputtyped<end of input>\n");
    finish(&containerd, &shim);
}

fn a_terminal_writes_to_a_log_file(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(STREAMS).unwrap();
    let bundle = bundle.terminal(80, 24).unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let file = containerd.directory().join("log");
    let mut request = bundle.request();
    request.stdout = format!("file://{}", file.display());
    shim.create_task(&request).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    check(&file, "to standard outputto standard error");
    finish(&containerd, &shim);
}

/// The copiers and loggers that a cleaner would find.
fn recorded(bundle: &Bundle) -> Vec<u32> {
    let directory = bundle.directory().join("shimwright/loggers");
    let names = fs::read_dir(directory).unwrap();
    names
        .map(|name| name.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect()
}

fn a_copier_ends_with_its_shim(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let file = containerd.directory().join("log");
    let mut request = bundle.request();
    request.stdout = format!("file://{}", file.display());
    shim.create_task(&request).unwrap();
    shim.start("a").unwrap();
    let copiers = recorded(&bundle);
    assert_eq!(copiers.len(), 1);
    assert!(lives(copiers[0]));
    let pid = shim.connect_task("a").unwrap().shim_pid;
    // A stopped copier does not see the end of its pipe.
    signal(copiers[0], rustix::process::Signal::STOP);
    signal(pid, rustix::process::Signal::KILL);
    poll(|| shim.connect_task("a").err()).expect("the connection is lost");
    let begin = Instant::now();
    containerd.delete(bundle.directory(), "a").unwrap();
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
    assert!(!lives(copiers[0]));
    containerd.wait_until_clean().unwrap();
}

fn an_exec_has_no_null_device_of_the_node(engine: &str) {
    let (containerd, bundle, shim) = vandal(engine, &["wait"]);
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    let node = fs::metadata("/dev/null").unwrap();
    let output = shimwright_testkit::Output::new(&containerd.directory().join("out")).unwrap();
    // One named as what it is, one that is not named.
    let streams = ["/dev/null".to_owned(), output.path(), String::new()];
    let exec = shim
        .add_exec("a", "b", &process(&["/vandal", "null"]), streams)
        .unwrap();
    exec.start().unwrap();
    exec.wait().unwrap();
    exec.delete().unwrap();
    let text = output.text().unwrap();
    let lines: Vec<_> = text.lines().collect();
    for stream in [0, 2] {
        let fields: Vec<u64> = lines[stream]
            .split(' ')
            .map(|field| field.parse().unwrap())
            .collect();
        assert_ne!((fields[0], fields[1]), (node.dev(), node.ino()), "{text}");
        assert_eq!(fields[2], 1, "the mode can be changed: {text}");
    }
    end(&shim, "a");
    finish(&containerd, &shim);
}

/// A name that clears a screen, begins a new line and turns text around.
const NAME: &str = "/no\x1b[2J\nlevel=error msg=forged\u{202e}\u{9b}31m.wasm";

#[track_caller]
fn check_shown(text: &str) {
    let is_text = |c: char| !c.is_control() && c != '\u{202e}';
    assert!(text.trim_end_matches('\n').chars().all(is_text), "{text:?}");
    assert!(
        text.contains("\\u{1b}[2J\\nlevel=error msg=forged"),
        "{text:?}"
    );
}

fn names_cannot_forge_lines_or_steer_a_terminal(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, IDLE);
    let output = bundle.stdout().unwrap();
    let attack = containerd.bundle("b").unwrap().args(&[NAME]).unwrap();
    let failed = shim.create(&attack);
    check_shown(&shimwright_testkit::shim::refusal(failed).unwrap().1);
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    output.wait_for("ready").unwrap();
    let none = Default::default();
    let exec = shim.add_exec("a", "b", &process(&[NAME]), none).unwrap();
    check_shown(&shimwright_testkit::shim::refusal(exec.start()).unwrap().1);
    exec.delete().unwrap();
    // The reason of a guest's end, with the name of a function.
    let mut named = containerd.bundle("c").unwrap().guest(IDLE).unwrap();
    let function = format!("{}#{}", shimwright_testkit::bundle::GUEST, &NAME[1..]);
    named = named.args(&[&function]).unwrap();
    let stderr = named.stderr().unwrap();
    shim.create(&named).unwrap();
    assert_eq!(run(&shim, "c"), 125);
    shim.delete("c").unwrap();
    check_shown_in_one_line(&stderr.text().unwrap());
    // What the commands of the executable write.
    let directory = containerd.directory().join(&NAME[1..]);
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("config.json"), "{").unwrap();
    for action in ["start", "delete"] {
        let namespace = containerd.namespace();
        let arguments = ["-namespace", namespace, "-id", NAME, action];
        let ran = containerd.run(&directory, &arguments, &[]).unwrap();
        assert!(!ran.status.success());
        let text = String::from_utf8(ran.output).unwrap();
        assert!(
            !text.trim_end_matches('\n').contains(char::is_control),
            "{text:?}"
        );
    }
    let arguments = ["-namespace", containerd.namespace(), "-id", "d", "start"];
    let ran = containerd.run(&directory, &arguments, &[]).unwrap();
    check_shown(&String::from_utf8(ran.output).unwrap());
    end(&shim, "a");
    finish(&containerd, &shim);
}

/// The lines of a name are joined in the one line of a reason.
#[track_caller]
fn check_shown_in_one_line(text: &str) {
    let is_text = |c: char| !c.is_control() && c != '\u{202e}';
    let line = text.trim_end_matches('\n');
    assert!(!line.is_empty() && line.chars().all(is_text), "{text:?}");
}

fn the_state_in_the_log_has_no_secrets(engine: &str) {
    let containerd = crate::containerd(engine);
    let bundle = containerd.bundle("a").unwrap().guest(IDLE).unwrap();
    let bundle = bundle.env(&["TOKEN=s3cret-of-the-first"]).unwrap();
    let bundle = bundle.log().unwrap();
    let shim = containerd.start(&bundle).unwrap();
    let mut request: CreateTaskRequest = bundle.request();
    request.stdout =
        "binary:///bin/sh?-c=exec%205%3E%26-%3B%20cat%20%3C%263%20%23s3cret".to_owned();
    shim.create_task(&request).unwrap();
    shim.start("a").unwrap();
    let args = ["/guest.wasm", "--password", "s3cret-argument"];
    let none = Default::default();
    let _added = shim.add_exec("a", "b", &process(&args), none).unwrap();
    let pid = shim.connect_task("a").unwrap().shim_pid;
    let log = bundle.directory().join("log");
    let mut log = fs::File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(log)
        .unwrap();
    signal(pid, rustix::process::Signal::USR1);
    let mut text = Vec::new();
    let text = poll(|| {
        let _ = log.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        text.contains(" state ").then(|| text.into_owned())
    });
    let text = text.expect("the state is in the log");
    assert!(!text.contains("s3cret"), "{text}");
    // What helps is there.
    for useful in ["\"a\"", "\"b\"", "TOKEN", "args: 3", "Running"] {
        assert!(text.contains(useful), "{useful}: {text}");
    }
    end(&shim, "a");
    finish(&containerd, &shim);
}

/// The client's end of a connection, byte by byte.
struct Raw(UnixStream);

impl Raw {
    fn connect(shim: &Shim) -> Self {
        let path = PathBuf::from(shim.address().trim_start_matches("unix://"));
        let stream = UnixStream::connect(path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Self(stream)
    }

    fn send(&mut self, stream: u32, length: u32, content: &[u8]) {
        let mut message = length.to_be_bytes().to_vec();
        message.extend(stream.to_be_bytes());
        message.extend([1, 0]);
        message.extend(content);
        self.0.write_all(&message).unwrap();
    }

    fn call(&mut self, stream: u32, method: &str, payload: &impl Message) {
        let request = Request {
            service: "containerd.task.v3.Task".to_owned(),
            method: method.to_owned(),
            payload: payload.write_to_bytes().unwrap(),
            ..Default::default()
        };
        let content = request.write_to_bytes().unwrap();
        self.send(stream, u32::try_from(content.len()).unwrap(), &content);
    }

    /// The stream of an answer, its code and its text.
    fn answer(&mut self) -> (u32, Code, String) {
        let mut header = [0; 10];
        self.0.read_exact(&mut header).unwrap();
        let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let mut content = vec![0; usize::try_from(number(0)).unwrap()];
        self.0.read_exact(&mut content).unwrap();
        let response = Response::parse_from_bytes(&content).unwrap();
        let status = response.status.unwrap_or_default();
        (number(4), status.code(), status.message)
    }
}

fn a_message_that_claims_four_gigabytes_is_answered(engine: &str) {
    let (containerd, _bundle, shim) = started(engine, IDLE);
    let mut raw = Raw::connect(&shim);
    raw.send(7, u32::MAX, b"and no more");
    let (stream, code, text) = raw.answer();
    assert_eq!((stream, code), (7, Code::INVALID_ARGUMENT), "{text}");
    // Then the shim hangs up, and others never notice.
    assert!(shim.connect_task("a").is_ok());
    // This one goes on after a signal.
    assert_eq!(raw.0.read_to_end(&mut Vec::new()).unwrap(), 0);
    finish(&containerd, &shim);
}

fn one_call_too_many_is_refused_and_the_others_wait(engine: &str) {
    const MOST: u32 = 1024;
    let (containerd, _bundle, shim, _output) = running(engine, IDLE, "ready");
    let mut raw = Raw::connect(&shim);
    let wait = WaitRequest {
        id: "a".to_owned(),
        ..Default::default()
    };
    for call in 0..=MOST {
        raw.call(2 * call + 1, "Wait", &wait);
    }
    let (stream, code, text) = raw.answer();
    assert_eq!(
        (stream, code),
        (2 * MOST + 1, Code::RESOURCE_EXHAUSTED),
        "{text}"
    );
    // Other connections go on, and every call that waits is answered.
    shim.kill("a", libc::SIGKILL).unwrap();
    for _ in 0..MOST {
        assert_eq!(raw.answer().1, Code::OK);
    }
    // There is room again.
    raw.call(2 * MOST + 3, "Wait", &wait);
    assert_eq!(raw.answer().1, Code::OK);
    shim.delete("a").unwrap();
    refused(shim.state("a"), Code::NOT_FOUND);
    finish(&containerd, &shim);
}
