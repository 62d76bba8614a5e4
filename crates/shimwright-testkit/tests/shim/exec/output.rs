//! The outputs of an exec, which are copied.

use std::fs::OpenOptions;
use std::io::Read;
use std::path::PathBuf;

use shimwright_testkit::shim::Exec;
use shimwright_testkit::stdio::fifo;
use shimwright_testkit::{Input, poll};

use super::{Container, guest, process, program};
use crate::{for_each_engine, lives};

for_each_engine! {
    the_output_of_a_deleted_exec_ends_although_its_children_hold_it
    all_output_of_an_exec_arrives_at_the_pace_of_its_client
    an_exec_whose_output_nobody_reads_can_be_killed_and_deleted
}

fn the_output_of_a_deleted_exec_ends_although_its_children_hold_it(engine: &str) {
    let container = program(engine);
    let (stdout, stderr) = (container.output("out"), container.output("err"));
    let streams = [String::new(), stdout.path(), stderr.path()];
    let spec = process(&["/program", "background"]);
    let exec = container.shim.add_exec("a", "e", &spec, streams).unwrap();
    exec.start().unwrap();
    assert_eq!(exec.wait().unwrap().exit_status, 0);
    stdout.wait_for("\n").unwrap();
    let ended = stdout.find(|_, ended| Some(ended)).unwrap();
    assert!(
        !ended,
        "the child in the background does not hold the output"
    );
    exec.delete().unwrap();
    let child: u32 = stdout.text().unwrap().trim().parse().unwrap();
    assert_eq!(stderr.text().unwrap(), "");
    // The child is told in its own pid namespace who it is.
    let inside = format!("NSpid:\t{{}}\t{child}");
    let is_child = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains(&inside.replace("{}", &pid.to_string()))
    };
    let pids = container.shim.pids("a").unwrap();
    let child = pids.into_iter().find(is_child).expect("a child");
    assert!(lives(child));
    container.end();
}

/// Adds an exec that copies its input to its output, which is a FIFO that nobody has open.
fn cat(container: &Container) -> (Exec, Input, PathBuf) {
    let directory = container.containerd.directory();
    let input = Input::new(&directory.join("in")).unwrap();
    let path = directory.join("out");
    fifo(&path).unwrap();
    let output = path.to_string_lossy().into_owned();
    let streams = [input.path(), output, String::new()];
    let spec = process(&["/cat.wasm"]);
    let exec = container.shim.add_exec("a", "e", &spec, streams).unwrap();
    (exec, input, path)
}

fn all_output_of_an_exec_arrives_at_the_pace_of_its_client(engine: &str) {
    let container = guest(engine);
    let (exec, mut input, path) = cat(&container);
    // It begins to read after what it reads has been written.
    let mut client = OpenOptions::new();
    let mut client = client.read(true).write(true).open(&path).unwrap();
    exec.start().unwrap();
    let sent: Vec<u8> = (0..1_u32 << 20).flat_map(u32::to_le_bytes).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| input.write(&sent).unwrap());
        let mut received = vec![0; sent.len()];
        for part in received.chunks_mut(10_000) {
            client.read_exact(part).unwrap();
        }
        assert!(received == sent);
    });
    input.close();
    exec.close_stdin().unwrap();
    assert_eq!(exec.wait().unwrap().exit_status, 0);
    exec.delete().unwrap();
    container.end();
}

fn an_exec_whose_output_nobody_reads_can_be_killed_and_deleted(engine: &str) {
    let container = guest(engine);
    let (exec, mut input, _path) = cat(&container);
    let pid = exec.start().unwrap();
    // The FIFO, the pipe and the input hold 64 KiB each, so the first is full when this is written.
    input.write(&vec![b'x'; (64 + 64 + 2) << 10]).unwrap();
    exec.kill(libc::SIGKILL).unwrap();
    assert_eq!(exec.wait().unwrap().exit_status, 137);
    exec.delete().unwrap();
    poll(|| (!lives(pid)).then_some(())).expect("its end");
    container.end();
}
