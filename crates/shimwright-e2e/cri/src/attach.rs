//! A streamed exec: its three streams and its end come as messages of one WebSocket, the first
//! byte of each says which. This is version 4 of Kubernetes' `remotecommand` protocol.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, Message};

use crate::Result;

const PROTOCOL: HeaderValue = HeaderValue::from_static("v4.channel.k8s.io");
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const SIZE: u8 = 4;

/// Columns and lines of the terminal, if the process has one: no default of anybody.
const TERMINAL: (u16, u16) = (91, 33);

/// Attaches to the process of an `Exec`, gives it `input`, and ends with its exit code.
pub(crate) fn attach(url: &str, input: &str) -> Result<ExitCode> {
    let mut request = url.replacen("http", "ws", 1).into_client_request()?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", PROTOCOL);
    let (mut socket, _) = tungstenite::connect(request)?;
    let (width, height) = TERMINAL;
    let size = json!({ "Width": width, "Height": height }).to_string();
    for (channel, text) in [(SIZE, size.as_str()), (STDIN, input)] {
        if !text.is_empty() {
            socket.send(Message::binary([&[channel], text.as_bytes()].concat()))?;
        }
    }
    let mut status = None;
    loop {
        let message = match socket.read() {
            Ok(message) => message.into_data(),
            Err(Error::ConnectionClosed) => break,
            // The server may close the connection without a word.
            Err(_) if status.is_some() => break,
            Err(err) => return Err(err.into()),
        };
        match message.split_first() {
            Some((&STDOUT, text)) => io::stdout().write_all(text)?,
            Some((&STDERR, text)) => io::stderr().write_all(text)?,
            Some((&STATUS, text)) if !text.is_empty() => {
                status = Some(serde_json::from_slice(text)?);
            }
            _ => {}
        }
    }
    exit_code(&status.ok_or("the connection was closed without a status")?)
}

/// The exit code from Kubernetes' `Status`, which has it as text among the causes of a failure.
fn exit_code(status: &Value) -> Result<ExitCode> {
    if status["status"] == "Success" {
        return Ok(ExitCode::SUCCESS);
    }
    let causes = status["details"]["causes"].as_array();
    let code = causes
        .into_iter()
        .flatten()
        .find(|cause| cause["reason"] == "ExitCode")
        .and_then(|cause| cause["message"].as_str()?.parse::<u8>().ok());
    let code = code.ok_or_else(|| status.to_string())?;
    Ok(ExitCode::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_its_exit_code() {
        let cause = json!({ "reason": "ExitCode", "message": "7" });
        let status = json!({ "status": "Failure", "details": { "causes": [cause] } });
        assert_eq!(exit_code(&status).unwrap(), ExitCode::from(7));
        let success = json!({ "metadata": {}, "status": "Success" });
        assert_eq!(exit_code(&success).unwrap(), ExitCode::SUCCESS);
    }

    #[test]
    fn another_failure_is_an_error() {
        let status = json!({ "status": "Failure", "message": "no such process" });
        let err = exit_code(&status).unwrap_err().to_string();
        assert!(err.contains("no such process"), "{err}");
    }
}
