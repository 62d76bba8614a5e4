//! The standard streams of a task, as containerd names them in `create`.
//!
//! A container's first process writes straight into the client's FIFO: nothing is copied, so nothing
//! is lost when the shim is busy. An exec has a pipe, and a [relay](relay) to the FIFO. For both the
//! shim holds each FIFO open as well:
//!
//! - a read end of each output, so that a client that goes away, as containerd does when it is
//!   restarted, breaks no pipe, and what was written last can still be read;
//! - a write end of the input until `CloseIO`, so that the guest does not see its end early.
//!
//! A file or a device of the node is never handed to a container: it has a pipe, and a
//! [copier](copier) carries the bytes.
//!
//! No call here waits for the other side.

pub(crate) mod copier;
mod copying;
mod endpoint;
mod logger;
mod null;
mod relay;
pub(crate) mod terminal;
pub(crate) mod uri;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::inotify::WatchFlags;
use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Error};
use crate::process::launcher::Keep;
use crate::sys;
use copier::Copy;
pub(crate) use copying::Copying;
use endpoint::Endpoint;
pub(crate) use endpoint::Endpoints;
pub(crate) use logger::{Logger, Pending};
use relay::Relay;

/// What a process of a container is to have as its standard streams.
#[derive(Debug)]
pub(crate) enum Stdio {
    /// These, whatever they are.
    Streams(Streams),
    /// A terminal, whose other end the shim copies to and from the client's FIFOs.
    Terminal,
}

/// What a process of a container is given as its descriptors 0, 1 and 2.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Keep for Streams {
    fn keep<'a>(&'a self, kept: &mut Vec<BorrowedFd<'a>>) {
        self.stdin.keep(kept);
        self.stdout.keep(kept);
        self.stderr.keep(kept);
    }
}

impl Keep for Stdio {
    fn keep<'a>(&'a self, kept: &mut Vec<BorrowedFd<'a>>) {
        match self {
            Self::Streams(streams) => streams.keep(kept),
            Self::Terminal => {}
        }
    }
}

/// What the shim itself holds open while the task exists.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// The write end of the input FIFO, until `CloseIO`.
    stdin: Option<OwnedFd>,
    /// The read ends of the output FIFOs, which keep what was written until `Delete`.
    outputs: Vec<OwnedFd>,
    /// Output FIFOs that no client had open yet at `create`.
    unseen: Vec<Unseen>,
    /// Streams that are files of the node, until their copier is started.
    copies: Vec<Copy>,
    /// The program that is to read the outputs, until it is started.
    pending: Option<Pending>,
    /// Relays to the output FIFOs until they are started, if the process is to have any.
    relays: Option<Vec<Relay>>,
}

/// An output FIFO that no client had open yet. A write end is held besides the read end: opening
/// a FIFO for reading waits for a writer, and the guest may have come and gone by then.
#[derive(Debug)]
struct Unseen {
    keeper: OwnedFd,
    writer: OwnedFd,
}

/// Opens the streams of a container's first process.
///
/// # Errors
///
/// `Invalid` for a stream that cannot be used, naming it.
pub(crate) fn open(endpoints: Endpoints) -> Result<(Streams, Held), Error> {
    open_into(Held::default(), endpoints)
}

/// Opens the streams of an exec, and starts the relays of its outputs.
///
/// # Errors
///
/// The same.
pub(crate) fn open_relayed(endpoints: Endpoints) -> Result<(Streams, Held, Vec<Copying>), Error> {
    let held = Held {
        relays: Some(Vec::new()),
        ..Held::default()
    };
    let (streams, mut held) = open_into(held, endpoints)?;
    let relays = held.relays.take().into_iter().flatten();
    let copying: io::Result<_> = relays.map(Relay::start).collect();
    Ok((streams, held, copying.context("copy an output")?))
}

