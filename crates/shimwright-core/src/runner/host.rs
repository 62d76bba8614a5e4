//! The engine of this binary, for the rest of the crate.

use crate::engine::{BoxError, Engine, Options};
use crate::error::Error;
use crate::runner::libraries::Libraries;

/// How a boxed engine is made from options.
type Constructor = Box<dyn Fn(&Options) -> Result<Box<dyn Engine>, BoxError> + Send + Sync>;

/// The name of a shim and the constructor of its engine.
pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// The shared libraries of the engine, if it comes as such.
    pub(crate) libraries: Option<Libraries>,
    constructor: Constructor,
}

impl Host {
    pub(crate) fn new<E: Engine>(
        name: &'static str,
        version: &'static str,
        constructor: fn(&Options) -> Result<E, BoxError>,
    ) -> Self {
        let constructor: Constructor =
            Box::new(move |options| Ok(Box::new(constructor(options)?) as Box<dyn Engine>));
        Self {
            name,
            version,
            libraries: None,
            constructor,
        }
    }

    /// Makes an engine in this process.
    ///
    /// # Errors
    ///
    /// `Invalid` with the engine's reason, or the name of an option that it did not read.
    pub(crate) fn engine(&self, options: &Options) -> Result<Box<dyn Engine>, Error> {
        let engine = (self.constructor)(options)
            .map_err(|error| Error::invalid(format!("engine {}: {error}", self.name)))?;
        match options.unread() {
            Some(name) => Err(Error::invalid(format!(
                "engine {} has no option {name:?}",
                self.name
            ))),
            None => Ok(engine),
        }
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("libraries", &self.libraries)
            .finish()
    }
}
