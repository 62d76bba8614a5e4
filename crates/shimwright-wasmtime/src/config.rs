//! The one place that builds a [`Config`]: what is compiled with one of these can be loaded with
//! the other, and the fingerprint tells when that stops being true.

use std::num::NonZeroUsize;

use shimwright_core::Kind;
use wasmtime::{Config, Enabled, ModuleVersionStrategy, PoolingAllocationConfig};

/// What one component may have of each; toolchains make about four instances, and one memory.
const CORE_INSTANCES: u32 = 32;
const MEMORIES: u32 = 4;
const TABLES: u32 = 16;
/// Also for the calls that a component of WASI 0.3 takes at once.
const STACKS: u32 = 20;

/// How many bytes of each stay in memory for the next instance: with less the kernel takes pages
/// away and gives them back, zeroed, for each request.
const MEMORY_KEPT: usize = 256 << 10;
const TABLE_KEPT: usize = 16 << 10;
const STACK_KEPT: usize = 64 << 10;
/// How many instances' worth of that stays when there are no requests.
const WARM: u32 = 16;

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

/// Settings for a process that makes an instance for each request of what another one compiled, of
/// which `instances` exist at the same time.
///
/// All that they need is reserved at once, as address space, and what one has left is given to the
/// next. A component that needs more than its part is refused when it is loaded.
pub(crate) fn for_serving(instances: u32) -> wasmtime::Result<Config> {
    let each = |number: u32| instances.saturating_mul(number);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(each(CORE_INSTANCES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_memories(each(MEMORIES))
        .max_memories_per_component(MEMORIES)
        .total_tables(each(TABLES))
        .max_tables_per_component(TABLES)
        .total_stacks(each(STACKS))
        .total_gc_heaps(instances)
        .linear_memory_keep_resident(MEMORY_KEPT)
        .table_keep_resident(TABLE_KEPT)
        .async_stack_keep_resident(STACK_KEPT)
        .max_unused_warm_slots(WARM)
        // Where the kernel can (Linux 6.7), only the pages that were written are put back.
        .pagemap_scan(Enabled::Auto);
    let mut config = for_loading(Kind::Component)?;
    config.allocation_strategy(pool);
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
    use wasmtime::Engine;
    use wasmtime::component::Component;

    fn compiled(component: &str) -> Vec<u8> {
        let engine = Engine::new(&for_compiling(Kind::Component).unwrap()).unwrap();
        let wasm = wat::parse_str(component).unwrap();
        engine.precompile_component(&wasm).unwrap()
    }

    fn pooled(instances: u32, compiled: &[u8]) -> wasmtime::Result<Component> {
        let engine = Engine::new(&for_serving(instances)?)?;
        #[expect(unsafe_code, reason = "the loader of native code")]
        // SAFETY: it was compiled by `compiled`.
        unsafe {
            Component::deserialize(&engine, compiled)
        }
    }

    #[test]
    fn a_pool_takes_what_was_compiled_without_one() {
        let small =
            compiled("(component (core module $m (memory 1)) (core instance (instantiate $m)))");
        pooled(116, &small).unwrap();
    }

    #[test]
    fn what_does_not_fit_into_a_pool_is_refused_before_there_are_instances() {
        let memory = "(core instance (instantiate $m))".repeat(5);
        let large = compiled(&format!("(component (core module $m (memory 1)) {memory})"));
        let error = pooled(116, &large).unwrap_err().to_string();
        assert!(error.contains("memories"), "{error}");
        // A pool for so many needs more than the address space there is.
        let small = compiled("(component)");
        assert!(pooled(u32::from(u16::MAX), &small).is_err());
    }

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
