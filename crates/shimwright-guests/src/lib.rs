//! Guest programs for tests, demonstrations and benchmarks: one behaviour each.
//!
//! A guest is built from a source in `guests/` when this crate is built. [`HELLO`] and the other
//! constants name the result, [`ALL`] lists them, and the conformance suite has a case for each but
//! [`COMPUTE`], [`READ_ONLY`] and [`WASMEDGE_SERVER`].
//!
//! ```
//! use shimwright_guests::{HELLO, HELLO_COMPONENT};
//!
//! assert_eq!(HELLO.name(), "hello");
//! assert!(HELLO.wasm().starts_with(b"\0asm\x01\0\0\0"));
//! assert_eq!(HELLO_COMPONENT.name(), "hello.component");
//! ```

use std::fmt;

/// A WebAssembly program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    name: &'static str,
    wasm: &'static [u8],
}

impl Guest {
    /// The name of its source file without extension; a component's has `.component` added.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// The binary.
    pub const fn wasm(self) -> &'static [u8] {
        self.wasm
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guest").field(&self.name).finish()
    }
}

macro_rules! guests {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)*) => {
        $(
            $(#[$doc])*
            pub const $constant: Guest = Guest {
                name: $name,
                wasm: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm")),
            };
        )*

        /// Every guest.
        pub const ALL: &[Guest] = &[$($constant),*];
    };
}

