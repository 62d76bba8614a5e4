//! The node's configuration file: limits of guests, the cache, compiling, and the shims.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::cgroup::GroupPath;
use crate::config::options::{MAX_FILE, RuntimeOptions};
use crate::config::read_bounded;
use crate::engine::limits::Limits;
use crate::error::Error;

/// Where the file is, unless [`FILE_VARIABLE`] says otherwise.
const FILE: &str = "/etc/shimwright/config.toml";

/// The variable of containerd's environment that names another file.
pub(crate) const FILE_VARIABLE: &str = "SHIMWRIGHT_CONFIG";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    limits: Limits,
    cache: CacheConfig,
    compile: Compile,
    shim: ShimConfig,
}

/// What compiling and fetching may cost this node. A compiled program is used by all containers, so
/// these are the node's costs, not those of the container that came first: see
/// `docs/decisions/0012-compiling.md`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Compile {
    /// The cgroup below which each compile gets one of its own.
    #[serde(deserialize_with = "below_the_top")]
    cgroup: GroupPath,
    /// How many bytes one compile may use.
    pub(crate) memory: u64,
    /// How many processors one compile may use.
    cpu: f64,
    /// How many compiles may run at once on this node.
    at_once: Option<u16>,
    /// How many seconds one compile may take, and wait for others before that.
    deadline: u32,
    /// How many bytes a module or component may have.
    pub(crate) module_size: u64,
    /// The first of the users that compilers and fetchers are.
    uids: u32,
}

/// The first user of compilers: nobody's by systemd's account of user ids (`UIDS-GIDS.md`), beyond
/// what shadow, kubelet and SSSD hand out by default.
const FIRST_UID: u32 = 2_100_000_000;
/// The most pids there are (`PID_MAX_LIMIT`), each of which gives a user.
const MOST_PIDS: u32 = 1 << 22;
/// More compiles at once than any node has processors for.
const MOST_AT_ONCE: u16 = 1024;
/// No compiler starts with less.
const LEAST_MEMORY: u64 = 64 << 20;

impl Default for Compile {
    fn default() -> Self {
        Self {
            cgroup: GroupPath::top().child("shimwright-compile"),
            // LLVM takes 2 to 3 GiB for PHP.
            memory: 4 << 30,
            cpu: 1.0,
            at_once: None,
            deadline: 600,
            module_size: 512 << 20,
            uids: FIRST_UID,
        }
    }
}

fn below_the_top<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GroupPath, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    let parsed = GroupPath::parse(&path).filter(|_| path.is_absolute());
    parsed.ok_or_else(|| D::Error::custom("compile.cgroup is not an absolute path below the top"))
}

impl Compile {
    fn check(&self) -> Result<(), String> {
        let wrong = [
            (self.memory < LEAST_MEMORY, "memory is less than 64 MiB"),
            (
                !(0.01..=4096.0).contains(&self.cpu),
                "cpu is not between 0.01 and 4096",
            ),
            (
                self.at_once.is_some_and(|n| n == 0 || n > MOST_AT_ONCE),
                "at_once is not between 1 and 1024",
            ),
            (self.deadline == 0, "deadline is 0"),
            (self.module_size == 0, "module_size is 0"),
            (
                self.uids < 1 << 16 || self.uids > i32::MAX.cast_unsigned() - MOST_PIDS,
                "uids is below 65536 or leaves no room for as many users as there are pids",
            ),
        ];
        match wrong.into_iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, what)) => Err(format!("compile.{what}")),
            None => Ok(()),
        }
    }

    pub(crate) fn cgroup(&self) -> &GroupPath {
        &self.cgroup
    }

    /// How many microseconds of processor time there are in each period of so many.
    pub(crate) fn cpu_quota(&self, period: u32) -> u64 {
        let quota = (self.cpu * f64::from(period)).round().max(1000.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be small and positive"
        )]
        let quota = quota as u64;
        quota
    }

    /// How many compiles may run at once: half as many as there are processors, if nothing is said.
    pub(crate) fn at_once(&self) -> u16 {
        let half = || {
            let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            u16::try_from(all / 2)
                .unwrap_or(MOST_AT_ONCE)
                .clamp(1, MOST_AT_ONCE)
        };
        self.at_once.unwrap_or_else(half)
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline.into())
    }

    /// The user of a process of this launcher's: no other launcher of the node has its pid.
    pub(crate) fn uid(&self, launcher: rustix::process::Pid) -> u32 {
        self.uids + launcher.as_raw_nonzero().get().unsigned_abs() % MOST_PIDS
    }

    /// Refuses what is too large, before it is read.
    ///
    /// # Errors
    ///
    /// `Invalid` with both numbers.
    pub(crate) fn check_size(&self, bytes: u64) -> Result<(), Error> {
        if bytes <= self.module_size {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the module has {bytes} bytes, more than compile.module_size = {}",
            self.module_size
        )))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ShimConfig {
    share: Share,
}

/// Whose containers share a shim process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Share {
    /// Those of a pod.
    #[default]
    Pod,
    /// All containers of a namespace of containerd.
    Node,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CacheConfig {
    /// How many bytes of native code are kept at most.
    max_size: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { max_size: 4 << 30 }
    }
}

impl Config {
    /// Reads the file. Not in the shim process.
    ///
    /// # Errors
    ///
    /// A mistake in the file, naming the key; or that a file which was named is not there.
    pub(crate) fn read() -> Result<Self, Error> {
        let named = std::env::var(FILE_VARIABLE).ok();
        let path = named.as_deref().unwrap_or(FILE);
        let text = match read_bounded(path, MAX_FILE) {
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => Vec::new(),
            other => other.map_err(|error| Error::invalid(format!("{path}: {error}")))?,
        };
        let text = std::str::from_utf8(&text)
            .map_err(|_| Error::invalid(format!("{path} is not UTF-8")))?;
        let config: Self = toml::from_str(text)
            .map_err(|error| Error::invalid(format!("{path}: {}", error.message())))?;
        config
            .compile
            .check()
            .map_err(|what| Error::invalid(format!("{path}: {what}")))?;
        Ok(config)
    }

    /// What compiling and fetching may cost.
    pub(crate) fn compile(&self) -> &Compile {
        &self.compile
    }

    /// The limits of every guest of a runtime handler: the node's, narrowed by the handler's.
    ///
    /// # Errors
    ///
    /// A wider limit of the handler, naming the key.
    pub(crate) fn limits(&self, options: &RuntimeOptions) -> Result<Limits, Error> {
        let narrowed = self.limits.narrow(&options.limits, "the runtime options");
        narrowed.map_err(Error::invalid)
    }

    /// How many bytes of native code the cache keeps at most.
    pub(crate) fn cache_size(&self) -> u64 {
        self.cache.max_size
    }

    /// Whose containers share a shim process.
    pub(crate) fn share(&self) -> Share {
        self.shim.share
    }
}
