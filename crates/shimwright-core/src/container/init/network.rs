//! Network devices of a container (OCI runtime spec, "Network Devices").

use std::collections::HashMap;
use std::os::fd::AsRawFd;

use libcontainer::network::address::AddressClient;
use libcontainer::network::cidr::CidrAddress;
use libcontainer::network::link::LinkClient;
use libcontainer::network::network_device::{
    dev_change_net_namespace, resolve_device_name, setup_addresses_in_network_namespace,
};
use libcontainer::network::wrapper::create_network_client;
use oci_spec::runtime::{Linux, LinuxNamespaceType};
use rustix::process::Pid;

use super::setup::Channel;
use crate::engine::BoxError;
use crate::error::{Context, Error};

/// The addresses of devices, by their names before they were moved.
pub(super) type Addresses = HashMap<String, Vec<CidrAddress>>;

/// Whether the spec moves devices. Those of the node's own namespace stay there.
fn moves_devices(linux: &Linux) -> bool {
    let devices = linux.net_devices().as_ref();
    let has_network = linux
        .namespaces()
        .iter()
        .flatten()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::Network);
    has_network && devices.is_some_and(|devices| !devices.is_empty())
}

/// Has the launcher move the devices to the namespace of the calling process, and sets them up.
pub(super) fn receive_devices(linux: &Linux, channel: &Channel) -> Result<(), BoxError> {
    if !moves_devices(linux) {
        return Ok(());
    }
    let addresses = channel.ask_for_devices()?;
    for (name, device) in linux.net_devices().iter().flatten() {
        let name_here = resolve_device_name(device, name);
        let mut links = LinkClient::new(create_network_client())?;
        let index = links.get_by_name(name_here)?.header.index;
        let mut client = AddressClient::new(create_network_client())?;
        let addresses = addresses.get(name).map(Vec::as_slice).unwrap_or_default();
        setup_addresses_in_network_namespace(addresses, index, name_here, &mut client)?;
        links.set_up(index)?;
    }
    Ok(())
}

/// Moves the devices to the network namespace of a process. Launcher process. The kernel moves those that
/// were moved back when the namespace ends.
pub(super) fn move_devices(linux: &Linux, to: Pid) -> Result<Addresses, Error> {
    let path = format!("/proc/{}/ns/net", to.as_raw_nonzero());
    let namespace = std::fs::File::open(path).context("open the network namespace")?;
    let mut addresses = Addresses::new();
    for (name, device) in linux.net_devices().iter().flatten() {
        let moved = dev_change_net_namespace(name, namespace.as_raw_fd(), device);
        let moved = moved.with_context(|| format!("move the network device {name}"))?;
        addresses.insert(name.clone(), moved);
    }
    Ok(addresses)
}
