//! Programs that read a container's outputs, and files that take them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use shimwright_guests::{CAT, HELLO, IDLE, STREAMS};
use shimwright_testkit::protos::api::CreateTaskRequest;
use shimwright_testkit::protos::ttrpc::Code;
use shimwright_testkit::{Bundle, Containerd, poll};

use crate::{finish, for_each_engine, lives, refused, run, started};

for_each_engine! {
    a_logger_reads_both_outputs
    a_logger_gets_its_arguments_and_variables_and_nothing_else
    delete_waits_until_the_logger_has_read_everything
    a_logger_that_does_not_end_is_asked_to
    a_logger_that_ignores_being_asked_is_killed
    a_logger_that_has_closed_the_pipe_is_ready_for_one_scheme_only
    a_logger_that_is_never_ready_fails_the_create
    a_logger_that_cannot_be_executed_fails_the_create
    a_slow_logger_delays_no_other_call
    a_failed_create_ends_the_logger
    a_logger_dies_with_its_shim
    a_file_takes_both_outputs
    streams_of_other_schemes_are_refused
}

/// Says that it is ready and copies both outputs to files.
const COPY: &str = "cat <&3 >$out.stdout & cat <&4 >$out.stderr & exec 3<&- 4<&-\n\
                    printf r >&5; exec 5>&-; wait\n";

/// A logger with this script, where `$out` is the path for what it writes; its pid is in
/// `$out.pid`. Descriptors of the shell's own are out of the way.
pub(crate) struct Logger {
    program: PathBuf,
    out: PathBuf,
}

impl Logger {
    pub(crate) fn new(containerd: &Containerd, script: &str) -> Self {
        let program = containerd.directory().join("my logger");
        let out = containerd.directory().join("out");
        let text = format!("#!/bin/sh\nout=\"$2\"\necho $$ >$out.pid\n{script}");
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { program, out }
    }

    fn uri(&self, scheme: &str) -> String {
        let program = self.program.display().to_string().replace(' ', "%20");
        format!("{scheme}://{program}?out={}", self.out.display())
    }

    /// One that waits to be told to [go](Self::go) before it is ready, and so delays a create.
    pub(crate) fn waiting(containerd: &Containerd) -> Self {
        let logger = Self::new(containerd, &format!("read go <$out.go\n{COPY}"));
        shimwright_testkit::stdio::fifo(&logger.path("go")).unwrap();
        logger
    }

    /// Waits until it has been started.
    pub(crate) fn wait(&self) {
        poll(|| self.path("pid").exists().then_some(())).expect("a logger");
    }

    /// Lets it go on.
    pub(crate) fn go(&self) {
        fs::write(self.path("go"), "go\n").unwrap();
    }

    /// The request to create a container whose outputs it reads.
    pub(crate) fn request(&self, bundle: &Bundle) -> CreateTaskRequest {
        let mut request = bundle.request();
        request.stdout = self.uri("binary");
        request.stderr = request.stdout.clone();
        request
    }

    fn path(&self, name: &str) -> PathBuf {
        self.out.with_extension(name)
    }

