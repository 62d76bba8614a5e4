//! The container's network, as far as a guest may reach it.
//!
//! `virtual-net` has rules of its own, which do not fit: they would refuse connections to the guest
//! too, and let it reach whatever it has looked up.

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use shimwright_core::{Outbound, Workload};
use wasmer_wasix::virtual_net::host::LocalNetworking;
use wasmer_wasix::virtual_net::{
    DynVirtualNetworking, InterestHandler, NetworkError, Result, SocketStatus,
    VirtualConnectionlessSocket, VirtualIoSource, VirtualNetworking, VirtualSocket,
    VirtualTcpBoundSocket, VirtualTcpListener, VirtualTcpSocket, VirtualUdpSocket,
};

/// What a guest can reach in its network.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    outbound: Option<Arc<Outbound>>,
    name_lookup: bool,
}

impl Reach {
    pub(crate) fn new(workload: &Workload) -> Self {
        Self {
            outbound: workload.outbound().cloned().map(Arc::new),
            name_lookup: workload.name_lookup(),
        }
    }

    /// The network for a guest. Inside of a tokio runtime, and with a thread of its own.
    pub(crate) fn network(&self) -> DynVirtualNetworking {
        let all = LocalNetworking::new();
        if self.outbound.is_none() && self.name_lookup {
            return Arc::new(all);
        }
        Arc::new(Limited {
            all,
            reach: self.clone(),
        })
    }

    fn check(&self, peer: SocketAddr) -> Result<()> {
        let outbound = self.outbound.as_ref();
        if outbound.is_none_or(|outbound| outbound.allows(peer)) {
            Ok(())
        } else {
            Err(NetworkError::PermissionDenied)
        }
    }
}

/// A network of which a part can be reached. What is not here is unsupported in `all` too.
#[derive(Debug)]
struct Limited {
    all: LocalNetworking,
    reach: Reach,
}

#[async_trait::async_trait]
impl VirtualNetworking for Limited {
    async fn listen_tcp(
        &self,
        address: SocketAddr,
        only_v6: bool,
        reuse_port: bool,
        reuse_address: bool,
    ) -> Result<Box<dyn VirtualTcpListener + Sync>> {
        self.all
            .listen_tcp(address, only_v6, reuse_port, reuse_address)
            .await
    }

    async fn bind_tcp(
        &self,
        address: SocketAddr,
        only_v6: bool,
        reuse_port: bool,
        reuse_address: bool,
    ) -> Result<Box<dyn VirtualTcpBoundSocket + Sync>> {
        let bound = self
            .all
            .bind_tcp(address, only_v6, reuse_port, reuse_address)
            .await?;
        Ok(Box::new(Tcp {
            bound,
            reach: self.reach.clone(),
        }))
    }

    async fn bind_udp(
        &self,
        address: SocketAddr,
        reuse_port: bool,
        reuse_address: bool,
    ) -> Result<Box<dyn VirtualUdpSocket + Sync>> {
        let bound = self
            .all
            .bind_udp(address, reuse_port, reuse_address)
            .await?;
        Ok(Box::new(Udp {
            bound,
            reach: self.reach.clone(),
        }))
    }

    async fn connect_tcp(
        &self,
        address: SocketAddr,
        peer: SocketAddr,
    ) -> Result<Box<dyn VirtualTcpSocket + Sync>> {
        self.reach.check(peer)?;
        self.all.connect_tcp(address, peer).await
    }

    async fn resolve(
        &self,
        host: &str,
        port: Option<u16>,
        server: Option<IpAddr>,
    ) -> Result<Vec<IpAddr>> {
        if !self.reach.name_lookup && host.parse::<IpAddr>().is_err() {
            return Err(NetworkError::PermissionDenied);
        }
        self.all.resolve(host, port, server).await
    }
}

/// A TCP socket that neither listens nor is connected yet.
#[derive(Debug)]
struct Tcp {
    bound: Box<dyn VirtualTcpBoundSocket + Sync>,
    reach: Reach,
}

