//! The emulated machine: qemu, with a processor of this machine's if that works here.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, PipeReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use shimwright_testenv::error::{Context, Result, error};
use shimwright_testenv::process::{self, Process};

use super::disk::Disk;

pub(super) const PROGRAM: &str = "qemu-system-x86_64";
pub(super) const PACKAGE: &str = "qemu-system-x86";

/// What `init.sh` writes when it is about to execute its command, and before the exit status.
const BOOTED: &str = "booted";
const ENDED: &str = "ended with ";

/// One shows panics alone, so that tests can be read; a panic ends the machine.
const KERNEL: &str = "root=/dev/nvme0n1 rw init=/init console=ttyS0 loglevel=1 panic=-1";

const MEBIBYTES: &str = "3072";

/// How the machine's processors come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accelerator {
    /// By those of this machine.
    Kvm,
    /// By translation.
    Tcg,
}

impl Accelerator {
    fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// How long a machine takes to boot, and as much again several times over.
    fn boots_within(self) -> Duration {
        Duration::from_secs(match self {
            Self::Kvm => 20,
            Self::Tcg => 180,
        })
    }
}

/// What came of the machine's command.
pub(super) struct Outcome {
    /// Its exit status.
    pub(super) code: i32,
    /// The lines that it wrote.
    pub(super) lines: Vec<String>,
}

/// Starts a machine from a disk, shows what its command writes, and waits for the end of both.
pub(super) fn run(disk: &Disk, deadline: Duration) -> Result<Outcome> {
    let (machine, console) = boot(disk)?;
    let finished = machine
        .finish(deadline)
        .context("wait for the end of the emulated machine, which is killed now")?;
    let lines = console.recv_timeout(Duration::from_secs(5));
    let lines = lines.map_err(|_| error!("qemu has ended, but its output has not"))?;
    let said = finished.success()?;
    let code = said.lines().find_map(|line| line.strip_prefix(ENDED));
    let code = code.and_then(|code| code.trim().parse().ok());
    Ok(Outcome {
        code: code.ok_or_else(|| {
            error!("the emulated machine has ended before its command: see what it wrote last")
        })?,
        lines,
    })
}

/// A machine that has booted. A device for KVM says little: it may be there in a virtual machine
/// and not work.
fn boot(disk: &Disk) -> Result<(Process, mpsc::Receiver<Vec<String>>)> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if device.is_ok() {
        match start(disk, Accelerator::Kvm) {
            Ok(machine) => return Ok(machine),
            Err(_) => process::check_interrupt()?,
        }
        println!("==> KVM does not work here: the processors are emulated, too");
    }
    start(disk, Accelerator::Tcg)
}

fn start(disk: &Disk, accelerator: Accelerator) -> Result<(Process, mpsc::Receiver<Vec<String>>)> {
    println!(
        "==> booting an emulated machine with {}",
        accelerator.name()
    );
    let (reader, writer) = std::io::pipe()?;
    let mut qemu = Command::new(PROGRAM);
    qemu.args(["-machine", "q35", "-accel", accelerator.name()])
        .args(["-cpu", "max", "-smp", "2", "-m", MEBIBYTES])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        // A panic is to end it.
        .arg("-no-reboot")
        .arg("-kernel")
        .arg(disk.kernel())
        .args(["-append", KERNEL])
        .arg("-blockdev")
        .arg(format!(
            "driver=file,node-name=disk,cache.no-flush=on,filename={}",
            disk.image().display()
        ))
        .args(["-device", "nvme,drive=disk,serial=disk"])
        // The first port is the console, where qemu itself writes, too; the second is for us.
        .args(["-chardev", "file,id=console,path=/dev/stderr"])
        .args(["-serial", "chardev:console", "-serial", "stdio"])
        .stdout(Stdio::piped())
        .stderr(Stdio::from(writer));
    let console = show(reader);
    let mut machine = Process::spawn_as_is(qemu)?;
    machine
        .wait_for_output(BOOTED, accelerator.boots_within())
        .context("boot the emulated machine")?;
    Ok((machine, console))
}

/// Shows the lines of a console as they come, and sends all of them when it has ended.
fn show(console: PipeReader) -> mpsc::Receiver<Vec<String>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = Vec::new();
        for line in BufReader::new(console)
            .split(b'\n')
            .map_while(std::result::Result::ok)
        {
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            println!("{line}");
            lines.push(line.to_owned());
        }
        // Nobody may wait for it any more.
        let _ = sender.send(lines);
    });
    receiver
}
