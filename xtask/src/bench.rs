//! `cargo xtask bench`: every scenario of `benches` with one shim, beside what it is compared with,
//! and which targets are met. What each figure means: `docs/benchmarks.md`.

mod baseline;
mod measure;
mod options;
mod target;

use std::fs;
use std::process::ExitCode;

use serde_json::Value;
use shimwright_testenv::debian;
use shimwright_testenv::error::{Context, Result, ensure};

use measure::Bench;

pub(crate) use options::Options;

pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    // Before a long run, because a path may be mistyped.
    let baseline = options.baseline.as_ref().map(|path| -> Result<Value> {
        let doing = format!("read {}", path.display());
        let text = fs::read_to_string(path).context(&doing)?;
        serde_json::from_str(&text).context(&doing)
    });
    let baseline = baseline.transpose()?;
    for path in options.programs() {
        ensure!(path.is_file(), "there is no {}", path.display());
    }
    debian::require_root("bench")?;
    debian::install_missing()?;
    debian::install_command("crun", "crun")?;

    let report = Bench::prepare(options)?.run()?;
    if let Some(path) = &options.save {
        let text = format!("{report:#}\n");
        fs::write(path, text).context(format_args!("write {}", path.display()))?;
    }
    let rows = target::rows(&report);
    println!("\n{}", target::table(&rows));
    let met = rows.iter().filter(|row| row.is_met()).count();
    let judged = rows.iter().filter(|row| row.is_judged()).count();
    println!(
        "{met} of {judged} targets are met; what a peer is needed for is not judged without one"
    );
    if let Some(baseline) = &baseline {
        println!("\n{}", baseline::compared(baseline, &report));
    }
    Ok(ExitCode::SUCCESS)
}