    fn written(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn pid(&self) -> u32 {
        self.written("pid").trim().parse().unwrap()
    }
}

fn a_logger_reads_both_outputs(engine: &str) {
    let (containerd, bundle, shim) = started(engine, STREAMS);
    let logger = Logger::new(&containerd, COPY);
    shim.create_task(&logger.request(&bundle)).unwrap();
    assert!(lives(logger.pid()));
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    assert_eq!(logger.written("stdout"), "to standard output");
    assert_eq!(logger.written("stderr"), "to standard error");
    assert!(!lives(logger.pid()));
    finish(&containerd, &shim);
}

fn a_logger_gets_its_arguments_and_variables_and_nothing_else(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let script = "ls -l /proc/$$/fd >$out.files\n\
                  tr '\\0' '\\n' </proc/$$/environ >$out.env\n\
                  tr '\\0' '\\n' </proc/$$/cmdline >$out.args\n";
    let logger = Logger::new(&containerd, &format!("{script}{COPY}"));
    let mut request = logger.request(&bundle);
    request.stdout += "&z=1&a=two+words&env.MORE=x%3D1";
    request.stderr.clone_from(&request.stdout);
    shim.create_task(&request).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    let args = logger.written("args");
    let expected = format!(
        "{}\nout\n{}\nz\n1\na\ntwo words\n",
        logger.program.display(),
        logger.out.display()
    );
    assert!(args.ends_with(&expected), "{args}");
    let namespace = containerd.namespace();
    let expected = format!("CONTAINER_ID=a\nCONTAINER_NAMESPACE={namespace}\nMORE=x=1\n");
    assert_eq!(logger.written("env"), expected);
    // The shell itself has its script and its old streams open, behind the first ten.
    let files = logger.written("files");
    let open: Vec<_> = files
        .lines()
        .filter_map(|line| line.split_once(" -> "))
        .map(|(left, target)| (left.rsplit(' ').next().unwrap(), target))
        .collect();
    let is_own = |number: &str| number.parse::<u32>().unwrap() < 10;
    let numbers: Vec<_> = open.iter().filter(|(number, _)| is_own(number)).collect();
    assert_eq!(numbers.len(), 6, "{files}");
    let pipes: Vec<_> = open
        .iter()
        .filter(|(_, target)| target.starts_with("pipe:"))
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(pipes, ["3", "4", "5"], "{files}");
    assert!(
        !files.contains("socket:") && !files.contains("anon_inode:"),
        "{files}"
    );
    finish(&containerd, &shim);
}

fn delete_waits_until_the_logger_has_read_everything(engine: &str) {
    let (containerd, mut bundle, shim) = started(engine, CAT);
    let mut input = bundle.stdin().unwrap();
    // It begins to read when the guest has long ended.
    let script = "printf r >&5; exec 5>&-; read go <$out.go; cat <&3 >$out.stdout\n";
    let logger = Logger::new(&containerd, script);
    shimwright_testkit::stdio::fifo(&logger.path("go")).unwrap();
    shim.create_task(&logger.request(&bundle)).unwrap();
    shim.start("a").unwrap();
    let sent = vec![b'x'; 48 << 10];
    input.write(&sent).unwrap();
    input.close();
    shim.close_stdin("a").unwrap();
    assert_eq!(shim.wait("a").unwrap().exit_status, 0);
    std::thread::scope(|scope| {
        let deleted = scope.spawn(|| shim.delete("a").unwrap());
        // The task is still there, as the logger has not read yet.
        assert!(shim.state("a").is_ok());
        fs::write(logger.path("go"), "go\n").unwrap();
        deleted.join().unwrap();
    });
    let written = fs::read(logger.path("stdout")).unwrap();
    assert_eq!(written.len(), sent.len() + "<end of input>\n".len());
    finish(&containerd, &shim);
}

fn a_logger_that_does_not_end_is_asked_to(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let script = "trap 'echo asked >$out.asked; exit' TERM\ncat <&3 >$out.stdout &\n\
                  printf r >&5; exec 5>&-; while :; do sleep 1; done\n";
    let logger = Logger::new(&containerd, script);
    shim.create_task(&logger.request(&bundle)).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    let begin = Instant::now();
    shim.delete("a").unwrap();
    assert_eq!(logger.written("asked"), "asked\n");
    assert_eq!(logger.written("stdout"), "Hello from Wasm\n");
    assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
    finish(&containerd, &shim);
}

fn a_logger_that_ignores_being_asked_is_killed(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let script = "trap '' TERM; printf r >&5; exec 5>&-; while :; do sleep 1; done\n";
    let logger = Logger::new(&containerd, script);
    shim.create_task(&logger.request(&bundle)).unwrap();
    // Nobody reads, so this is kept by the pipe.
    assert_eq!(run(&shim, "a"), 0);
    let begin = Instant::now();
    shim.delete("a").unwrap();
    assert!(!lives(logger.pid()));
    // Five seconds to end by itself, twelve after it was asked to.
    assert!(begin.elapsed().as_secs() >= 17, "{:?}", begin.elapsed());
    finish(&containerd, &shim);
}

fn a_logger_that_has_closed_the_pipe_is_ready_for_one_scheme_only(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let logger = Logger::new(&containerd, "exec 5>&-; cat <&3 >$out.stdout\n");
    let mut request = logger.request(&bundle);
    request.stdout = logger.uri("binary-v2");
    request.stderr = String::new();
    let text = refused(shim.create_task(&request), Code::INVALID_ARGUMENT);
    assert!(
        text.contains("my logger is not ready: it has closed the pipe"),
        "{text}"
    );
    assert!(!lives(logger.pid()));
    request.stdout = logger.uri("binary");
    shim.create_task(&request).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    assert_eq!(logger.written("stdout"), "Hello from Wasm\n");
    finish(&containerd, &shim);
}

fn a_logger_that_is_never_ready_fails_the_create(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let logger = Logger::new(&containerd, "exec sleep 1000\n");
    let text = refused(
        shim.create_task(&logger.request(&bundle)),
        Code::INVALID_ARGUMENT,
    );
    assert!(
        text.contains("my logger is not ready: it has not said so within"),
        "{text}"
    );
    assert!(!lives(logger.pid()));
    finish(&containerd, &shim);
}

fn a_logger_that_cannot_be_executed_fails_the_create(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let mut request = bundle.request();
    request.stdout = "binary:///no/such/logger".to_owned();
    let text = refused(shim.create_task(&request), Code::INVALID_ARGUMENT);
    assert!(
        text.contains("the logger /no/such/logger: No such file"),
        "{text}"
    );
    shim.create(&bundle).unwrap();
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

fn a_slow_logger_delays_no_other_call(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let logger = Logger::waiting(&containerd);
    std::thread::scope(|scope| {
        let created = scope.spawn(|| shim.create_task(&logger.request(&bundle)).unwrap());
        logger.wait();
        let other = containerd.bundle("b").unwrap().guest(HELLO).unwrap();
        shim.create(&other).unwrap();
        assert_eq!(run(&shim, "b"), 0);
        shim.delete("b").unwrap();
        refused(shim.state("a"), Code::NOT_FOUND);
        logger.go();
        created.join().unwrap();
    });
    assert_eq!(run(&shim, "a"), 0);
    shim.delete("a").unwrap();
    assert_eq!(logger.written("stdout"), "Hello from Wasm\n");
    finish(&containerd, &shim);
}

fn a_failed_create_ends_the_logger(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let bundle = bundle.args(&["/missing.wasm"]).unwrap();
    // Once a logger that ends by itself, once one that does not.
    for script in [
        COPY,
        "printf r >&5; exec 5>&-; trap '' TERM; while :; do sleep 1; done\n",
    ] {
        let logger = Logger::new(&containerd, script);
        shim.create_task(&logger.request(&bundle)).unwrap_err();
        assert!(!lives(logger.pid()));
    }
    assert!(!bundle.directory().join("shimwright").exists());
    finish(&containerd, &shim);
}

fn a_logger_dies_with_its_shim(engine: &str) {
    let (containerd, bundle, shim) = started(engine, IDLE);
    let script = "printf r >&5; exec 5>&-; trap '' TERM; while :; do sleep 1; done\n";
    let logger = Logger::new(&containerd, script);
    shim.create_task(&logger.request(&bundle)).unwrap();
    shim.start("a").unwrap();
    let pid = shim.connect_task("a").unwrap().shim_pid;
    crate::signal(pid, rustix::process::Signal::KILL);
    poll(|| shim.connect_task("a").err()).expect("the connection is lost");
    assert!(lives(logger.pid()));
    let begin = Instant::now();
    containerd.delete(bundle.directory(), "a").unwrap();
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
    assert!(!lives(logger.pid()));
    containerd.wait_until_clean().unwrap();
}

fn a_file_takes_both_outputs(engine: &str) {
    let (containerd, bundle, shim) = started(engine, STREAMS);
    let file: &Path = &containerd.directory().join("logs/deep/all of it.log");
    let mut request = bundle.request();
    let path = file.display().to_string();
    request.stdout = format!("file://{}", path.replace(' ', "%20"));
    request.stderr.clone_from(&request.stdout);
    for _ in 0..2 {
        shim.create_task(&request).unwrap();
        assert_eq!(run(&shim, "a"), 0);
        shim.delete("a").unwrap();
    }
    let once = "to standard outputto standard error";
    assert_eq!(fs::read_to_string(file).unwrap(), once.repeat(2));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(file), mode(file.parent().unwrap())), (0o644, 0o755));
    finish(&containerd, &shim);
}

fn streams_of_other_schemes_are_refused(engine: &str) {
    let (containerd, bundle, shim) = started(engine, HELLO);
    let refusal = |stdout: &str, code| {
        let mut request = bundle.request();
        stdout.clone_into(&mut request.stdout);
        refused(shim.create_task(&request), code)
    };
    let text = refusal("npipe:////./pipe/x", Code::INVALID_ARGUMENT);
    assert!(text.contains("unknown scheme npipe"), "{text}");
    let text = refusal("streaming://a/b", Code::UNIMPLEMENTED);
    assert!(text.contains("streaming://a/b"), "{text}");
    let text = refusal("binary://logger", Code::INVALID_ARGUMENT);
    assert!(text.contains("binary://logger"), "{text}");
    finish(&containerd, &shim);
}
