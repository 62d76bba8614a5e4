//! Telling containerd what happened, in the order it happened.
//!
//! One queue for the whole shim keeps the order. The event at its head is sent again until
//! containerd has it, so a restart of containerd loses nothing; what can pile up meanwhile is
//! bounded by the tasks that exist. An event that containerd refuses several times is lost, so
//! that it does not hold up those of other tasks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::ttrpc::context::with_duration;
use containerd_shim_protos::ttrpc::{Code, Error};
use tokio::sync::Notify;

/// How long containerd may take to accept one event.
const SEND_BOUND: Duration = Duration::from_secs(5);
/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often containerd may refuse an event before it is given up. containerd's own shim gives up
/// after as many attempts (`pkg/shim/publisher.go` there).
const MAX_REFUSALS: u32 = 5;

/// The queue of events on their way to containerd.
#[derive(Debug)]
pub(crate) struct Events {
    namespace: String,
    queue: Mutex<VecDeque<Envelope>>,
    /// Something was added.
    added: Notify,
    /// The queue ran empty.
    emptied: Notify,
}

impl Events {
    pub(crate) fn new(namespace: &str) -> Arc<Self> {
        Arc::new(Self {
            namespace: namespace.to_owned(),
            queue: Mutex::new(VecDeque::new()),
            added: Notify::new(),
            emptied: Notify::new(),
        })
    }

    /// Puts an event at the end of the queue. Never waits.
    pub(crate) fn publish<M: Message>(&self, topic: &str, event: &M) {
        self.publish_at_most(usize::MAX, topic, event);
    }

    /// The same, unless as many equal events wait to be delivered: for what can happen to a task
    /// any number of times.
    pub(crate) fn publish_at_most<M: Message>(&self, most: usize, topic: &str, event: &M) {
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(%error, topic, "cannot encode an event");
                return;
            }
        };
        let any = Any {
            type_url: type_url::<M>(),
            value,
            ..Any::default()
        };
        let envelope = Envelope {
            timestamp: MessageField::some(std::time::SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(any),
            ..Envelope::default()
        };
        let mut queue = self.lock();
        let is_equal = |waiting: &&Envelope| waiting.event == envelope.event;
        if most < usize::MAX && queue.iter().filter(is_equal).count() >= most {
            return;
        }
        queue.push_back(envelope);
        drop(queue);
        self.added.notify_one();
    }

    /// Waits until every event has been delivered, but not longer than `bound`.
    pub(crate) async fn flush(&self, bound: Duration) {
        let emptied = async {
            loop {
                // Made before looking, so that what happens in between is not missed.
                let emptied = self.emptied.notified();
                if self.lock().is_empty() {
                    return;
                }
                emptied.await;
            }
        };
        if tokio::time::timeout(bound, emptied).await.is_err() {
            tracing::warn!(
                lost = self.lock().len(),
                "containerd does not take our events"
            );
        }
    }

    /// Delivers events for as long as the shim runs.
    pub(crate) async fn deliver(self: Arc<Self>, address: String) {
        let mut connection = None;
        loop {
            let head = self.lock().front().cloned();
            let Some(envelope) = head else {
                self.added.notified().await;
                continue;
            };
            let mut pause = PAUSES.0;
            let mut refusals = 0;
            while let Err(error) = send(&mut connection, &address, &envelope).await {
                connection = None;
                refusals += u32::from(is_refusal(&error));
                if refusals == MAX_REFUSALS {
                    tracing::error!(%error, topic = envelope.topic, "containerd refuses an event");
                    break;
                }
                tracing::debug!(%error, topic = envelope.topic, "an event is sent again");
                tokio::time::sleep(pause).await;
                pause = PAUSES.1.min(pause * 2);
            }
            let mut queue = self.lock();
            queue.pop_front();
            if queue.is_empty() {
                self.emptied.notify_waiters();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Envelope>> {
        // A queue is consistent after every operation on it, also after a panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(
    connection: &mut Option<EventsClient>,
    address: &str,
    envelope: &Envelope,
) -> Result<(), Error> {
    let client = match connection {
        Some(client) => client,
        None => connection.insert(EventsClient::new(
            Client::connect(&with_scheme(address)).await?,
        )),
    };
    let mut request = ForwardRequest::new();
    request.envelope = MessageField::some(envelope.clone());
    let forward = client.forward(with_duration(SEND_BOUND), &request);
    match tokio::time::timeout(SEND_BOUND, forward).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(Error::Others("no answer".to_owned())),
    }
}

/// Whether containerd has got an event and does not take it. Anything else is no answer, or one that
/// says that there will be another.
fn is_refusal(error: &Error) -> bool {
    let Error::RpcStatus(status) = error else {
        return false;
    };
    !matches!(
        status.code(),
        Code::CANCELLED | Code::DEADLINE_EXCEEDED | Code::UNAVAILABLE
    )
}

/// containerd names a path, the client wants an address.
fn with_scheme(address: &str) -> String {
    if address.contains("://") {
        address.to_owned()
    } else {
        format!("unix://{address}")
    }
}

/// containerd knows events by their bare names.
///
/// Put together, as the message's descriptor is all descriptors of its file and of those it
/// imports, which would stay in memory.
fn type_url<M: Message>() -> String {
    format!("containerd.events.{}", M::NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::events::task::{
        TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
        TaskResumed, TaskStart,
    };
    use containerd_shim_protos::protobuf::MessageFull;
    use containerd_shim_protos::ttrpc::get_status;

    #[test]
    fn names_are_those_of_the_descriptors() {
        fn check<M: MessageFull>() {
            assert_eq!(type_url::<M>(), M::descriptor().full_name());
        }
        check::<TaskCreate>();
        check::<TaskStart>();
        check::<TaskExit>();
        check::<TaskDelete>();
        check::<TaskExecAdded>();
        check::<TaskExecStarted>();
        check::<TaskOOM>();
        check::<TaskPaused>();
        check::<TaskResumed>();
    }

    #[test]
    fn only_an_answer_is_a_refusal() {
        let status = |code| Error::RpcStatus(get_status(code, ""));
        for code in [Code::INVALID_ARGUMENT, Code::NOT_FOUND, Code::INTERNAL] {
            assert!(is_refusal(&status(code)));
        }
        assert!(!is_refusal(&status(Code::UNAVAILABLE)));
        assert!(!is_refusal(&Error::RemoteClosed));
        assert!(!is_refusal(&Error::Others("no answer".to_owned())));
    }

    #[test]
    fn what_repeats_does_not_pile_up() {
        let events = Events::new("n");
        let event = |id: &str| TaskOOM {
            container_id: id.to_owned(),
            ..Default::default()
        };
        for _ in 0..5 {
            events.publish_at_most(2, "/tasks/oom", &event("a"));
            events.publish_at_most(2, "/tasks/oom", &event("b"));
        }
        assert_eq!(events.lock().len(), 4);
        events.publish("/tasks/oom", &event("a"));
        assert_eq!(events.lock().len(), 5);
    }
}
