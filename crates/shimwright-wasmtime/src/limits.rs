//! Holds a guest to what it may use and reach.

use std::net::SocketAddr;
use std::sync::Arc;

use shimwright_core::{LinearMemory, Outbound, TableElements, Workload};
use wasmtime::{Config, ResourceLimiter};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;

/// The stack that Wasmtime gives a guest by itself, in bytes.
const STACK: usize = 512 << 10;

/// Gives a guest no more stack than its limit.
pub(crate) fn limit_stack(config: &mut Config, workload: &Workload) {
    if let Some(most) = workload.stack() {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        config.max_wasm_stack(most.min(STACK));
    }
}

/// The accounts and permissions of one instance, and of all that it is made of.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    memory: LinearMemory,
    tables: TableElements,
    instances: usize,
    pub(crate) reach: Reach,
}

impl Limits {
    pub(crate) fn new(workload: &Workload) -> Self {
        let instances = workload.instances().map(usize::try_from);
        Self {
            memory: workload.linear_memory().clone(),
            tables: workload.table_elements().clone(),
            instances: instances
                .and_then(Result::ok)
                .unwrap_or(wasmtime::DEFAULT_INSTANCE_LIMIT),
            reach: Reach {
                outbound: workload.outbound().cloned().map(Arc::new),
                name_lookup: workload.name_lookup(),
            },
        }
    }
}

/// Whether something may grow so far, which is counted. An error is a trap, with the reason that
/// `false` would not give.
fn granted<E: std::error::Error + Send + Sync + 'static>(
    desired: usize,
    maximum: Option<usize>,
    count: impl FnOnce() -> Result<(), E>,
) -> wasmtime::Result<bool> {
    if maximum.is_some_and(|maximum| desired > maximum) {
        // The module's own limit, which it knows how to live with.
        return Ok(false);
    }
    count()?;
    Ok(true)
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        granted(desired, maximum, || {
            self.memory.grow(current as u64, desired as u64)
        })
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        granted(desired, maximum, || {
            self.tables.grow(current as u64, desired as u64)
        })
    }

    fn instances(&self) -> usize {
        self.instances
    }
}

/// What a guest can reach in its network.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    outbound: Option<Arc<Outbound>>,
    pub(crate) name_lookup: bool,
}

impl Reach {
    /// Whether the guest may connect or send to this address.
    pub(crate) fn allows(&self, address: SocketAddr) -> bool {
        let outbound = self.outbound.as_ref();
        outbound.is_none_or(|outbound| outbound.allows(address))
    }

    /// Has the guest's sockets keep to it.
    pub(crate) fn apply(&self, wasi: &mut WasiCtxBuilder) {
        wasi.allow_tcp(true)
            .allow_udp(true)
            .allow_ip_name_lookup(self.name_lookup);
        if self.outbound.is_none() {
            // The network namespace decides what can be reached.
            wasi.inherit_network();
            return;
        }
        let reach = self.clone();
        wasi.socket_addr_check(move |address, usage| {
            let allowed = match usage {
                SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => reach.allows(address),
                // Where the guest is reached is not limited.
                SocketAddrUse::TcpBind
                | SocketAddrUse::TcpListen
                | SocketAddrUse::TcpAccept
                | SocketAddrUse::UdpBind
                | SocketAddrUse::UdpReceive => true,
            };
            Box::pin(std::future::ready(allowed))
        });
    }
}
