//! Hooks of every stage: what they are given, where and in which order they run, what failures do.

use serde_json::json;

use crate::Case;

/// The stages whose hooks run on the node.
const OF_THE_NODE: [&str; 5] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "poststart",
    "poststop",
];

/// One case for each stage.
macro_rules! stages {
    ($($stage:literal),*) => { vec![$(
        Case::new(concat!("hooks: ", $stage), |stage| {
            stage.hook($stage, &["word"], json!({}));
        }),
        Case::new(concat!("hooks: ", $stage, ", with an environment"), |stage| {
            stage.hook($stage, &[], json!({ "env": ["A=b", "PATH=/bin"], "timeout": 10 }));
        }),
        Case::new(concat!("hooks: ", $stage, ", that fails"), |stage| {
            stage.hook($stage, &["exit=3"], json!({}));
            stage.hook($stage, &["second"], json!({}));
        })
        .refused_by_stage($stage),
        Case::new(concat!("hooks: ", $stage, ", that is not there"), |stage| {
            stage.add_hook($stage, json!({ "path": "/not/there" }), json!({}));
            stage.hook($stage, &["second"], json!({}));
        })
        .refused_by_stage($stage),
    )*] };
}

impl Case {
    /// The failure of a hook ends the container, unless it has ended already.
    fn refused_by_stage(self, stage: &str) -> Self {
        if stage == "poststop" {
            self
        } else {
            self.refused("hook")
        }
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = stages![
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop"
    ];
    cases.extend([
        Case::new("hooks: startContainer", |stage| {
            stage.inner_hook(&["word"], json!({}));
        }),
        Case::new("hooks: startContainer, with an environment", |stage| {
            stage.inner_hook(&[], json!({ "env": ["A=b"], "timeout": 10 }));
        }),
        Case::new("hooks: startContainer, of another user", |stage| {
            stage.inner_hook(&[], json!({}));
            stage.process(json!({ "user": { "uid": 1000, "gid": 1000 } }));
        }),
        Case::new("hooks: startContainer, that fails", |stage| {
            stage.inner_hook(&["exit=3"], json!({}));
        })
        .refused("hook"),
        Case::new("hooks: startContainer, that is not there", |stage| {
            stage.add_hook("startContainer", json!({ "path": "/bin/nope" }), json!({}));
        })
        .refused("/bin/nope"),
        Case::new("hooks: all stages in their order", |stage| {
            for name in OF_THE_NODE {
                stage.hook(name, &["first"], json!({}));
                stage.hook(name, &["second"], json!({}));
            }
            stage
                .inner_hook(&["first"], json!({}))
                .inner_hook(&["second"], json!({}));
        }),
        Case::new("hooks: all stages in a user namespace", |stage| {
            super::namespaces::user(stage);
            for name in OF_THE_NODE {
                stage.hook(name, &[], json!({}));
            }
        }),
        Case::new(
            "hooks: all stages with a cgroup and a time namespace",
            |stage| {
                stage
                    .namespace(json!({ "type": "cgroup" }))
                    .namespace(json!({ "type": "time" }));
                for name in OF_THE_NODE {
                    stage.hook(name, &[], json!({}));
                }
            },
        ),
        Case::new("hooks: one that reads nothing", |stage| {
            for name in OF_THE_NODE {
                stage.add_hook(name, json!({ "path": "/bin/true" }), json!({}));
            }
            stage.spec["annotations"] = json!({ "large": "x".repeat(128 << 10) });
        }),
        Case::new("hooks: one that takes too long", |stage| {
            let args = ["sleep", "20"];
            let hook = json!({ "path": "/bin/sleep", "args": args, "timeout": 1 });
            stage.add_hook("createRuntime", hook, json!({}));
        })
        .refused("hook"),
        Case::new("hooks: a program that fails and poststop", |stage| {
            stage.hook("poststop", &[], json!({})).steps(&["exit=9"]);
        }),
    ]);
    cases
}
