//! Which programs are run, what each of them is given to do, and what must come of it.

use shimwright_testenv::package::{Binary, CPYTHON, PHP, QUICKJS, RUBY, SQLITE};

/// A program and its work: over a directory of the host that is mounted at [`MOUNT`].
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// What it does, for the documentation.
    pub(crate) does: &'static str,
    pub(crate) binary: &'static Binary,
    pub(crate) args: &'static [&'static str],
    /// The files of the directory before it runs.
    pub(crate) given: &'static [(&'static str, &'static str)],
    /// What it must have written to its standard output.
    pub(crate) stdout: &'static str,
    /// Files that must be in the directory afterwards, and what they begin with.
    pub(crate) made: &'static [(&'static str, &'static str)],
}

/// A file of the directory `work`, by its name. The scripts know where they are mounted.
macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("work/", $name)))
    };
}

/// Where the directory is in the container.
pub(crate) const MOUNT: &str = "/work";

/// A program that an engine is known not to run.
pub(crate) struct Gap {
    pub(crate) program: &'static str,
    pub(crate) engine: &'static str,
    /// Why, for the documentation.
    pub(crate) reason: &'static str,
    /// What its standard error says then: another failure is none of this gap.
    pub(crate) shows: &'static str,
}

pub(crate) const GAPS: &[Gap] = &[
    Gap {
        program: "SQLite 3.26, its shell",
        engine: "Wasmtime",
        reason: PREVIEW_0,
        shows: "wasi_unstable",
    },
    Gap {
        program: "SQLite 3.26, its shell",
        engine: "WasmEdge",
        reason: PREVIEW_0,
        shows: "wasi_unstable",
    },
    Gap {
        program: "SQLite 3.26, its shell",
        engine: "wasmi",
        reason: PREVIEW_0,
        shows: "wasi_unstable",
    },
];

const PREVIEW_0: &str = "it was built for WASI preview 0, `wasi_unstable`";

pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "CPython 3.12",
        does: "reads a list with `re`, adds it up with `sqlite3` in a file, writes a report with \
               `json`",
        binary: &CPYTHON,
        args: &["/work/report.py"],
        given: &[file!("report.py"), file!("orders.txt")],
        stdout: "CPython 3.12.0 on wasi: 4 orders, 3 customers\n",
        made: &[
            (
                "report.json",
                r#"{"Ada": 130.25, "Grace": 80.5, "Zoë": 99.99}"#,
            ),
            ("orders.db", "SQLite format 3\0"),
        ],
    },
    Program {
        name: "SQLite, in CPython",
        does: "builds a database of 1000 rows in a file, opens it again, and queries it",
        binary: &CPYTHON,
        args: &["/work/database.py"],
        given: &[file!("database.py")],
        stdout: "1000 rows\n\
                 group 0: 143 rows, 47262215 in all\n\
                 group 6: 142 rows, 47120215 in all\n\
                 by index: True\n\
                 integrity: ok\n",
        made: &[("squares.db", "SQLite format 3\0")],
    },
    Program {
        name: "SQLite 3.26, its shell",
        does: "the same in SQL, from a file",
        binary: &SQLITE,
        args: &["-batch", "/work/squares.db", ".read /work/squares.sql"],
        given: &[file!("squares.sql")],
        stdout: "1000\n\
                 0|143|47262215\n\
                 6|142|47120215\n\
                 3.26.0\n",
        made: &[("squares.db", "SQLite format 3\0")],
    },
    Program {
        name: "QuickJS",
        does: "reads JSON, computes with regular expressions, closures and big integers, prints \
               JSON",
        binary: &QUICKJS,
        args: &["--std", "/work/compute.js"],
        given: &[file!("compute.js"), file!("words.json")],
        stdout: "{\"longest\":\"sandbox\",\"primes\":1229,\"factorial\":\"2432902008176640000\",\
                 \"vowels\":{\"a\":1,\"e\":4,\"i\":2,\"o\":2,\"u\":2}}\n",
        made: &[],
    },
    Program {
        name: "Ruby 3.2",
        does: "reads a file, counts its words, and writes the most frequent ones",
        binary: &RUBY,
        args: &["/work/words.rb"],
        given: &[file!("words.rb"), file!("text.txt")],
        stdout: "Ruby 3.2.0 on wasm32-wasi: 20 words, 11 different\n",
        made: &[("frequent.txt", "the 6\nshim 3\nguest 2\n")],
    },
    Program {
        name: "PHP-CGI 8.2",
        does: "runs a page that reads a file and renders it",
        binary: &PHP,
        args: &["-q", "/work/page.php"],
        given: &[file!("page.php"), file!("text.txt")],
        stdout: "<h1>PHP 8.2</h1>\n\
                 <li>The shim starts the guest</li>\n\
                 <li>the guest is in the sandbox of the shim</li>\n\
                 <li>and of the shim no more</li>\n\
                 {\"lines\":3,\"sha1\":\"9ad05f0f89395e5ddbb0db93e417197c2fdaad9d\"}\n",
        made: &[("lines.txt", "3")],
    },
];
