//! The one place that builds a [`Config`]: what is compiled with one of these can be loaded with
//! the other, and the fingerprint tells when that stops being true.

use std::num::NonZeroUsize;

use shimwright_core::Kind;
use wasmtime::{Config, ModuleVersionStrategy};

/// Settings for a process that only compiles.
pub(crate) fn for_compiling(kind: Kind) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config
        // Wasmtime by itself accepts code of its whole major version, and so would keep code that
        // a security fix of the compiler was made for.
        .module_version(ModuleVersionStrategy::Custom(
            wasmtime_environ::VERSION.to_owned(),
        ))?
        // A trap is reported in one line: it needs the name of one function and no positions.
        .wasm_backtrace_max_frames(NonZeroUsize::new(1))
        .generate_address_map(false)
        // Only a native debugger or profiler would read these tables, and registering them makes
        // pages private.
        .native_unwind_info(false)
        // Only components make concurrent calls; a module's store need not be prepared for them.
        .concurrency_support(kind == Kind::Component);
    Ok(config)
}

/// Settings for a process that compiles a guest and then runs it.
pub(crate) fn for_compiling_in_place(kind: Kind) -> wasmtime::Result<Config> {
    let mut config = for_compiling(kind)?;
    // The compiler's threads would stay as long as the guest.
    config.parallel_compilation(false);
    Ok(config)
}

/// Settings for a process that runs what another one compiled.
pub(crate) fn for_loading(kind: Kind) -> wasmtime::Result<Config> {
    let mut config = for_compiling(kind)?;
    config.enable_compiler(false);
    Ok(config)
}

/// Names everything that compiled code depends on. Needs no engine, as it is asked for at every
/// create.
pub(crate) fn fingerprint() -> String {
    let settings = [Kind::Module, Kind::Component].map(|kind| match for_compiling(kind) {
        Ok(config) => format!("{config:?}"),
        // Compiling would fail with this error too, so nothing is ever stored under it.
        Err(error) => error.to_string(),
    });
    format!(
        "wasmtime {}; {} {}; {}; {}",
        wasmtime_environ::VERSION,
        std::env::consts::ARCH,
        std::env::consts::OS,
        cpu_features().join(" "),
        settings.join("; "),
    )
}

/// The CPU features that the compiler looks for on this architecture and this machine has.
fn cpu_features() -> Vec<&'static str> {
    macro_rules! detect {
        ($detect:ident: $($feature:tt)*) => {
            [$(($feature, std::arch::$detect!($feature))),*]
        };
    }
    #[cfg(target_arch = "x86_64")]
    let features = detect!(is_x86_feature_detected:
        "cmpxchg16b" "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "avx2" "fma" "avxvnni" "bmi1"
        "bmi2" "avx512bitalg" "avx512dq" "avx512f" "avx512vl" "avx512vbmi" "avx512vnni" "lzcnt");
    #[cfg(target_arch = "aarch64")]
    let features = detect!(is_aarch64_feature_detected:
        "lse" "paca" "fp16" "dotprod" "i8mm");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let features: [(&str, bool); 0] = [];

    features
        .into_iter()
        .filter(|(_, found)| *found)
        .map(|(feature, _)| feature)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_the_same_each_time() {
        assert_eq!(fingerprint(), fingerprint());
    }

    #[test]
    fn fingerprint_names_version_target_and_settings() {
        let fingerprint = fingerprint();
        for part in [
            wasmtime_environ::VERSION,
            std::env::consts::ARCH,
            "generate_address_map",
        ] {
            assert!(fingerprint.contains(part), "{part} is not in {fingerprint}");
        }
    }
}
