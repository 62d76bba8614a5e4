//! A component that handles HTTP requests: requests per second and their times, over connections
//! that are kept open, through a shim and, beside it, through `wasmtime serve`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use shimwright_testkit::{Error, poll};

use crate::driver::{self, Program};
use crate::stats::{MILLISECONDS, PER_SECOND, Samples};
use crate::{Result, interrupt};

/// The requests are made in so many turns, so that both servers see the same machine.
pub const ROUNDS: usize = 10;

/// How long the answers to all requests of a round may take.
const ANSWERED: Duration = Duration::from_secs(2 * 60);

/// What is measured.
#[derive(Debug)]
pub struct Options {
    /// The shim's executable.
    pub shim: PathBuf,
    /// The component.
    pub guest: PathBuf,
    /// How many requests, at least one for each connection in each round.
    pub requests: usize,
    /// How many connections.
    pub connections: usize,
    /// How many requests an instance is given, if not as many as usual.
    pub reuse: Option<usize>,
    /// The command line of Wasmtime.
    pub wasmtime: Option<PathBuf>,
}

/// Makes the requests.
///
/// # Errors
///
/// If one of them is not answered with success.
pub fn run(options: &Options) -> Result<Value> {
    if options.requests < options.connections * ROUNDS {
        let least = options.connections * ROUNDS;
        return Err(format!("so many connections need at least {least} requests").into());
    }
    let containerd = driver::containerd(&options.shim, None)?;
    let address = free_address()?;
    // The second is what other shims call it.
    let mut env = vec![
        format!("SHIMWRIGHT_HTTP_ADDRESS={address}"),
        format!("WASMTIME_HTTP_PROXY_SOCKET_ADDR={address}"),
    ];
    env.extend(
        options
            .reuse
            .map(|reuse| format!("SHIMWRIGHT_HTTP_REUSE={reuse}")),
    );
    let env: Vec<_> = env.iter().map(String::as_str).collect();
    let bundle = Program::read(&options.guest)?
        .bundle(&containerd, "served", "served")?
        .env(&env)?
        .spec(|spec| {
            if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
                namespaces.retain(|namespace| namespace["type"] != "network");
            }
        })?;
    let (shim, _) = driver::start(&containerd, &bundle)?;
    driver::create(&shim, &bundle)?;
    shim.start("served")?;
    let ours = measured(options, address);
    shim.kill("served", 9)?;
    shim.wait("served")?;
    shim.delete("served")?;
    shim.shutdown();
    ours
}

/// Measures the shim's server, and the other one if there is one.
fn measured(options: &Options, address: SocketAddr) -> Result<Value> {
    let other = options.wasmtime.as_deref();
    let other = other
        .map(|wasmtime| Other::start(wasmtime, &options.guest))
        .transpose()?;
    let servers = [Some(address), other.as_ref().map(|other| other.address)];
    let mut measurements = [Measurement::new(), Measurement::new()];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    for address in servers.iter().flatten() {
        poll(|| TcpStream::connect(address).ok()).ok_or("a server does not listen")?;
        // What is done once is not to be measured.
        runtime.block_on(load(*address, options.connections, options.connections))?;
    }
    for _ in 0..ROUNDS {
        for (server, measurement) in servers.iter().zip(&mut measurements) {
            if let Some(address) = server {
                let requests = options.requests / ROUNDS;
                interrupt::check()?;
                let begin = Instant::now();
                let times = runtime.block_on(load(*address, options.connections, requests))?;
                let seconds = begin.elapsed().as_secs_f64();
                measurement.rates.push(times.len() as f64 / seconds);
                measurement.times.extend(times);
            }
        }
    }
    let [ours, theirs] = measurements;
    let mut report = json!({
        "connections": options.connections,
        "shim": ours.summary()?,
    });
    if other.is_some() {
        report["wasmtime_serve"] = theirs.summary()?;
        let rate = ours.rates.median() / theirs.rates.median();
        let p99 = ours.times.quantile(0.99) / theirs.times.quantile(0.99);
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
    let answered = async {
        for client in clients {
            times.extend(client.await??);
        }
        Ok::<_, Error>(())
    };
    tokio::time::timeout(ANSWERED, answered)
        .await
        .map_err(|_| format!("not all requests are answered within {ANSWERED:?}"))??;
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

/// What has been asked of one server.
struct Measurement {
    times: Samples,
    /// Of each round.
    rates: Samples,
}

impl Measurement {
    fn new() -> Self {
        Self {
            times: Samples::new(MILLISECONDS),
            rates: Samples::new(PER_SECOND),
        }
    }

    fn summary(&self) -> Result<Value> {
        Ok(json!({
            "request": self.times.summary()?,
            "requests_per_second": self.rates.summary()?,
        }))
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
