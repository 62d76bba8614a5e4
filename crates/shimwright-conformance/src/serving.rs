//! A guest that serves HTTP, and a client of it.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use shimwright_core::BoxError;
use shimwright_core::testing;

use crate::case::{End, Run, Text};
use crate::guest::{self, Guest, Subject};

/// How long anything may take that a client waits for.
const DEADLINE: Duration = Duration::from_secs(60);

/// A case that talks to a guest which serves.
#[derive(Clone, Copy)]
pub(crate) struct Served {
    pub(crate) run: Run,
    /// Starts the guest and says what is wrong with its answers.
    pub(crate) talk: fn(Prepared<'_>) -> Result<(), BoxError>,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Served").field(&self.run).finish()
    }
}

/// A guest that is yet to be started.
pub(crate) struct Prepared<'a> {
    pub(crate) subject: Subject<'a>,
    pub(crate) run: &'a Run,
}

/// A guest that serves at an address.
pub(crate) struct Serving {
    guest: Guest,
    address: SocketAddr,
}

/// The body of an answer, or why there is none.
type Answer = Result<String, BoxError>;

impl Prepared<'_> {
    /// Starts the guest, and returns when it listens.
    pub(crate) fn start(self) -> Result<Serving, BoxError> {
        self.start_with(|_| Ok(()))
    }

    /// The same after `tune` has changed what the runner is told.
    pub(crate) fn start_with(
        self,
        tune: impl FnOnce(&mut testing::Run) -> Result<(), BoxError>,
    ) -> Result<Serving, BoxError> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let guest = Guest::start(self.subject, self.run, |run| {
            let variable = "SHIMWRIGHT_HTTP_ADDRESS".to_owned();
            run.env.push((variable, address.to_string()));
            tune(run)
        })?;
        let mut serving = Serving { guest, address };
        if !poll(|| TcpStream::connect(address).is_ok()) {
            let _ = serving.guest.end(Duration::ZERO);
            let written = serving.guest.written();
            return Err(format!("it does not listen\n{written}").into());
        }
        Ok(serving)
    }
}

impl Serving {
    /// Checks the answer to a request.
    pub(crate) fn answers(&self, path: &str, expected: &str) -> Result<(), BoxError> {
        let found = get(self.address, path)?;
        if found == expected {
            return Ok(());
        }
        Err(format!("the answer to {path} is {found:?} instead of {expected:?}").into())
    }

    /// Begins a request that is answered after [`go`](Self::go), and waits until the guest has it.
    pub(crate) fn begin_waiting(&mut self) -> Result<Receiver<Answer>, BoxError> {
        let (sender, receiver) = mpsc::channel();
        let address = self.address;
        thread::spawn(move || sender.send(get(address, "/wait")));
        self.guest.wait_for(Text::Is("waiting\n"))?;
        Ok(receiver)
    }

    /// Lets the request be answered.
    pub(crate) fn go(&self) -> Result<(), BoxError> {
        Ok(std::fs::write(self.guest.beside().join("data/go"), "")?)
    }

    pub(crate) fn signal(&self, signal: i32) -> Result<(), BoxError> {
        self.guest.signal(signal)
    }

    /// Sends a signal, and waits until nobody can connect any more.
    pub(crate) fn drain(&self, signal: i32) -> Result<(), BoxError> {
        self.signal(signal)?;
        if poll(|| TcpStream::connect(self.address).is_err()) {
            return Ok(());
        }
        Err("it goes on accepting connections".into())
    }

    /// Waits until it has ended with this status.
    pub(crate) fn ends_with(mut self, status: u8) -> Result<(), BoxError> {
        let found = self.guest.end(DEADLINE)?;
        let wrong = guest::ends(found, End::Code(status));
        Ok(wrong.map_err(|wrong| format!("{wrong}\n{}", self.guest.written()))?)
    }
}

/// Makes one request on a connection of its own.
fn get(address: SocketAddr, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    body(&answer).ok_or_else(|| format!("the answer to {path} is {answer:?}").into())
}

/// The body of an answer with status 200, which has its length or comes in chunks.
fn body(answer: &str) -> Option<String> {
    let (head, mut rest) = answer.split_once("\r\n\r\n")?;
    let head = head.to_ascii_lowercase();
    head.starts_with("http/1.1 200").then_some(())?;
    if !head.contains("transfer-encoding: chunked") {
        return Some(rest.to_owned());
    }
    let mut body = String::new();
    loop {
        let (length, chunk) = rest.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.push_str(chunk.get(..length)?);
        rest = chunk.get(length..)?.strip_prefix("\r\n")?;
    }
}

/// Tries until it is so, for what nothing announces; false at the deadline.
fn poll(is_so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::body;

    #[test]
    fn bodies_have_a_length_or_come_in_chunks() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        assert_eq!(body(answer).as_deref(), Some("ab"));
        let chunks =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(body(chunks).as_deref(), Some("abc"));
        for other in [
            "",
            "HTTP/1.1 500 No\r\n\r\nab",
            &chunks[..chunks.len() - 12],
        ] {
            assert_eq!(body(other), None, "{other:?}");
        }
    }
}
