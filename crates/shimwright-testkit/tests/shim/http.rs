//! Components that handle HTTP requests, asked by a real client.
//!
//! They are in the network namespace of the test, each on an address of its own.

mod outbound;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use shimwright_guests::HTTP_COMPONENT;
use shimwright_testkit::{Bundle, Containerd, Output, Shim, poll};

use crate::{end, finish, started};

const ENGINE: &str = "containerd-shim-wasmtime-v1";

/// What a server that a guest asks has to say.
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nanswered";

/// How long something is watched that must not happen.
const STILL: Duration = Duration::from_millis(300);

/// A container that serves.
struct Served {
    containerd: Containerd,
    bundle: Bundle,
    shim: Shim,
    stdout: Output,
    stderr: Output,
    address: SocketAddr,
}

/// An address that no other test has.
pub(crate) fn address() -> SocketAddr {
    static NUMBER: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    (Ipv4Addr::new(127, high.max(1), low, number), 8080).into()
}

/// Leaves a container in the network namespace of the test.
pub(crate) fn join_our_network(spec: &mut serde_json::Value) {
    let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
}

/// A bundle with the guest in the network namespace of the test.
fn prepared(env: &[&str]) -> (Containerd, Bundle, Shim) {
    let (containerd, bundle, shim) = started(ENGINE, HTTP_COMPONENT);
    let bundle = bundle
        .env(env)
        .unwrap()
        .file("/data/in.txt", b"from a file", 0o644)
        .unwrap()
        .file("/etc/hosts", b"127.0.0.1 backend\n", 0o644)
        .unwrap()
        .spec(join_our_network)
        .unwrap();
    (containerd, bundle, shim)
}

fn serve(env: &[&str]) -> Served {
    let address = address();
    let own = format!("SHIMWRIGHT_HTTP_ADDRESS={address}");
    serve_at(address, &[&[own.as_str()], env].concat())
}

fn serve_at(address: SocketAddr, env: &[&str]) -> Served {
    let (containerd, mut bundle, shim) = prepared(env);
    let stdout = bundle.stdout().unwrap();
    let stderr = bundle.stderr().unwrap();
    shim.create(&bundle).unwrap();
    shim.start("a").unwrap();
    // It says nothing when it listens.
    poll(|| TcpStream::connect(address).ok()).expect("a server");
    Served {
        containerd,
        bundle,
        shim,
        stdout,
        stderr,
        address,
    }
}

impl Served {
    /// One request on a connection of its own.
    fn get(&self, path: &str) -> (u16, String) {
        get(self.address, path).unwrap()
    }

    /// Begins a request that is answered once [`Self::go`] was called, and waits until the guest
    /// has it.
    fn waiting(&self) -> mpsc::Receiver<(u16, String)> {
        let answered = self.begin("/wait");
        self.stdout.wait_for("waiting\n").unwrap();
        answered
    }

    fn begin(&self, path: &'static str) -> mpsc::Receiver<(u16, String)> {
        let (sender, receiver) = mpsc::channel();
        let address = self.address;
        std::thread::spawn(move || {
            if let Ok(answer) = get(address, path) {
                let _ = sender.send(answer);
            }
        });
        receiver
    }

    fn go(&self) {
        std::fs::write(self.bundle.image().join("data/go"), "").unwrap();
    }

    /// Sends a signal and waits until nobody can connect any more.
    fn drain(&self, signal: i32) {
        self.shim.kill("a", signal).unwrap();
        poll(|| TcpStream::connect(self.address).err()).expect("a refusal");
    }

    fn exits(&self, status: u32) {
        assert_eq!(self.shim.wait("a").unwrap().exit_status, status);
        self.shim.delete("a").unwrap();
        finish(&self.containerd, &self.shim);
    }

    fn end(&self) {
        end(&self.shim, "a");
        finish(&self.containerd, &self.shim);
    }
}

/// Runs a client.
pub(crate) fn block_on<T>(client: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(client)
}

pub(crate) async fn connect(address: SocketAddr) -> http1::SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn request(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("host", "test");
    request.body(Full::new(body.into())).unwrap()
}

