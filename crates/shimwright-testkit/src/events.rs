//! The daemon's side of events: the ttrpc service `containerd.services.events.ttrpc.v1.Events`.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use containerd_shim_protos::api::{Empty, ForwardRequest};
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::ttrpc::{Code, Request, Response, get_status};

use crate::{DEADLINE, Result};

/// The length of a ttrpc frame's header: length, stream, type, flags.
const HEADER: usize = 10;
/// The type of a response's frame.
const RESPONSE: u8 = 2;
/// The most a frame may hold (ttrpc, `messageLengthMax`).
const MAX_FRAME: u32 = 4 << 20;

/// An event as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The namespace of the envelope.
    pub namespace: String,
    /// The topic of the envelope.
    pub topic: String,
    /// The type of the content.
    pub type_url: String,
    /// Whether the envelope has a time.
    pub dated: bool,
    /// The content.
    pub content: Content,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A task was created.
    Create(TaskCreate),
    /// A task was started.
    Start(TaskStart),
    /// An exec was added to a task.
    ExecAdded(TaskExecAdded),
    /// The process of an exec was started.
    ExecStarted(TaskExecStarted),
    /// A process has ended.
    Exit(TaskExit),
    /// A task was deleted.
    Delete(TaskDelete),
    /// A task has run out of memory.
    Oom(TaskOOM),
    /// A task was paused.
    Paused(TaskPaused),
    /// A task was resumed.
    Resumed(TaskResumed),
    /// Something else.
    Other,
}

impl Event {
    fn new(request: &ForwardRequest) -> Result<Self> {
        let envelope = &request.envelope;
        let any = &envelope.event;
        let value = any.value.as_slice();
        let content = match any.type_url.as_str() {
            "containerd.events.TaskCreate" => Content::Create(TaskCreate::parse_from_bytes(value)?),
            "containerd.events.TaskStart" => Content::Start(TaskStart::parse_from_bytes(value)?),
            "containerd.events.TaskExecAdded" => {
                Content::ExecAdded(TaskExecAdded::parse_from_bytes(value)?)
            }
            "containerd.events.TaskExecStarted" => {
                Content::ExecStarted(TaskExecStarted::parse_from_bytes(value)?)
            }
            "containerd.events.TaskExit" => Content::Exit(TaskExit::parse_from_bytes(value)?),
            "containerd.events.TaskDelete" => Content::Delete(TaskDelete::parse_from_bytes(value)?),
            "containerd.events.TaskOOM" => Content::Oom(TaskOOM::parse_from_bytes(value)?),
            "containerd.events.TaskPaused" => Content::Paused(TaskPaused::parse_from_bytes(value)?),
            "containerd.events.TaskResumed" => {
                Content::Resumed(TaskResumed::parse_from_bytes(value)?)
            }
            _ => Content::Other,
        };
        Ok(Self {
            namespace: envelope.namespace.clone(),
            topic: envelope.topic.clone(),
            type_url: any.type_url.clone(),
            dated: envelope.timestamp.is_some(),
            content,
        })
    }

    /// The container that the event is about.
    pub fn container(&self) -> &str {
        match &self.content {
            Content::Create(event) => &event.container_id,
            Content::Start(event) => &event.container_id,
            Content::ExecAdded(event) => &event.container_id,
            Content::ExecStarted(event) => &event.container_id,
            Content::Exit(event) => &event.container_id,
            Content::Delete(event) => &event.container_id,
            Content::Oom(event) => &event.container_id,
            Content::Paused(event) => &event.container_id,
            Content::Resumed(event) => &event.container_id,
            Content::Other => "",
        }
    }
}

/// A server that records every event in the order of arrival.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    state: Arc<(Mutex<State>, Condvar)>,
    server: Mutex<Option<(UnixListener, JoinHandle<()>)>>,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Event>,
    connections: Vec<UnixStream>,
    stopping: bool,
    /// The container whose events are refused.
    refused: Option<String>,
}

