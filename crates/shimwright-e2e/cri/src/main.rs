//! Calls containerd as a kubelet does: `shimwright-cri SOCKET METHOD` makes one call of the
//! Container Runtime Interface, and `shimwright-cri attach URL` uses what `Exec` has answered.
#![allow(
    clippy::print_stdout,
    reason = "a command-line tool talks to its user on stdout"
)]

mod attach;
mod call;
mod message;

use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "\
usage: shimwright-cri call SOCKET METHOD JSON
           one call of the runtime that listens on SOCKET; prints its reply
       shimwright-cri attach URL INPUT
           the streams and the exit code of a streamed exec, which is given INPUT";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["call", socket, method, request] => call::call(socket, method, request),
        ["attach", url, input] => attach::attach(url, input),
        _ => Err(USAGE.into()),
    };
    result.unwrap_or_else(|err| {
        eprintln!("error: {err}");
        ExitCode::FAILURE
    })
}