impl VirtualTcpBoundSocket for Tcp {
    fn addr_local(&self) -> Result<SocketAddr> {
        self.bound.addr_local()
    }

    fn listen(&mut self) -> Result<Box<dyn VirtualTcpListener + Sync>> {
        self.bound.listen()
    }

    fn connect(&mut self, peer: SocketAddr) -> Result<Box<dyn VirtualTcpSocket + Sync>> {
        self.reach.check(peer)?;
        self.bound.connect(peer)
    }

    fn set_ttl(&mut self, ttl: u32) -> Result<()> {
        self.bound.set_ttl(ttl)
    }

    fn ttl(&self) -> Result<u32> {
        self.bound.ttl()
    }
}

/// A UDP socket. One that is connected sends to its peer by its address too.
#[derive(Debug)]
struct Udp {
    bound: Box<dyn VirtualUdpSocket + Sync>,
    reach: Reach,
}

impl VirtualConnectionlessSocket for Udp {
    fn try_send_to(&mut self, data: &[u8], peer: SocketAddr) -> Result<usize> {
        self.reach.check(peer)?;
        self.bound.try_send_to(data, peer)
    }

    fn try_recv_from(
        &mut self,
        buffer: &mut [MaybeUninit<u8>],
        peek: bool,
    ) -> Result<(usize, SocketAddr)> {
        self.bound.try_recv_from(buffer, peek)
    }
}

impl VirtualIoSource for Udp {
    fn remove_handler(&mut self) {
        self.bound.remove_handler();
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        self.bound.poll_read_ready(cx)
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        self.bound.poll_write_ready(cx)
    }
}

impl VirtualSocket for Udp {
    fn set_ttl(&mut self, ttl: u32) -> Result<()> {
        self.bound.set_ttl(ttl)
    }

    fn ttl(&self) -> Result<u32> {
        self.bound.ttl()
    }

    fn addr_local(&self) -> Result<SocketAddr> {
        self.bound.addr_local()
    }

    fn status(&self) -> Result<SocketStatus> {
        self.bound.status()
    }

    fn last_error(&self) -> Result<Option<NetworkError>> {
        self.bound.last_error()
    }

    fn set_handler(&mut self, handler: Box<dyn InterestHandler + Send + Sync>) -> Result<()> {
        self.bound.set_handler(handler)
    }
}

impl VirtualUdpSocket for Udp {
    fn set_broadcast(&mut self, broadcast: bool) -> Result<()> {
        self.bound.set_broadcast(broadcast)
    }

    fn broadcast(&self) -> Result<bool> {
        self.bound.broadcast()
    }

    fn set_multicast_loop_v4(&mut self, is_looped: bool) -> Result<()> {
        self.bound.set_multicast_loop_v4(is_looped)
    }

    fn multicast_loop_v4(&self) -> Result<bool> {
        self.bound.multicast_loop_v4()
    }

    fn set_multicast_loop_v6(&mut self, is_looped: bool) -> Result<()> {
        self.bound.set_multicast_loop_v6(is_looped)
    }

    fn multicast_loop_v6(&self) -> Result<bool> {
        self.bound.multicast_loop_v6()
    }

    fn set_multicast_ttl_v4(&mut self, ttl: u32) -> Result<()> {
        self.bound.set_multicast_ttl_v4(ttl)
    }

    fn multicast_ttl_v4(&self) -> Result<u32> {
        self.bound.multicast_ttl_v4()
    }

    fn join_multicast_v4(&mut self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<()> {
        self.bound.join_multicast_v4(group, interface)
    }

    fn leave_multicast_v4(&mut self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<()> {
        self.bound.leave_multicast_v4(group, interface)
    }

    fn join_multicast_v6(&mut self, group: Ipv6Addr, interface: u32) -> Result<()> {
        self.bound.join_multicast_v6(group, interface)
    }

    fn leave_multicast_v6(&mut self, group: Ipv6Addr, interface: u32) -> Result<()> {
        self.bound.leave_multicast_v6(group, interface)
    }

    fn addr_peer(&self) -> Result<Option<SocketAddr>> {
        self.bound.addr_peer()
    }
}
