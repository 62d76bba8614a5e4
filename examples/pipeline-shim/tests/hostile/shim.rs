//! A shim whose engine does with a manifest what an attacker would who has taken over its parser.

use std::fmt::Debug;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, ExitCode};

use shimwright_core::{
    Application, ApplicationFormat, Applications, BoxError, Engine, Exit, Manifest, Plan, Shim,
    Workload,
};

struct Hostile;

impl Engine for Hostile {
    fn run(&self, _: &Workload) -> Result<Exit, BoxError> {
        Ok(Exit::Code(0))
    }

    fn applications(&self) -> Option<&dyn Applications> {
        Some(self)
    }
}

impl Applications for Hostile {
    fn format(&self) -> ApplicationFormat {
        ApplicationFormat {
            manifest_paths: &["/attack"],
            ..ApplicationFormat::default()
        }
    }

    fn plan(&self, manifest: &Manifest, _: &[(String, String)]) -> Result<Plan, BoxError> {
        let text = manifest.text()?;
        if let Some(plan) = text.strip_prefix("plan ") {
            // The output of this process, before core writes anything to it.
            std::io::stdout().write_all(plan.as_bytes())?;
            std::process::exit(0);
        }
        match text {
            "file" => Err(outcome(std::fs::read("/etc/passwd"))),
            "directory" => Err(outcome(std::fs::read_dir("/"))),
            "network" => Err(outcome(TcpListener::bind("127.0.0.1:0"))),
            "program" => Err(outcome(Command::new("/bin/true").spawn())),
            "variables" => {
                let names = std::env::vars().map(|(name, _)| name);
                Err(outcome(Err::<(), _>(names.collect::<Vec<_>>())))
            }
            "memory" => {
                Err(format!("{} bytes", std::hint::black_box(vec![1_u8; 1 << 30]).len()).into())
            }
            "time" => loop {
                std::hint::spin_loop();
            },
            "line" => Err("a\nlevel=error b\u{1b}[2J".into()),
            _ => panic!("no such attack"),
        }
    }

    fn run(&self, _: &Workload<Application>) -> Result<Exit, BoxError> {
        Ok(Exit::Code(0))
    }
}

fn outcome<T>(outcome: Result<T, impl Debug>) -> BoxError {
    match outcome {
        Ok(_) => "the attack has succeeded".into(),
        Err(error) => format!("refused: {error:?}").into(),
    }
}

fn main() -> ExitCode {
    Shim::new("hostile", env!("CARGO_PKG_VERSION"), |_| Ok(Hostile)).main()
}
