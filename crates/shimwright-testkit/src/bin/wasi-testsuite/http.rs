//! As much of an HTTP/1.1 client (RFC 9112) as the tests need: one request for each connection.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use shimwright_testkit::{DEADLINE, Result};

use crate::spec::Request;

/// What a server has answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// Sends a request and reads the answer.
///
/// # Errors
///
/// If there is no answer, or none that is HTTP.
pub(crate) fn send(server: SocketAddr, request: &Request) -> Result<Answer> {
    let mut connection = TcpStream::connect(server)?;
    connection.set_read_timeout(Some(DEADLINE))?;
    let mut head = format!(
        "{} {} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\ncontent-length: {}\r\n",
        request.method,
        request.path,
        request.body.len()
    );
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    connection.write_all(format!("{head}\r\n{}", request.body).as_bytes())?;
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes)?;
    parse(&String::from_utf8(bytes)?)
}

fn parse(text: &str) -> Result<Answer> {
    let not_http = || format!("no answer of HTTP: {text:?}");
    let (head, rest) = text.split_once("\r\n\r\n").ok_or_else(not_http)?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|line| line.split(' ').next());
    let status = status.ok_or_else(not_http)?.parse()?;
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers
        .get("transfer-encoding")
        .is_some_and(|coding| coding == "chunked");
    let body = if chunked {
        dechunk(rest).ok_or_else(not_http)?
    } else {
        rest.to_owned()
    };
    Ok(Answer {
        status,
        headers,
        body,
    })
}

/// What chunks hold together. Trailers are dropped.
fn dechunk(mut text: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(rest.get(..size)?);
        text = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let answer = parse("HTTP/1.1 404 Not Found\r\nContent-Type: a/b\r\n\r\nhey\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "hey\n"));
        assert_eq!(answer.headers["content-type"], "a/b");
    }

    #[test]
    fn chunks_are_joined() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = parse(&format!("{head}4\r\nfour\r\n1;x\r\n!\r\n0\r\na: b\r\n\r\n")).unwrap();
        assert_eq!(answer.body, "four!");
        assert!(parse(&format!("{head}4\r\nfo")).is_err());
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        assert!(parse("").is_err());
        assert!(parse("220 hello\r\n\r\n").is_err());
    }
}