pub(crate) async fn text(response: Response<hyper::body::Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// The answer to one request, unless the server goes away.
fn get(address: SocketAddr, path: &str) -> Result<(u16, String), hyper::Error> {
    block_on(async {
        let mut sender = connect(address).await;
        Ok(text(sender.send_request(request(path, "")).await?).await)
    })
}

/// A server for one connection, which answers with `answer` to what `asked` accepts.
fn backend(asked: &'static str, answer: &'static str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut received, mut part) = (String::new(), [0; 1024]);
        while !received.contains(asked) {
            let length = stream.read(&mut part).unwrap();
            assert_ne!(length, 0, "only {received:?}");
            received.push_str(&String::from_utf8_lossy(&part[..length]));
        }
        stream.write_all(answer.as_bytes()).unwrap();
    });
    port
}

#[test]
fn one_connection_carries_many_requests() {
    let served = serve(&[]);
    block_on(async {
        let mut sender = connect(served.address).await;
        for _ in 0..3 {
            sender.ready().await.unwrap();
            let response = sender.send_request(request("/", "")).await.unwrap();
            assert_eq!(text(response).await, (200, "Hello from Wasm\n".to_owned()));
        }
    });
    served.end();
}

#[test]
fn http_2_is_spoken_without_tls() {
    let served = serve(&[]);
    block_on(async {
        let stream = tokio::net::TcpStream::connect(served.address)
            .await
            .unwrap();
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let uri = |body| {
            let request = Request::post(format!("http://{}/echo", served.address));
            request.body(Full::<Bytes>::from(body)).unwrap()
        };
        // At the same time, on the one connection.
        let (mut one, mut two) = (sender.clone(), sender);
        let (one, two) = tokio::join!(one.send_request(uri("one")), two.send_request(uri("two")));
        assert_eq!(text(one.unwrap()).await, (200, "one".to_owned()));
        assert_eq!(text(two.unwrap()).await, (200, "two".to_owned()));
    });
    served.end();
}

#[test]
fn a_body_of_any_length_is_handled() {
    let served = serve(&[]);
    let body = "0123456789abcdef".repeat(1 << 16);
    block_on(async {
        let mut sender = connect(served.address).await;
        let request = request("/echo", body.clone());
        let (status, found) = text(sender.send_request(request).await.unwrap()).await;
        assert!(status == 200 && found == body, "{status} {}", found.len());
    });
    served.end();
}

#[test]
fn handlers_are_given_the_environment_the_files_and_the_output_streams() {
    let served = serve(&["NAME=a name"]);
    assert_eq!(served.get("/given"), (200, "a name from a file".to_owned()));
    assert_eq!(served.get("/log").0, 200);
    served.stdout.wait_for("to standard output\n").unwrap();
    served.stderr.wait_for("to standard error\n").unwrap();
    served.end();
}

#[test]
fn a_trap_is_500_and_one_line_and_the_server_goes_on() {
    let served = serve(&[]);
    assert_eq!(served.get("/trap").0, 500);
    assert_eq!(served.get("/").0, 200);
    served.drain(libc::SIGTERM);
    let errors = served.stderr.text().unwrap();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    for part in ["POST /trap", "unreachable"] {
        assert!(errors.contains(part), "{errors}");
    }
    served.exits(0);
}

#[test]
fn an_instance_handles_as_many_requests_as_it_is_said_to() {
    let counted = |env: &[&str]| {
        let served = serve(env);
        let counts = block_on(async {
            let mut sender = connect(served.address).await;
            let mut counts = String::new();
            for _ in 0..5 {
                let request = request("/count", String::new());
                counts += &text(sender.send_request(request).await.unwrap()).await.1;
            }
            counts
        });
        served.end();
        counts
    };
    assert_eq!(counted(&[]), "1\n1\n1\n1\n1\n");
    assert_eq!(counted(&["SHIMWRIGHT_HTTP_REUSE=2"]), "1\n2\n1\n2\n1\n");
}

#[test]
fn a_trap_ends_the_instance_that_would_be_given_more() {
    let served = serve(&["SHIMWRIGHT_HTTP_REUSE=100"]);
    assert_eq!(served.get("/count"), (200, "1\n".to_owned()));
    assert_eq!(served.get("/trap").0, 500);
    assert_eq!(served.get("/count"), (200, "1\n".to_owned()));
    served.end();
}

#[test]
fn a_request_without_a_host_is_refused() {
    let served = serve(&[]);
    let mut stream = TcpStream::connect(served.address).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 400 "), "{answer}");
    served.end();
}

