//! Descriptors as parts of a message between processes.
//!
//! In the text of the message a descriptor is its place among those that are sent along. They are
//! collected, and handed out, while the message is encoded or decoded.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

thread_local! {
    /// Those of the message that this thread encodes or decodes.
    static ATTACHED: RefCell<Vec<Option<OwnedFd>>> = const { RefCell::new(Vec::new()) };
}

/// A descriptor of a message. It arrives as another number of the same open file.
#[derive(Debug)]
pub(crate) struct Handle(OwnedFd);

impl From<OwnedFd> for Handle {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<Handle> for OwnedFd {
    fn from(handle: Handle) -> Self {
        handle.0
    }
}

impl Serialize for Handle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let copy = self.0.try_clone().map_err(S::Error::custom)?;
        let place = ATTACHED.with_borrow_mut(|attached| {
            attached.push(Some(copy));
            attached.len() - 1
        });
        place.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Handle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let place = usize::deserialize(deserializer)?;
        let found = ATTACHED.with_borrow_mut(|attached| attached.get_mut(place)?.take());
        let missing = || D::Error::custom("a descriptor of the message is missing");
        found.map(Self).ok_or_else(missing)
    }
}

/// The text of a message, and the descriptors to send along.
pub(super) fn encode(message: &impl Serialize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    ATTACHED.set(Vec::new());
    let text = serde_json::to_vec(message);
    let attached = ATTACHED.take();
    Ok((text?, attached.into_iter().flatten().collect()))
}

/// The message with this text, which these descriptors came with. Those that it does not name are
/// closed.
pub(super) fn decode<T: DeserializeOwned>(text: &[u8], handles: Vec<OwnedFd>) -> io::Result<T> {
    ATTACHED.set(handles.into_iter().map(Some).collect());
    let message = serde_json::from_slice(text);
    ATTACHED.take();
    Ok(message?)
}
