//! Every scenario with a real shim, in small: its figures are there and make sense, and nothing is
//! left of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use shimwright_guests::{ARGS, Guest, HELLO, HTTP_COMPONENT, IDLE, TRAP};
use shimwright_testkit::{SHIM_DIR_VARIABLE, poll};
use tempfile::TempDir;

/// The program, and files for it.
struct Scenario {
    directory: TempDir,
    shim: PathBuf,
}

impl Scenario {
    fn new() -> Self {
        let shims = std::env::var_os(SHIM_DIR_VARIABLE)
            .unwrap_or_else(|| panic!("{SHIM_DIR_VARIABLE} is not set: use `cargo xtask test`"));
        Self {
            directory: tempfile::tempdir().unwrap(),
            shim: Path::new(&shims).join(shimwright_engines::DEFAULT.shim),
        }
    }

    fn guest(&self, guest: Guest) -> String {
        let path = self.directory.path().join(guest.name());
        fs::write(&path, guest.wasm()).unwrap();
        path.to_string_lossy().into_owned()
    }

    fn start(&self, name: &str, options: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_scenario"))
            .arg(name)
            .arg("--shim")
            .arg(&self.shim)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn report(&self, name: &str, options: &[&str]) -> Value {
        let child = self.start(name, options);
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        assert_eq!(left_by(pid), Vec::<PathBuf>::new());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// What a scenario keeps in memory as long as it runs.
fn left_by(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("shimwright-test-{pid}-");
    [
        "/dev/shm",
        "/run",
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/memory",
    ]
    .iter()
    .filter_map(|place| fs::read_dir(place).ok())
    .flatten()
    .map(|entry| entry.unwrap().path())
    .filter(|path| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(&prefix)
    })
    .collect()
}

/// The median of a measurement, which has so many samples.
fn median(measurement: &Value, number: u64) -> f64 {
    assert_eq!(measurement["number"], number, "{measurement}");
    let [q1, median, q3] = ["q1", "median", "q3"].map(|name| measurement[name].as_f64().unwrap());
    assert!(0.0 < q1 && q1 <= median && median <= q3, "{measurement}");
    median
}

#[test]
fn a_cold_start_takes_longer_than_a_warm_one() {
    let scenario = Scenario::new();
    let guest = scenario.guest(HELLO);
    let report = scenario.report("startup", &["--guest", &guest, "-n", "2"]);
    let create = ["cold", "warm"].map(|kind| median(&report[kind]["create"], 2));
    assert!(create[0] > create[1], "{create:?}");
    let warm = &report["warm"];
    assert!(median(&warm["total"], 2) > median(&warm["create"], 2));
    assert!(median(&warm["first_output"], 2) > 0.0);
}

#[test]
fn tasks_of_several_clients_and_of_another_program_are_counted() {
    let scenario = Scenario::new();
    let guest = scenario.guest(HELLO);
    let other = scenario.guest(ARGS);
    let options = [
        "--guest",
        &guest,
        "-n",
        "4",
        "-c",
        "2",
        "--other",
        &other,
        "--other-arg",
        "-n",
    ];
    let report = scenario.report("churn", &options);
    median(&report["shim"]["task"], 4);
    median(&report["other"]["create"], 4);
    assert!(median(&report["tasks_per_second"], 1) > 1.0);
}

#[test]
fn memory_and_starts_of_idle_containers_are_measured() {
    let scenario = Scenario::new();
    let guest = scenario.guest(IDLE);
    let options = ["--guest", &guest, "-n", "3", "--shared"];
    let report = scenario.report("idle", &options);
    median(&report["start"], 3);
    let memory = &report["memory"][0];
    assert_eq!(memory["shim"]["processes"], 1);
    assert_eq!(memory["runner"]["processes"], 3);
    let runner = median(&memory["runner"]["pss_per_container"], 1);
    assert!(median(&memory["pss_per_container"], 1) > runner);
}

#[test]
fn requests_are_answered_and_counted() {
    let scenario = Scenario::new();
    let guest = scenario.guest(HTTP_COMPONENT);
    let options = ["--guest", &guest, "-n", "40", "-c", "2"];
    let report = scenario.report("http", &options);
    median(&report["shim"]["request"], 40);
    median(&report["shim"]["requests_per_second"], 10);
}

#[test]
fn each_work_is_done_with_its_checksum() {
    let report = Scenario::new().report("compute", &["-n", "1"]);
    for (work, checksum) in [
        ("integer", "0000000000009323"),
        ("float", "00000000b5654a49"),
        ("memory", "00000813ed600dd2"),
        ("json", "28e39d05c2d55bfe"),
    ] {
        median(&report[work]["shim"], 1);
        assert_eq!(report[work]["checksum"], checksum, "{work}");
    }
}

#[test]
fn an_interrupt_leaves_nothing() {
    let scenario = Scenario::new();
    let guest = scenario.guest(IDLE);
    let child = scenario.start("idle", &["--guest", &guest, "-n", "5000"]);
    let pid = child.id();
    let containers = PathBuf::from(format!("/dev/shm/shimwright-test-{pid}-0/bundles/t5"));
    poll(|| containers.exists().then_some(())).unwrap();
    assert!(
        Command::new("kill")
            .arg(pid.to_string())
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(told.contains("interrupted"), "{told}");
    assert_eq!(left_by(pid), Vec::<PathBuf>::new());
}

#[test]
fn a_program_that_fails_is_named_as_the_reason() {
    let scenario = Scenario::new();
    let guest = scenario.guest(TRAP);
    let output = scenario
        .start("churn", &["--guest", &guest, "-n", "1"])
        .wait_with_output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("the program ended with 134"), "{told}");
}