#[test]
fn no_more_requests_than_allowed_are_handled_at_once() {
    let served = serve(&["SHIMWRIGHT_HTTP_CONCURRENCY=2"]);
    let answers = [served.waiting(), served.begin("/wait")];
    served.stdout.wait_for("waiting\nwaiting\n").unwrap();
    let third = served.begin("/");
    assert_eq!(third.recv_timeout(STILL), Err(RecvTimeoutError::Timeout));
    served.go();
    for answer in answers {
        assert_eq!(answer.recv().unwrap(), (200, "waited\n".to_owned()));
    }
    assert_eq!(third.recv().unwrap().0, 200);
    served.end();
}

/// Requests of several connections at once, all of which succeed. Returns what was said meanwhile.
fn check_load(concurrency: &str) -> String {
    let served = serve(&[&format!("SHIMWRIGHT_HTTP_CONCURRENCY={concurrency}")]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(get(served.address, "/").unwrap().0, 200);
                }
            });
        }
    });
    served.end();
    served.stderr.text().unwrap()
}

#[test]
fn more_clients_than_instances_are_all_answered() {
    assert_eq!(check_load("1"), "");
}

/// So many instances fit into no address space, so each is made by itself, which takes longer.
#[test]
fn instances_that_fit_into_no_pool_are_all_answered_and_that_is_said_once() {
    let said = check_load("65535");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("there is no pool: "), "{said}");
}

fn check_drained(signal: i32) {
    let served = serve(&[]);
    let answer = served.waiting();
    served.drain(signal);
    served.go();
    assert_eq!(answer.recv().unwrap(), (200, "waited\n".to_owned()));
    served.exits(0);
}

#[test]
fn sigterm_lets_requests_finish_and_ends_with_0() {
    check_drained(libc::SIGTERM);
}

#[test]
fn sigint_lets_requests_finish_and_ends_with_0() {
    check_drained(libc::SIGINT);
}

#[test]
fn a_connection_without_a_request_does_not_delay_the_end() {
    let served = serve(&["SHIMWRIGHT_HTTP_GRACE=3600"]);
    let silent = TcpStream::connect(served.address).unwrap();
    block_on(async {
        let mut used = connect(served.address).await;
        let response = used.send_request(request("/", "")).await.unwrap();
        assert_eq!(text(response).await.0, 200);
        served.drain(libc::SIGTERM);
        served.exits(0);
    });
    drop(silent);
}

#[test]
fn a_second_signal_ends_at_once() {
    let served = serve(&["SHIMWRIGHT_HTTP_GRACE=3600"]);
    let answer = served.waiting();
    served.drain(libc::SIGTERM);
    served.shim.kill("a", libc::SIGTERM).unwrap();
    served.exits(143);
    assert!(answer.recv().is_err(), "there was an answer");
}

#[test]
fn a_request_that_never_ends_has_the_grace_period() {
    let served = serve(&["SHIMWRIGHT_HTTP_GRACE=1"]);
    let answer = served.begin("/spin");
    served.stdout.wait_for("spinning\n").unwrap();
    served.shim.kill("a", libc::SIGINT).unwrap();
    served.exits(130);
    assert!(answer.recv().is_err(), "there was an answer");
}

#[test]
fn an_address_in_use_is_125_and_named() {
    let address = address();
    let _holder = TcpListener::bind(address).unwrap();
    let setting = format!("SHIMWRIGHT_HTTP_ADDRESS={address}");
    let (containerd, mut bundle, shim) = prepared(&[&setting]);
    let errors = bundle.stderr().unwrap();
    shim.create(&bundle).unwrap();
    assert_eq!(crate::run(&shim, "a"), 125);
    let text = errors.text().unwrap();
    assert!(text.contains(&address.to_string()), "{text}");
    assert!(text.contains("in use"), "{text}");
    shim.delete("a").unwrap();
    finish(&containerd, &shim);
}

#[test]
fn variables_of_other_shims_are_understood() {
    let address = address();
    let setting = format!("WASMTIME_HTTP_PROXY_SOCKET_ADDR={address}");
    let served = serve_at(address, &[&setting, "WASMTIME_HTTP_BACKLOG=10"]);
    assert_eq!(served.get("/").0, 200);
    served.end();
}