fn open_into(mut held: Held, endpoints: Endpoints) -> Result<(Streams, Held), Error> {
    let stdin = held.input(endpoints.stdin)?;
    let outputs = (endpoints.stdout, endpoints.stderr);
    let (stdout, stderr) = if outputs.0 == outputs.1 && !matches!(outputs.0, Endpoint::Logger(_)) {
        let first = held.output(outputs.0)?;
        let second = first.try_clone().context("duplicate the standard output")?;
        (first, second)
    } else {
        held.outputs(outputs)?
    };
    let streams = Streams {
        stdin,
        stdout,
        stderr,
    };
    Ok((streams, held))
}

impl Streams {
    /// Has a user and a group of the node own the pipes among them, so that a container in a user
    /// namespace can open `/dev/stdout` again.
    pub(crate) fn give_to(&self, user: u32, group: u32) -> Result<(), Error> {
        use rustix::process::{Gid, Uid};
        for stream in [&self.stdin, &self.stdout, &self.stderr] {
            let kind = rustix::fs::fstat(stream).context("inspect a stream")?;
            if rustix::fs::FileType::from_raw_mode(kind.st_mode).is_fifo() {
                let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
                rustix::fs::fchown(stream, Some(user), Some(group)).context("own a stream")?;
            }
        }
        Ok(())
    }
}

impl Held {
    /// Lets the guest see the end of its input, once the client has closed its side too.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The guest has ended: takes the outputs that no client may have opened, for
    /// [`Waiting::opened`].
    pub(crate) fn take_unseen(&mut self) -> Waiting {
        Waiting(std::mem::take(&mut self.unseen))
    }

    /// What has to be started before the guest is.
    pub(crate) fn take_pending(&mut self) -> Vec<Pending> {
        let copies = std::mem::take(&mut self.copies);
        let copier = (!copies.is_empty()).then_some(Pending::Copier(copies));
        copier.into_iter().chain(self.pending.take()).collect()
    }

    fn input(&mut self, endpoint: Endpoint) -> Result<OwnedFd, Error> {
        let path = match endpoint {
            Endpoint::Null => return null::open(),
            Endpoint::Fifo(path) => path,
            Endpoint::File { path, .. } => {
                let (copy, reader) = Copy::input(path)?;
                self.copies.push(copy);
                return Ok(reader);
            }
            Endpoint::Logger(_) => return Err(Error::invalid("a logger is no input")),
        };
        let cannot_open = || format!("open the standard input {}", path.display());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let reader = rustix::fs::open(&path, flags, Mode::empty()).with_context(cannot_open)?;
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let writer = rustix::fs::open(&path, flags, Mode::empty()).with_context(cannot_open)?;
        self.stdin = Some(writer);
        wait_on_io(&reader).with_context(cannot_open)?;
        Ok(reader)
    }

    /// Opens both outputs. A logger reads one of them or both.
    fn outputs(&mut self, endpoints: (Endpoint, Endpoint)) -> Result<(OwnedFd, OwnedFd), Error> {
        use rustix::pipe::{PipeFlags, pipe_with};
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context("make a pipe for a logger");
        let program = match &endpoints {
            (Endpoint::Logger(first), Endpoint::Logger(second)) if first != second => {
                return Err(Error::invalid("the outputs have two different loggers"));
            }
            (Endpoint::Logger(program), _) | (_, Endpoint::Logger(program)) => program.clone(),
            _ => return Ok((self.output(endpoints.0)?, self.output(endpoints.1)?)),
        };
        let mut open = |endpoint| -> Result<(OwnedFd, OwnedFd), Error> {
            let (reader, writer) = pipe()?;
            match endpoint {
                Endpoint::Logger(_) => Ok((reader, writer)),
                // The logger sees the end of the output that is not for it.
                other => Ok((reader, self.output(other)?)),
            }
        };
        let (first, stdout) = open(endpoints.0)?;
        let (second, stderr) = open(endpoints.1)?;
        self.pending = Some(Pending::Logger {
            program,
            outputs: [first, second],
        });
        Ok((stdout, stderr))
    }

