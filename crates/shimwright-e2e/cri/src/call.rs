//! One call: a request from JSON, its reply as JSON on standard output.

use std::process::ExitCode;

use containerd_client::tonic::IntoRequest;
use containerd_client::tonic::client::Grpc;
use containerd_client::tonic::codegen::http::uri::PathAndQuery;
use containerd_client::tonic::transport::Channel;
use k8s_cri::v1;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic_prost::ProstCodec;
use tonic_prost::prost::Message;

use crate::{Result, message};

macro_rules! methods {
    ($($service:literal { $($method:literal $request:ident $reply:ident;)+ })+) => {
        async fn dispatch(channel: Channel, method: &str, request: &str) -> Result<String> {
            match method {
                $($($method => {
                    let path = concat!("/runtime.v1.", $service, "/", $method);
                    unary::<v1::$request, v1::$reply>(channel, path, request).await
                })+)+
                unknown => Err(format!("there is no method {unknown} here").into()),
            }
        }
    };
}

methods! {
    "RuntimeService" {
        "Status" StatusRequest StatusResponse;
        "RunPodSandbox" RunPodSandboxRequest RunPodSandboxResponse;
        "PodSandboxStatus" PodSandboxStatusRequest PodSandboxStatusResponse;
        "ListPodSandbox" ListPodSandboxRequest ListPodSandboxResponse;
        "StopPodSandbox" StopPodSandboxRequest StopPodSandboxResponse;
        "RemovePodSandbox" RemovePodSandboxRequest RemovePodSandboxResponse;
        "CreateContainer" CreateContainerRequest CreateContainerResponse;
        "StartContainer" StartContainerRequest StartContainerResponse;
        "ContainerStatus" ContainerStatusRequest ContainerStatusResponse;
        "ContainerStats" ContainerStatsRequest ContainerStatsResponse;
        "UpdateContainerResources"
            UpdateContainerResourcesRequest UpdateContainerResourcesResponse;
        "StopContainer" StopContainerRequest StopContainerResponse;
        "RemoveContainer" RemoveContainerRequest RemoveContainerResponse;
        "ExecSync" ExecSyncRequest ExecSyncResponse;
        "Exec" ExecRequest ExecResponse;
    }
    "ImageService" {
        "ImageStatus" ImageStatusRequest ImageStatusResponse;
    }
}

/// Calls a method of the runtime that listens on a Unix socket.
pub(crate) fn call(socket: &str, method: &str, request: &str) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let reply = runtime.block_on(async {
        let channel = containerd_client::connect(socket).await;
        let channel = channel.map_err(|err| format!("cannot connect to {socket}: {err:?}"))?;
        dispatch(channel, method, request).await
    })?;
    println!("{reply}");
    Ok(ExitCode::SUCCESS)
}

async fn unary<M, R>(channel: Channel, path: &'static str, request: &str) -> Result<String>
where
    M: Message + DeserializeOwned + 'static,
    R: Message + Serialize + Default + 'static,
{
    let request: M = message::parse(request)?;
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let path = PathAndQuery::from_static(path);
    let codec = ProstCodec::<M, R>::default();
    let reply = client.unary(request.into_request(), path, codec).await;
    let reply = reply.map_err(|status| format!("{:?}: {}", status.code(), status.message()))?;
    Ok(serde_json::to_string(reply.get_ref())?)
}
