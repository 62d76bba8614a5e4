//! `delete`: removes what a dead shim has left of one container, and reports its exit status.
//!
//! containerd calls it whenever it has lost a shim, possibly twice, possibly while nothing is
//! there, and waits 5 seconds. It prints a `DeleteResponse`, and nothing else.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use containerd_shim::Flags;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};

use super::print;
use super::socket::{self, Socket};
use super::start::address_in;
use crate::cgroup::{GroupPath, Hierarchies};
use crate::config::bundle::{Bundle, group};
use crate::config::record::Record;
use crate::container::{cleanup, rootfs};
use crate::engine::exit::Status;
use crate::error::{Context, Error};
use crate::sys;

/// How long a connection has to last to be one to a shim process that lives.
const LIVELINESS_BOUND: Duration = Duration::from_millis(300);

pub(super) fn run(flags: &Flags) -> Result<(), Error> {
    let directory = if flags.bundle.is_empty() {
        std::env::current_dir().unwrap_or_default()
    } else {
        PathBuf::from(&flags.bundle)
    };
    let bundle = Bundle::new(directory);
    let record = bundle.record().unwrap_or_else(|| Record::new(&flags.id));
    let cleaned = clean(&bundle, record.clone());
    remove_dead_socket(&bundle, flags);
    cleaned?;
    let response = DeleteResponse {
        pid: record.init.map_or(0, |init| init.pid.unsigned_abs()),
        exit_status: Status::KILLED.into(),
        exited_at: MessageField::some(SystemTime::now().into()),
        ..Default::default()
    };
    print(response.write_to_bytes().context("encode the answer")?)
}

fn clean(bundle: &Bundle, mut record: Record) -> Result<(), Error> {
    // A shim that died while creating may not have recorded its cgroups yet.
    if record.init.is_none()
        && let Some(path) = cgroups_path(bundle)
    {
        record.cgroups = Hierarchies::discover()
            .and_then(|hierarchies| hierarchies.at(&path))
            .context("find the cgroups")?
            .that_exist();
    }
    cleanup::undo(bundle, &record, cleanup::BOUND)?;
    // Also what containerd or an older shim mounted there.
    let rootfs = bundle.rootfs();
    rootfs::unmount(&rootfs).with_context(|| format!("unmount {}", rootfs.display()))
}

fn cgroups_path(bundle: &Bundle) -> Option<GroupPath> {
    let spec = bundle.spec().ok()?;
    GroupPath::parse(spec.linux().as_ref()?.cgroups_path().as_deref()?)
}

/// The socket may serve other containers of the pod: it is removed only if nobody answers.
///
/// A process that is being killed closes its descriptors one after the other, so its socket may
/// still take a connection, which then breaks; one that lives keeps it.
fn remove_dead_socket(bundle: &Bundle, flags: &Flags) {
    let Some(path) = address_in(bundle.directory()) else {
        return;
    };
    let deadline = Instant::now() + LIVELINESS_BOUND;
    loop {
        match UnixStream::connect(&path) {
            Ok(connection) => {
                if sys::fd::wait_readable(&connection, deadline).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                let spec = bundle.spec().ok();
                let annotations = spec.as_ref().and_then(|spec| spec.annotations().as_ref());
                let group = group(annotations, &flags.id);
                let alias = socket::alias_beside(&path, flags, group);
                Socket { path, alias }.remove();
                return;
            }
            Err(_) => return,
        }
    }
}