    fn output(&mut self, endpoint: Endpoint) -> Result<OwnedFd, Error> {
        let path = match endpoint {
            Endpoint::Null => return null::open(),
            Endpoint::Fifo(path) => path,
            Endpoint::File { path, make } => return self.copied(path, make),
            Endpoint::Logger(_) => return Err(Error::invalid("a logger is no file")),
        };
        let cannot_open = || format!("open the output {}", path.display());
        let write = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let read = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let found = rustix::fs::open(&path, write, Mode::empty());
        let keeper = rustix::fs::open(&path, read, Mode::empty()).with_context(cannot_open)?;
        let writer = match found {
            Ok(writer) => {
                self.outputs.push(keeper);
                writer
            }
            Err(rustix::io::Errno::NXIO) => {
                // No client yet; with our own read end open this no longer fails.
                let open = || rustix::fs::open(&path, write, Mode::empty());
                let guest = open().with_context(cannot_open)?;
                let writer = open().with_context(cannot_open)?;
                self.unseen.push(Unseen { keeper, writer });
                guest
            }
            Err(error) => return Err(error).with_context(cannot_open),
        };
        if let Some(relays) = &mut self.relays {
            let (relay, end) = Relay::new(writer)?;
            relays.push(relay);
            return Ok(end);
        }
        wait_on_io(&writer).with_context(cannot_open)?;
        Ok(writer)
    }

    /// Has a copier append an output to a file, which is made if it is missing and may be.
    fn copied(&mut self, path: PathBuf, make: bool) -> Result<OwnedFd, Error> {
        let (copy, writer) = Copy::output(path, make)?;
        self.copies.push(copy);
        Ok(writer)
    }
}

/// Outputs of a guest that has ended, whose client may still be to come.
#[derive(Debug)]
pub(crate) struct Waiting(Vec<Unseen>);

impl Waiting {
    /// Ends when every output has been opened by a client, which then reads all that was written
    /// and sees its end. Dropping this gives the output up.
    pub(crate) async fn opened(self) {
        for unseen in self.0 {
            if let Err(error) = unseen.opened().await {
                tracing::warn!(%error, "an output is closed before a client has opened it");
            }
        }
    }
}

impl Unseen {
    async fn opened(self) -> io::Result<()> {
        // Nobody but the guest wrote, so nothing can break on a missing reader any more.
        drop(self.keeper);
        // Without a look at the path, whose file system may not answer any more.
        let fifo = PathBuf::from(format!("/proc/self/fd/{}", self.writer.as_raw_fd()));
        let watch = sys::fd::watch_file(&fifo, WatchFlags::OPEN)?;
        // Look only now, or a client could open the FIFO in between unnoticed.
        if !has_reader(&self.writer)? {
            let _ = watch.readable().await?;
        }
        Ok(())
    }
}

/// A pipe without a reader is in an error state for its writer (`poll(2)`).
fn has_reader(writer: &OwnedFd) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut wanted = [PollFd::new(writer, PollFlags::empty())];
    poll(&mut wanted, Some(&Timespec::default()))?;
    Ok(!wanted[0].revents().contains(PollFlags::ERR))
}

