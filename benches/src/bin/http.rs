//! Measures a component that handles HTTP requests: requests per second and their times, over
//! connections that are kept open, through a shim and, beside it, through `wasmtime serve`.
//!
//! The numbers are printed as JSON on standard output, and for people on standard error.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use shimwright_testkit::{Containerd, Error, Result, poll};

const USAGE: &str =
    "usage: http --shim PATH --guest PATH [-n REQUESTS] [-c CONNECTIONS] [--wasmtime PATH]";

/// The requests are made in so many turns, so that both servers see the same machine.
const ROUNDS: usize = 10;

fn main() -> ExitCode {
    let outcome = parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments));
    let written = outcome.and_then(|report| {
        writeln!(std::io::stdout(), "{report:#}")?;
        Ok(())
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug)]
struct Arguments {
    shim: PathBuf,
    guest: PathBuf,
    requests: usize,
    connections: usize,
    wasmtime: Option<PathBuf>,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments {
        shim: PathBuf::new(),
        guest: PathBuf::new(),
        requests: 20_000,
        connections: 8,
        wasmtime: None,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--shim" => arguments.shim = value()?.into(),
            "--guest" => arguments.guest = value()?.into(),
            "-n" => arguments.requests = value()?.parse()?,
            "-c" => arguments.connections = value()?.parse()?,
            "--wasmtime" => arguments.wasmtime = Some(value()?.into()),
            _ => return Err(USAGE.into()),
        }
    }
    let complete = arguments.shim != Path::new("") && arguments.guest != Path::new("");
    if !complete
        || arguments.connections == 0
        || arguments.requests < arguments.connections * ROUNDS
    {
        return Err(USAGE.into());
    }
    Ok(arguments)
}

fn run(arguments: &Arguments) -> Result<Value> {
    let containerd = Containerd::with_shim(&arguments.shim)?;
    let address = free_address()?;
    let guest = std::fs::read(&arguments.guest)?;
    let bundle = containerd
        .bundle("served")?
        .file("/guest.wasm", &guest, 0o755)?
        .args(&["/guest.wasm"])?
        .env(&[&format!("SHIMWRIGHT_HTTP_ADDRESS={address}")])?
        .spec(|spec| {
            if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
                namespaces.retain(|namespace| namespace["type"] != "network");
            }
        })?;
    let shim = containerd.start(&bundle)?;
    shim.create(&bundle)?;
    shim.start("served")?;
    let ours = measured(arguments, address);
    shim.kill("served", 9)?;
    shim.wait("served")?;
    shim.delete("served")?;
    shim.shutdown();
    ours
}

/// Measures the shim's server, and the other one if there is one.
fn measured(arguments: &Arguments, address: SocketAddr) -> Result<Value> {
    let other = arguments.wasmtime.as_deref();
    let other = other
        .map(|wasmtime| Other::start(wasmtime, &arguments.guest))
        .transpose()?;
    let servers = [Some(address), other.as_ref().map(|other| other.address)];
    let mut measurements = [Measurement::default(), Measurement::default()];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    for address in servers.iter().flatten() {
        poll(|| TcpStream::connect(address).ok()).ok_or("a server does not listen")?;
        // What is done once is not to be measured.
        runtime.block_on(load(*address, arguments.connections, arguments.connections))?;
    }
    for _ in 0..ROUNDS {
        for (server, measurement) in servers.iter().zip(&mut measurements) {
            if let Some(address) = server {
                let requests = arguments.requests / ROUNDS;
                let begin = Instant::now();
                let times = runtime.block_on(load(*address, arguments.connections, requests))?;
                measurement.seconds += begin.elapsed().as_secs_f64();
                measurement.times.extend(times);
            }
        }
    }
    let [mut ours, mut theirs] = measurements;
    let mut report = json!({
        "connections": arguments.connections,
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "shim": ours.summary("shim"),
    });
    if other.is_some() {
        report["wasmtime_serve"] = theirs.summary("wasmtime serve");
        let rate = ours.rate() / theirs.rate();
        let p99 = ours.quantile(0.99) / theirs.quantile(0.99);
        eprintln!("the shim: {rate:.2} times the requests per second, {p99:.2} times the p99");
        report["ratio_of_rates"] = json!(rate);
        report["ratio_of_p99"] = json!(p99);
    }
    Ok(report)
}

/// Makes so many requests, divided among connections, and returns the milliseconds of each.
async fn load(address: SocketAddr, connections: usize, requests: usize) -> Result<Vec<f64>> {
    let requests = requests / connections;
    let clients: Vec<_> = (0..connections)
        .map(|_| tokio::spawn(client(address, requests)))
        .collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    Ok(times)
}

/// One connection, on which one request follows another.
async fn client(address: SocketAddr, requests: usize) -> Result<Vec<f64>> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut times = Vec::new();
    for _ in 0..requests {
        let request = Request::get("/").header("host", "bench");
        let request = request.body(Empty::<Bytes>::new())?;
        let begin = Instant::now();
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            return Err(Error::from(format!("the answer is {}", response.status())));
        }
        response.into_body().collect().await?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

#[derive(Debug, Default)]
struct Measurement {
    times: Vec<f64>,
    seconds: f64,
}

impl Measurement {
    fn rate(&self) -> f64 {
        self.times.len() as f64 / self.seconds
    }

    /// The milliseconds below which this part of the requests took, once [`Self::summary`] has
    /// sorted them.
    fn quantile(&self, part: f64) -> f64 {
        let last = self.times.len().saturating_sub(1);
        let index = (last as f64 * part).round() as usize;
        self.times.get(index).copied().unwrap_or(f64::NAN)
    }

    fn summary(&mut self, name: &str) -> Value {
        self.times.sort_by(f64::total_cmp);
        let (rate, number) = (self.rate(), self.times.len());
        let [median, p99] = [0.5, 0.99].map(|part| self.quantile(part));
        eprintln!(
            "{name}: {rate:.0} requests/s, median {median:.2} ms, p99 {p99:.2} ms of {number}"
        );
        json!({ "requests_per_second": rate, "median_ms": median, "p99_ms": p99 })
    }
}

/// `wasmtime serve` with what a container's guest is given too.
struct Other {
    process: Child,
    address: SocketAddr,
}

impl Other {
    fn start(wasmtime: &Path, guest: &Path) -> Result<Self> {
        let address = free_address()?;
        let process = Command::new(wasmtime)
            .args(["serve", "-Scli,inherit-network", "--dir", "/", "--addr"])
            .arg(address.to_string())
            .arg(guest)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { process, address })
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address on which nobody listens.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}
