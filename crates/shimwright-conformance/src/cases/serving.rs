//! Components that handle HTTP requests: how they end, where they connect to, which names they look
//! up.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};

use shimwright_core::{BoxError, Limit};
use shimwright_guests as guest;

use super::given::FILES;
use super::{run, serve};
use crate::case::{Case, Run, SIGTERM};
use crate::serving::Prepared;

/// The component, in whose directory a test says when a request is to be answered.
const HTTP: Run = Run::guest(guest::HTTP_COMPONENT).directory(FILES.unchecked());

/// What the guest answers if it cannot connect.
const NO_ANSWER: &str = "no answer\n";

pub(super) const CASES: &[Case] = &[
    run(
        "component_http_setting",
        "A component that handles HTTP requests is served, unless a setting has no meaning",
        Run::guest(guest::HTTP_COMPONENT)
            .env(&[("SHIMWRIGHT_HTTP_ADDRESS", "nowhere")])
            .fails("SHIMWRIGHT_HTTP_ADDRESS"),
    ),
    serve(
        "http_requests_are_answered",
        "A component that handles HTTP requests is served at `SHIMWRIGHT_HTTP_ADDRESS`",
        HTTP,
        |prepared| {
            let serving = prepared.start()?;
            serving.answers("/", "Hello from Wasm\n")
        },
    ),
    serve(
        "http_sigterm_lets_requests_finish",
        "After SIGTERM no connection is accepted, the requests that have begun are answered, and \
         the status is 0",
        HTTP,
        |prepared| {
            let mut serving = prepared.start()?;
            let answer = serving.begin_waiting()?;
            serving.drain(SIGTERM)?;
            serving.go()?;
            match answer.recv()?? {
                text if text == "waited\n" => serving.ends_with(0),
                text => Err(format!("the answer is {text:?}").into()),
            }
        },
    ),
    serve(
        "http_second_signal_ends_at_once",
        "A second SIGTERM ends it with 143, although a request is not answered",
        HTTP,
        |prepared| {
            let mut serving = prepared.start()?;
            let answer = serving.begin_waiting()?;
            serving.drain(SIGTERM)?;
            serving.signal(SIGTERM)?;
            serving.ends_with(143)?;
            match answer.recv()? {
                Err(_) => Ok(()),
                Ok(text) => Err(format!("the answer is {text:?}").into()),
            }
        },
    ),
    serve(
        "outbound_allows_what_is_listed",
        "With a limit of `outbound` a guest connects to an address that is listed, by TCP and HTTP",
        HTTP.limit(Limit::Outbound, 0),
        |prepared| {
            let (tcp, http) = (answering(PING)?, answering(HTTP_ANSWER)?);
            let serving = prepared.start_with(|run| {
                run.limits.push(outbound(&[tcp, http]));
                Ok(())
            })?;
            serving.answers(&format!("/connect/{tcp}"), PING.answer)?;
            serving.answers(&format!("/fetch/127.0.0.1:{http}"), "answered")
        },
    ),
    serve(
        "outbound_refuses_everything_else",
        "To other addresses no connection is made, by TCP nor HTTP",
        HTTP.limit(Limit::Outbound, 0),
        |prepared| {
            let watched = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            watched.set_nonblocking(true)?;
            let port = watched.local_addr()?.port();
            let other = answering(PING)?;
            let serving = prepared.start_with(|run| {
                run.limits.push(outbound(&[other]));
                Ok(())
            })?;
            serving.answers(&format!("/connect/{port}"), NO_ANSWER)?;
            serving.answers(&format!("/fetch/127.0.0.1:{port}"), NO_ANSWER)?;
            match watched.accept() {
                Ok(_) => Err("a connection was made".into()),
                Err(_) => Ok(()),
            }
        },
    ),
    serve(
        "name_lookup_within_its_limit",
        "A guest that may look names up connects by a name",
        HTTP,
        |prepared| by_name_and_address(prepared, "answered"),
    ),
    serve(
        "name_lookup_refused",
        "With `name_lookup = \"none\"` a guest connects by an address, not by a name",
        HTTP.limit(Limit::NameLookup, 0),
        |prepared| by_name_and_address(prepared, NO_ANSWER),
    ),
];

/// What a server waits for and answers.
#[derive(Clone, Copy)]
struct Exchange {
    question: &'static str,
    answer: &'static str,
}

const PING: Exchange = Exchange {
    question: "ping",
    answer: "pong",
};

const HTTP_ANSWER: Exchange = Exchange {
    question: "\r\n\r\n",
    answer: "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nanswered",
};

/// A server for one connection, which ends with this process at the latest. Returns its port.
fn answering(exchange: Exchange) -> Result<u16, BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let (mut received, mut part) = (String::new(), [0; 1024]);
        while !received.contains(exchange.question) {
            match stream.read(&mut part)? {
                0 => return Ok(()),
                length => received.push_str(&String::from_utf8_lossy(&part[..length])),
            }
        }
        stream.write_all(exchange.answer.as_bytes())
    });
    Ok(port)
}

/// The limit that allows these ports, and replaces another one.
fn outbound(ports: &[u16]) -> (String, String) {
    let allowed = ports.iter().map(|port| format!("127.0.0.1:{port}"));
    let allowed: Vec<_> = allowed.collect();
    ("outbound".to_owned(), allowed.join(" "))
}

/// Has a guest connect by a name, with this outcome, and then by an address.
fn by_name_and_address(prepared: Prepared<'_>, by_name: &str) -> Result<(), BoxError> {
    let [named, numbered] = [answering(HTTP_ANSWER)?, answering(HTTP_ANSWER)?];
    let serving = prepared.start()?;
    serving.answers(&format!("/fetch/localhost:{named}"), by_name)?;
    serving.answers(&format!("/fetch/127.0.0.1:{numbered}"), "answered")
}