/// The guest's descriptors wait, as its program expects; only opening must not.
fn wait_on_io(descriptor: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&descriptor)? - OFlags::NONBLOCK;
    Ok(rustix::fs::fcntl_setfl(&descriptor, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::reaper::Reaper;
    use std::fs::{File, OpenOptions};
    use std::io::{Read, Write};

    /// What the shim process does, which needs no launcher here.
    pub(super) fn endpoints(stdin: &str, stdout: &str, stderr: &str) -> Result<Endpoints, Error> {
        use futures::FutureExt;
        let found = Endpoints::find(stdin, stdout, stderr, &Reaper::default()).now_or_never();
        found.expect("the kernel has them in memory")
    }

    fn opened(stdin: &str, stdout: &str, stderr: &str) -> Result<(Streams, Held), Error> {
        open(endpoints(stdin, stdout, stderr)?)
    }

    pub(super) fn fifo(directory: &tempfile::TempDir, name: &str) -> String {
        let path = directory.path().join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_client_that_comes_late_reads_all_and_sees_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = fifo(&directory, "out");
        let (streams, mut held) = opened("", &path, "").unwrap();
        File::from(streams.stdout).write_all(b"last words").unwrap();
        let waiting = held.take_unseen();
        let client = std::thread::spawn(move || {
            let mut text = String::new();
            File::open(path).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        waiting.opened().await;
        assert_eq!(client.join().unwrap(), "last words");
    }

    #[tokio::test]
    async fn a_client_that_was_there_first_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = fifo(&directory, "out");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let _client = rustix::fs::open(path.as_str(), flags, Mode::empty()).unwrap();
        let (_streams, mut held) = opened("", &path, "").unwrap();
        assert!(held.take_unseen().0.is_empty());
    }

    #[tokio::test]
    async fn input_ends_only_after_close() {
        let directory = tempfile::tempdir().unwrap();
        let path = fifo(&directory, "in");
        let (streams, mut held) = opened(&path, "", "").unwrap();
        let mut client = OpenOptions::new().write(true).open(&path).unwrap();
        client.write_all(b"typed").unwrap();
        drop(client);
        let mut guest = File::from(streams.stdin);
        let mut buffer = [0; 5];
        guest.read_exact(&mut buffer).unwrap();
        held.close_stdin();
        assert_eq!(guest.read(&mut buffer).unwrap(), 0);
    }

    #[tokio::test]
    async fn one_logger_reads_what_is_for_it() {
        let pending = |stdout, stderr| opened("", stdout, stderr).unwrap().1.take_pending();
        assert!(pending("", "").is_empty());
        assert_eq!(pending("binary:///l?a=b", "binary:///l?a=b").len(), 1);
        let alone = pending("", "binary:///l");
        let [
            Pending::Logger {
                outputs: [stdout, _],
                ..
            },
        ] = &alone[..]
        else {
            panic!("{alone:?}");
        };
        let mut rest = Vec::new();
        File::from(stdout.try_clone().unwrap())
            .read_to_end(&mut rest)
            .unwrap();
        assert!(rest.is_empty());
        assert!(opened("", "binary:///l", "binary:///other").is_err());
        assert!(opened("binary:///l", "", "").is_err());
    }

    #[tokio::test]
    async fn pipes_are_given_to_a_user_and_files_are_not() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = (fifo(&directory, "out"), directory.path().join("err"));
        std::fs::write(&file, "").unwrap();
        let uri = format!("file://{}", file.display());
        let (streams, _held) = opened("", &path, &uri).unwrap();
        let (own, group) = (rustix::process::geteuid(), rustix::process::getegid());
        // Only root can give it away, but nobody is refused to keep it.
        let user = if own.is_root() { 1234 } else { own.as_raw() };
        streams.give_to(user, group.as_raw()).unwrap();
        assert_eq!(std::fs::metadata(path).unwrap().uid(), user);
        assert_eq!(std::fs::metadata(file).unwrap().uid(), own.as_raw());
    }

    #[tokio::test]
    async fn a_file_of_the_node_is_never_a_stream_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "").unwrap();
        let (path, uri) = (
            path.to_str().unwrap().to_owned(),
            format!("file://{}", path.display()),
        );
        let is_pipe = |stream: &OwnedFd| {
            let mode = rustix::fs::fstat(stream).unwrap().st_mode;
            rustix::fs::FileType::from_raw_mode(mode).is_fifo()
        };
        for (name, copied) in [(&*path, 2), (&*uri, 1)] {
            let stdin = if name == uri { "" } else { name };
            let (streams, mut held) = opened(stdin, name, name).unwrap();
            assert!(is_pipe(&streams.stdout) && is_pipe(&streams.stderr));
            let [Pending::Copier(copies)] = &held.take_pending()[..] else {
                panic!("no copier for {name}");
            };
            // One pipe for both outputs keeps their order.
            assert_eq!(copies.len(), copied);
        }
        let [copier, logger] = &opened("", &uri, "binary:///l").unwrap().1.take_pending()[..]
        else {
            panic!("a copier and a logger");
        };
        assert!(matches!(copier, Pending::Copier(_)) && matches!(logger, Pending::Logger { .. }));
    }
}
