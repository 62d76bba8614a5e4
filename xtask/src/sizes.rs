//! How large the shims are, and how large they may become before somebody has to ask why.

use std::path::Path;

use shimwright_testenv::error::{Context, Result};

use crate::tally::Tally;

/// The most that a shim of the release profile may have, in MiB of its file: a twentieth more than
/// it had when the number was written.
const BUDGETS: [(&str, u64); 4] = [
    ("wasmtime", 49),
    ("wasmer", 53),
    ("wasmedge", 20),
    ("wasmi", 25),
];

/// The name of a shim's executable.
pub(crate) fn shim(engine: &str) -> String {
    format!("containerd-shim-{engine}-v1")
}

/// The size of a file in bytes.
pub(crate) fn of(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path);
    Ok(metadata
        .context(format_args!("look at {}", path.display()))?
        .len())
}

/// A size for people.
pub(crate) fn told(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A test for each shim in `directory`.
pub(crate) fn check(directory: &Path) -> Result<Tally> {
    let mut tally = Tally::default();
    for (engine, most) in BUDGETS {
        let bytes = of(&directory.join(shim(engine)))?;
        let what = format!("{} is {} and at most {most} MiB", shim(engine), told(bytes));
        if bytes <= most << 20 {
            println!("  ok      {what}");
            tally.passed += 1;
        } else {
            println!("  FAILED  {what}");
            println!("      find out what has grown, or raise the budget in xtask/src/sizes.rs");
            tally.failed += 1;
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_beyond_its_budget_fails() {
        let directory = tempfile::tempdir().unwrap();
        for (engine, most) in BUDGETS {
            let file = std::fs::File::create(directory.path().join(shim(engine))).unwrap();
            file.set_len(most << 20).unwrap();
        }
        let tally = check(directory.path()).unwrap();
        assert_eq!((tally.passed, tally.failed), (4, 0));
        let file = directory.path().join(shim("wasmi"));
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_len((25 << 20) + 1).unwrap();
        assert_eq!(check(directory.path()).unwrap().failed, 1);
    }
}
