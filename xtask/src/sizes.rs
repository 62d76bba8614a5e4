//! How large the shims are, and how large they may become before somebody has to ask why.

use std::path::Path;

use shimwright_engines::Engine;
use shimwright_testenv::error::{Context, Result};

use crate::tally::Tally;

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
    for &Engine { shim, budget, .. } in shimwright_engines::ALL {
        let bytes = of(&directory.join(shim))?;
        let what = format!("{shim} is {} and at most {budget} MiB", told(bytes));
        if bytes <= budget << 20 {
            println!("  ok      {what}");
            tally.passed += 1;
        } else {
            println!("  FAILED  {what}");
            println!(
                "      find out what has grown, or raise the budget in crates/shimwright-engines"
            );
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
        for engine in shimwright_engines::ALL {
            let file = std::fs::File::create(directory.path().join(engine.shim)).unwrap();
            file.set_len(engine.budget << 20).unwrap();
        }
        let tally = check(directory.path()).unwrap();
        assert_eq!(
            (tally.passed, tally.failed),
            (shimwright_engines::ALL.len(), 0)
        );
        let engine = shimwright_engines::DEFAULT;
        let file = directory.path().join(engine.shim);
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_len((engine.budget << 20) + 1).unwrap();
        assert_eq!(check(directory.path()).unwrap().failed, 1);
    }
}