impl Events {
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        let events = Self {
            path: path.to_owned(),
            state: Arc::default(),
            server: Mutex::default(),
        };
        events.restart()?;
        Ok(events)
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the server and all of its connections, as if containerd had been stopped.
    pub fn stop(&self) {
        let server = self
            .server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((listener, server)) = server else {
            return;
        };
        self.lock().stopping = true;
        // It ends the wait for a connection, also if the socket's file is gone.
        let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        let _ = server.join();
        let _ = std::fs::remove_file(&self.path);
        for connection in self.lock().connections.drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Serves again, on the same path.
    ///
    /// # Errors
    ///
    /// If the socket cannot be bound.
    pub fn restart(&self) -> io::Result<()> {
        self.stop();
        let listener = UnixListener::bind(&self.path)?;
        self.lock().stopping = false;
        let (state, accepting) = (Arc::clone(&self.state), listener.try_clone()?);
        let server = std::thread::spawn(move || accept(&accepting, &state));
        let server = Some((listener, server));
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
        Ok(())
    }

    /// Refuses the events of this container from now on, and does not record them.
    pub fn refuse(&self, container: &str) {
        self.lock().refused = Some(container.to_owned());
    }

    /// All events so far.
    pub fn all(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// All events of one container so far.
    pub fn of(&self, container: &str) -> Vec<Event> {
        let mut events = self.all();
        events.retain(|event| event.container() == container);
        events
    }

    /// The topics of one container's events so far, without their common beginning.
    pub fn topics(&self, container: &str) -> Vec<String> {
        let topic = |event: Event| event.topic.trim_start_matches("/tasks/").to_owned();
        self.of(container).into_iter().map(topic).collect()
    }

    /// Waits until `wanted` finds something in the events so far.
    ///
    /// # Errors
    ///
    /// Lists the events after the deadline.
    pub fn wait_for<T>(&self, mut wanted: impl FnMut(&[Event]) -> Option<T>) -> Result<T> {
        let end = Instant::now() + DEADLINE;
        let mut state = self.lock();
        loop {
            if let Some(found) = wanted(&state.events) {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("an event is missing: {:#?}", state.events).into());
            }
            state = self
                .state
                .1
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for a container's event of this topic, such as `exit`.
    ///
    /// # Errors
    ///
    /// Lists the events after the deadline.
    pub fn wait_for_topic(&self, container: &str, topic: &str) -> Result<Event> {
        let topic = format!("/tasks/{topic}");
        self.wait_for(|events| {
            let found = |event: &&Event| event.container() == container && event.topic == topic;
            events.iter().find(found).cloned()
        })
    }

    /// Waits for the event that a container has ended.
    ///
    /// # Errors
    ///
    /// Lists the events after the deadline.
    pub fn wait_for_exit(&self, container: &str) -> Result<TaskExit> {
        match self.wait_for_topic(container, "exit")?.content {
            Content::Exit(exit) => Ok(exit),
            other => Err(format!("not the content of an exit: {other:?}").into()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(listener: &UnixListener, state: &Arc<(Mutex<State>, Condvar)>) {
    for connection in listener.incoming() {
        let Ok(connection) = connection else { return };
        let mut locked = state.0.lock().unwrap_or_else(PoisonError::into_inner);
        if locked.stopping {
            return;
        }
        locked.connections.extend(connection.try_clone());
        drop(locked);
        let state = Arc::clone(state);
        std::thread::spawn(move || {
            // It ends with the connection, or with the first frame that makes no sense.
            let _ = serve(connection, &state);
        });
    }
}

fn serve(mut connection: UnixStream, state: &(Mutex<State>, Condvar)) -> Result<()> {
    loop {
        let mut header = [0; HEADER];
        connection.read_exact(&mut header)?;
        let [a, b, c, d, stream @ .., _, _] = header;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length > MAX_FRAME {
            return Err("a frame is too long".into());
        }
        let mut frame = vec![0; usize::try_from(length)?];
        connection.read_exact(&mut frame)?;
        let request = Request::parse_from_bytes(&frame)?;
        if request.service != "containerd.services.events.ttrpc.v1.Events"
            || request.method != "Forward"
        {
            return Err(format!("unknown call {}/{}", request.service, request.method).into());
        }
        let event = Event::new(&ForwardRequest::parse_from_bytes(&request.payload)?)?;
        let response = match record(event, state) {
            true => Response {
                payload: Empty::new().write_to_bytes()?,
                ..Default::default()
            },
            false => Response {
                status: MessageField::some(get_status(Code::INVALID_ARGUMENT, "refused")),
                ..Default::default()
            },
        };
        let response = response.write_to_bytes()?;
        let mut answer = u32::try_from(response.len())?.to_be_bytes().to_vec();
        answer.extend(stream);
        answer.extend([RESPONSE, 0]);
        answer.extend(response);
        connection.write_all(&answer)?;
    }
}

/// Records an event unless it is to be refused.
fn record(event: Event, state: &(Mutex<State>, Condvar)) -> bool {
    let mut locked = state.0.lock().unwrap_or_else(PoisonError::into_inner);
    if locked.refused.as_deref() == Some(event.container()) {
        return false;
    }
    locked.events.push(event);
    state.1.notify_all();
    true
}