guests! {
    /// Prints its arguments, the program's name included, one per line.
    ARGS = "args";
    /// [`ARGS`] as a component.
    ARGS_COMPONENT = "args.component";
    /// Copies standard input to standard output, then prints `<end of input>`.
    CAT = "cat";
    /// [`CAT`] as a component.
    CAT_COMPONENT = "cat.component";
    /// Checks the clocks and the random numbers, then prints `fine`.
    CLOCKS_RANDOM = "clocks-random";
    /// Does the work that its argument names, `integer`, `float`, `memory` or `json`, and prints the
    /// name, the nanoseconds it took and a checksum: the benchmarks' guest for computing.
    COMPUTE = "compute";
    /// Divides by zero.
    DIVIDE = "divide";
    /// Prints its environment, one variable per line.
    ENV = "env";
    /// [`ENV`] as a component.
    ENV_COMPONENT = "env.component";
    /// Exits with the size of its memory: 42 pages of one byte.
    CUSTOM_PAGE_SIZE = "custom-page-size";
    /// Makes 4000 calls, one in the other, which 64 KiB of stack are too small for.
    DEEP = "deep";
    /// Tries to get out of its only preopen, `/data`, and prints `denied` if all attempts failed.
    ESCAPE = "escape";
    /// A command of WASI 0.3 that prints `Hello from WASI 0.3`. As a command of 0.2 it traps.
    COMMAND_0_3_COMPONENT = "command-0.3.component";
    /// Exits with 3 in `_initialize`, and with 4 in its function `late`.
    EXIT_EARLY = "exit-early";
    /// Exits with the code given as its argument.
    EXIT_CODE = "exit-code";
    /// [`EXIT_CODE`] as a component: every code but 0 is 1, as its adapter knows no other.
    EXIT_CODE_COMPONENT = "exit-code.component";
    /// A component that exits with 3 through `exit-with-code` of `wasi:cli/exit`.
    EXIT_WITH_CODE_COMPONENT = "exit-with-code.component";
    /// Throws an exception, catches it, and exits with 42, which came with it.
    EXCEPTION = "exception";
    /// Writes, lists, renames and removes files in its preopen `/data`, where it doubles `in.txt`
    /// into `out.txt`. Prints `done`.
    FILES = "files";
    /// [`FILES`] as a component.
    FILES_COMPONENT = "files.component";
    /// Allocates structs and arrays of WebAssembly's garbage collection, 400 MB in all and never much
    /// at once, and exits with 42.
    GC = "gc";
    /// Has a memory that it does not export, and does nothing.
    HIDDEN_MEMORY = "hidden-memory";
    /// Prints `Hello from Wasm` and its arguments on one line: the sample and the benchmarks' guest.
    HELLO = "hello";
    /// [`HELLO`] as a component.
    HELLO_COMPONENT = "hello.component";
    /// A component that handles HTTP requests; the path says how. `/echo` answers with the
    /// request's body, `/given` with the variable `NAME` and the file `/data/in.txt`, `/fetch/X`
    /// with the body of `http://X/`, `/connect/N` with what port N of the loopback answers to
    /// `ping`; `/log` writes to both output streams, `/wait` prints `waiting` and answers once
    /// there is a file `/data/go`, `/spin` prints `spinning` and never answers, `/trap` traps; all
    /// others answer `Hello from Wasm`.
    HTTP_COMPONENT = "http.component";
    /// Prints `ready`, then waits for ever without using the processor.
    IDLE = "idle";
    /// [`IDLE`] as a component.
    IDLE_COMPONENT = "idle.component";
    /// Is well-formed but not valid: a function without its result.
    INVALID_BODY = "invalid-body";
    /// Exports `_initialize`, `_start` and `other`; the latter two exit with 42, or with 3 after
    /// `_initialize`.
    INITIALIZE_AND_START = "initialize-and-start";
    /// Prints the length of each argument and each variable, one per line.
    LENGTHS = "lengths";
    /// Has two memories, one with 64-bit addresses, and exits with 42.
    MEMORIES = "memories";
    /// Writes to each page of as many MiB as its argument says, prints `touched`, and with a second
    /// argument waits for ever.
    MEMORY = "memory";
    /// Imports a function that no host has.
    MISSING_IMPORT = "missing-import";
    /// Has no memory. Its function `check` traps unless `_initialize` was called.
    NO_MEMORY = "no-memory";
    /// Reads beyond its memory.
    OUT_OF_BOUNDS = "out-of-bounds";
    /// Exports functions to be called by name, and no `_start`: `greet` prints `greetings`,
    /// `state` prints whether `_initialize` was called, `answer` has a result and `add` has
    /// parameters.
    REACTOR = "reactor";
    /// [`REACTOR`] as a component.
    REACTOR_COMPONENT = "reactor.component";
    /// Tries to change what is in the directory given as its argument, and prints how that failed.
    READ_ONLY = "read-only";
    /// Exits with 42 from a shared memory, to which it is added by an atomic instruction.
    SHARED_MEMORY = "shared-memory";
    /// Prints `spinning`, then uses the processor for ever without calling the host.
    SPIN = "spin";
    /// Writes `started` from its start section, and `running` from `_start`.
    START_SECTION = "start-section";
    /// Exits with 3 in its start section, and with 4 in `_start`.
    START_EXITS = "start-exits";
    /// Recurses without end, in a way that no compiler can make a loop of.
    STACK_OVERFLOW = "stack-overflow";
    /// Writes to standard output and standard error, neither ended by a new line.
    STREAMS = "streams";
    /// [`STREAMS`] as a component.
    STREAMS_COMPONENT = "streams.component";
    /// Grows a table from 10 to 1000 elements.
    TABLE = "table";
    /// Makes a million tail calls and exits with 42.
    TAIL_CALL = "tail-call";
    /// Executes the `unreachable` instruction.
    TRAP = "trap";
    /// [`TRAP`] as a component.
    TRAP_COMPONENT = "trap.component";
    /// Serves HTTP with WasmEdge's sockets on the address and port given as its arguments: prints
    /// `listening`, and answers with the request's body.
    WASMEDGE_SERVER = "wasmedge-server";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_a_guest() {
        for source in std::fs::read_dir("guests").unwrap() {
            let path = source.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "wit") {
                continue;
            }
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(
                ALL.iter()
                    .any(|guest| guest.name().trim_end_matches(".component") == name),
                "{name} is not in ALL"
            );
        }
    }

    #[test]
    fn names_say_which_guests_are_components() {
        for guest in ALL {
            let expected: &[u8] = if guest.name().ends_with(".component") {
                b"\0asm\x0d\0\x01\0"
            } else {
                b"\0asm\x01\0\0\0"
            };
            assert!(guest.wasm().starts_with(expected), "{guest:?}");
        }
    }
}
