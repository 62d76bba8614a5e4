//! Publishes events to containerd, in the order in which they happened.
//!
//! One queue for the whole shim keeps the order. The event at its head is sent again until
//! containerd has it, so a restart of containerd loses nothing; what can pile up meanwhile is
//! bounded by the tasks that exist. An event that containerd refuses several times is dropped, so
//! that it does not block the events of other tasks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::ttrpc::context::with_duration;
use containerd_shim_protos::ttrpc::{Code, Error};
use tokio::sync::Notify;

use super::event::Event;

/// How long containerd may take to accept one event.
const SEND_BOUND: Duration = Duration::from_secs(5);
/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often containerd may refuse an event before it is dropped: as often as in containerd's own
/// shim (`pkg/shim/publisher.go` there).
const MAX_REFUSALS: u32 = 5;

/// The largest event that is sent, in bytes: a message of ttrpc has at most 4 MiB, and what is
/// around the event takes some of it.
const MAX_EVENT: usize = (4 << 20) - (16 << 10);

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

    /// Puts an event at the end of the queue, unless the queue holds as many equal events as
    /// [allowed](Event::most), or the event is too large for containerd. Never waits.
    pub(super) fn publish(&self, event: &Event) {
        let topic = event.topic();
        let content = match event.encode() {
            Ok(content) => content,
            Err(error) => {
                tracing::error!(%error, topic, "cannot encode an event");
                return;
            }
        };
        if content.value.len() > MAX_EVENT {
            tracing::error!(topic, size = content.value.len(), "an event is too large");
            return;
        }
        let envelope = Envelope {
            timestamp: MessageField::some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(content),
            ..Envelope::default()
        };
        let mut queue = self.lock();
        let is_equal = |waiting: &&Envelope| waiting.event == envelope.event;
        if let Some(most) = event.most()
            && queue.iter().filter(is_equal).count() >= most
        {
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

/// Whether containerd answered that it does not accept an event. Any other error may be gone at the
/// next attempt.
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

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::api::CreateTaskRequest;
    use containerd_shim_protos::ttrpc::get_status;

    use crate::config::identity::ProcessId;

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
    fn an_event_that_is_too_large_for_containerd_keeps_no_other_back() {
        let events = Events::new("n");
        let mut request = CreateTaskRequest {
            id: "a".to_owned(),
            ..Default::default()
        };
        request.stdout = "x".repeat(4 << 20);
        let process = ProcessId::of(rustix::process::getpid()).unwrap();
        events.publish(&Event::created(&request, process));
        events.publish(&Event::started("a", process));
        let queue = events.lock();
        assert_eq!(queue.len(), 1);
        assert_eq!(queue[0].topic, "/tasks/start");
    }

    #[test]
    fn what_repeats_does_not_pile_up() {
        let events = Events::new("n");
        for _ in 0..20 {
            events.publish(&Event::out_of_memory("a"));
            events.publish(&Event::out_of_memory("b"));
            events.publish(&Event::paused("a"));
        }
        let waiting = |topic| {
            let queue = events.lock();
            queue.iter().filter(|event| event.topic == topic).count()
        };
        assert_eq!((waiting("/tasks/oom"), waiting("/tasks/paused")), (16, 20));
    }
}
