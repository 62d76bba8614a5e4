//! The root, names, labels, annotations and what else concerns the whole container.

use serde_json::json;

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("root: read-only", |stage| {
            stage.spec["root"]["readonly"] = json!(true);
            stage.steps(&["write:/etc/new", "write:/tmp/new", "write:/run/new"]);
        }),
        Case::new("root: read-only with mounts in it", |stage| {
            stage.spec["root"]["readonly"] = json!(true);
            stage.bind("/v/missing", &["rbind", "rw"]);
            stage.steps(&["write:/v/missing/new"]);
        }),
        Case::new("hostname: a new one", |stage| {
            stage.spec["hostname"] = json!("parity.example");
        }),
        Case::new("domainname: a new one", |stage| {
            stage.spec["domainname"] = json!("example.invalid");
        }),
        Case::new("hostname: for an exec too", |stage| {
            stage.spec["hostname"] = json!("parity");
        })
        .exec(|_| {}),
        Case::new("annotations: hooks get them", |stage| {
            stage.spec["annotations"] = json!({ "a.example": "1", "b": "" });
            stage.hook("createRuntime", &[], json!({}));
        }),
        Case::new("ociVersion: an old one", |stage| {
            stage.spec["ociVersion"] = json!("1.0.0");
        }),
        Case::new("ociVersion: a new one", |stage| {
            stage.spec["ociVersion"] = json!("1.3.0");
        }),
        Case::new(
            "maskedPaths: files, directories and missing ones",
            |stage| {
                stage.directory("/secret/below").file("/etc/secret", "x");
                let masked = ["/secret", "/etc/secret", "/not/there", "/proc/kcore"];
                stage.linux(json!({ "maskedPaths": masked }));
                stage.steps(&["list:/secret", "read:/etc/secret", "write:/etc/secret"]);
            },
        ),
        Case::new(
            "readonlyPaths: files, directories and missing ones",
            |stage| {
                stage.directory("/fixed").file("/etc/fixed", "x");
                stage.linux(
                    json!({ "readonlyPaths": ["/fixed", "/etc/fixed", "/none", "/proc/sys"] }),
                );
                stage.steps(&[
                    "write:/fixed/new",
                    "write:/etc/fixed",
                    "open:/proc/sys/vm/swappiness",
                ]);
            },
        ),
        Case::new("maskedPaths: through a link", |stage| {
            stage.directory("/secret/below").link("/secret", "/link");
            stage.linux(json!({ "maskedPaths": ["/link"] }));
            stage.steps(&["list:/secret"]);
        }),
        Case::new("solaris: has no effect", |stage| {
            stage.spec["solaris"] = json!({ "milestone": "a" });
        }),
        Case::new("windows: has no effect", |stage| {
            stage.spec["windows"] = json!({ "layerFolders": ["a"] });
        }),
        Case::new("vm: has no effect", |stage| {
            stage.spec["vm"] = json!({ "kernel": { "path": "/a" } });
        }),
        Case::new("zos: has no effect", |stage| {
            stage.spec["zos"] = json!({ "namespaces": [] });
        }),
        Case::new("mappings outside of linux: have no effect", |stage| {
            let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
            stage.spec["uidMappings"] = map.clone();
            stage.spec["gidMappings"] = map;
        }),
        Case::new("intelRdt: an empty one has no effect", |stage| {
            stage.linux(json!({ "intelRdt": {} }));
        }),
    ];
    cases.extend(propagation());
    cases
}

/// The propagation of the root, seen by mounts that are made while the container runs.
fn propagation() -> Vec<Case> {
    macro_rules! root {
        ($($name:literal $kind:literal),*) => { vec![$(
            Case::new($name, |stage| {
                stage.linux(json!({ "rootfsPropagation": $kind }));
                stage.bind("/v", &["rbind"]);
            })
            .meanwhile(super::mounts::mount_in_source)
            .as_the_node(),
        )*] };
    }
    root![
        "rootfsPropagation: private" "private",
        "rootfsPropagation: rprivate" "rprivate",
        "rootfsPropagation: slave" "slave",
        "rootfsPropagation: rslave" "rslave",
        "rootfsPropagation: shared" "shared",
        "rootfsPropagation: rshared" "rshared",
        "rootfsPropagation: unbindable" "unbindable",
        "rootfsPropagation: runbindable" "runbindable"
    ]
}
