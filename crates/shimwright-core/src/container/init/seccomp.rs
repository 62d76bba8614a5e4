//! The filter of system calls of a spec (`seccomp(2)`; OCI runtime spec, "Seccomp").

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{
    ContainerProcessStateBuilder, LinuxSeccomp, SECCOMP_FD_NAME, State as OciState,
};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::process::Pid;

use super::setup::Channel;
use crate::error::{Context, Error};
use crate::sys;

/// Loads the filter for the calling process, for good. If it asks a listener, the launcher sends that the
/// descriptor, which is closed here.
pub(super) fn load(filter: Option<&LinuxSeccomp>, channel: &Channel) -> Result<(), Error> {
    let Some(filter) = filter else {
        return Ok(());
    };
    let listener = libcontainer::seccomp::initialize_seccomp(filter);
    match listener.context("load the filter of system calls")? {
        Some(listener) => {
            channel.ask_for_listener(listener)?;
            sys::fd::close(listener);
            Ok(())
        }
        None => Ok(()),
    }
}

/// Sends the listener of a spec the descriptor of a filter. Launcher process.
pub(super) fn send(
    filter: &LinuxSeccomp,
    state: OciState,
    pid: Pid,
    descriptor: &OwnedFd,
) -> Result<(), Error> {
    let path = filter.listener_path().as_deref();
    let path = path.ok_or_else(|| {
        Error::invalid("linux.seccomp.listenerPath: missing, and the filter asks a listener")
    })?;
    let message = ContainerProcessStateBuilder::default()
        .version(oci_spec::runtime::VERSION)
        .fds(vec![SECCOMP_FD_NAME.to_owned()])
        .pid(pid.as_raw_nonzero().get())
        .metadata(filter.listener_metadata().clone().unwrap_or_default())
        .state(state)
        .build()
        .context("describe the container to the listener")?;
    let text = serde_json::to_vec(&message).context("encode the state for the listener")?;
    send_to(path, &text, descriptor)
        .with_context(|| format!("send the filter to its listener {}", path.display()))
}

fn send_to(path: &Path, text: &[u8], descriptor: &OwnedFd) -> std::io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let text = [IoSlice::new(text)];
    rustix::net::sendmsg(&socket, &text, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
