//! The two versions of the Task service, and which of them a shim serves.

use containerd_shim_protos::ttrpc::{self, Code};

use crate::{Result, Shim};

/// The name under which the Task service is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Up to containerd 1.7, and since then for shims that ask for it.
    V2,
    /// Since containerd 2.0.
    V3,
}

impl Version {
    pub(crate) fn service(self) -> &'static str {
        match self {
            Self::V2 => "containerd.task.v2.Task",
            Self::V3 => "containerd.task.v3.Task",
        }
    }
}

impl Shim {
    /// The version of the Task service that the shim serves.
    ///
    /// # Errors
    ///
    /// That it does not answer.
    pub fn served(&self) -> Result<Version> {
        match self.version(Version::V3).state("none") {
            Err(ttrpc::Error::RpcStatus(status)) if is_unknown_service(&status) => Ok(Version::V2),
            Ok(_) | Err(ttrpc::Error::RpcStatus(_)) => Ok(Version::V3),
            Err(error) => Err(format!("the shim does not answer: {error}").into()),
        }
    }
}

/// Whether a server has no service of the name it was called by. ttrpc in Go says `UNIMPLEMENTED`,
/// in Rust `INVALID_ARGUMENT` and that the path, or the service, does not exist.
fn is_unknown_service(status: &ttrpc::Status) -> bool {
    match status.code() {
        Code::UNIMPLEMENTED => true,
        Code::INVALID_ARGUMENT => status.message().ends_with("does not exist"),
        _ => status.message().contains("service"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::collections::HashMap;
    use std::sync::mpsc::{self, Receiver};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use containerd_shim_protos::ttrpc::{Server, TtrpcContext, get_status};
    use containerd_shim_protos::{Task, api, create_task};

    use super::*;

    /// A shim of another project, which has no task and never answers `Create`.
    struct Peer(Mutex<Receiver<()>>);

    impl Task for Peer {
        fn state(
            &self,
            _: &TtrpcContext,
            _: api::StateRequest,
        ) -> ttrpc::Result<api::StateResponse> {
            let status = get_status(Code::NOT_FOUND, "no such task");
            Err(ttrpc::Error::RpcStatus(status))
        }

        fn create(
            &self,
            _: &TtrpcContext,
            _: api::CreateTaskRequest,
        ) -> ttrpc::Result<api::CreateTaskResponse> {
            let _ = self.0.lock().unwrap().recv();
            Ok(api::CreateTaskResponse::default())
        }
    }

    /// Has `check` call a peer that serves the version of this name only.
    fn with_peer(version: &str, check: impl FnOnce(&Shim)) {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("unix://{}/s", directory.path().display());
        let (hold, held) = mpsc::channel();
        let methods: HashMap<_, _> = create_task(Arc::new(Peer(Mutex::new(held))))
            .into_iter()
            .map(|(path, method)| (path.replace(".v3.", &format!(".{version}.")), method))
            .collect();
        let mut server = Server::new()
            .bind(&address)
            .unwrap()
            .register_service(methods);
        server.start().unwrap();
        check(&Shim::connect(&address).unwrap());
        drop(hold);
        server.shutdown();
    }

    #[test]
    fn a_peer_is_called_by_the_version_that_it_serves() {
        with_peer("v2", |shim| assert_eq!(shim.served().unwrap(), Version::V2));
        with_peer("v3", |shim| assert_eq!(shim.served().unwrap(), Version::V3));
    }

    #[test]
    fn other_libraries_say_otherwise_that_a_service_is_unknown() {
        for (code, message, unknown) in [
            (Code::UNIMPLEMENTED, "service containerd.task.v3.Task", true),
            (Code::INVALID_ARGUMENT, "x service does not exist", true),
            (Code::NOT_FOUND, "task none does not exist", false),
            (Code::INVALID_ARGUMENT, "no id", false),
        ] {
            let status = get_status(code, message);
            assert_eq!(is_unknown_service(&status), unknown, "{message}");
        }
    }

    #[test]
    fn a_call_that_a_peer_does_not_answer_ends_at_its_deadline() {
        with_peer("v2", |shim| {
            let shim = shim
                .version(Version::V2)
                .deadline(Duration::from_millis(100));
            let request = api::CreateTaskRequest::default();
            let error = shim.create_task(&request).unwrap_err().to_string();
            assert!(error.contains("Create: "), "{error}");
        });
    }
}
