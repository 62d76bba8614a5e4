//! Decides which layers of an image make an application, and whether the plan of one can be
//! followed, without input or output.
//!
//! The image's manifest and the application's come from the image, and the plan from a process that
//! has read the latter: nothing of them is trusted.

use std::collections::HashSet;
use std::path::{Component, Path};

use oci_spec::image::{Descriptor, ImageManifest};
use serde::{Deserialize, Serialize};

use crate::engine::application::{
    ApplicationFormat, LayerRecord, PartRecord, PlanRecord, Requirement, SourceRecord,
};
use crate::engine::limits::Limits;
use crate::error::{Error, printable};

/// The largest manifest of an application, in bytes.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// The most components that an application may have.
pub(crate) const MAX_COMPONENTS: usize = 128;
/// The most files.
const MAX_FILES: usize = 1024;
/// The most layers that are considered of an image.
const MAX_LAYERS: usize = 2048;
/// The longest name of a component or file, and the longest path, in bytes.
const MAX_NAME: usize = 4096;

/// The media types of an application's layers; none for an engine that runs no applications.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerTypes {
    manifests: Vec<String>,
    components: Vec<String>,
    files: Vec<String>,
}

impl LayerTypes {
    pub(crate) fn of(format: ApplicationFormat) -> Self {
        let owned = |types: &[&str]| types.iter().map(|&name| name.to_owned()).collect();
        Self {
            manifests: owned(format.manifest_types),
            components: owned(format.component_types),
            files: owned(format.file_types),
        }
    }

    /// Whether layers of this type are components.
    pub(crate) fn is_component(&self, media_type: &str) -> bool {
        self.components.iter().any(|known| known == media_type)
    }
}

/// The layers of an image that make an application.
#[derive(Debug)]
pub(crate) struct Selection<'a> {
    pub(crate) manifest: &'a Descriptor,
    /// Components and files, in the order of the image.
    pub(crate) layers: Vec<&'a Descriptor>,
}

/// Selects the layers of an application; `None` if the image has no manifest of one.
///
/// # Errors
///
/// `Invalid` if it has several manifests, or too many layers.
pub(crate) fn select<'a>(
    image: &'a ImageManifest,
    types: &LayerTypes,
) -> Result<Option<Selection<'a>>, Error> {
    let is_of = |types: &[String], layer: &Descriptor| {
        let media_type = layer.media_type().to_string();
        types.contains(&media_type)
    };
    let manifests = image.layers().iter();
    let mut manifests = manifests.filter(|layer| is_of(&types.manifests, layer));
    let manifest = match (manifests.next(), manifests.next()) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "the image has several layers that are manifests of an application",
            ));
        }
        (Some(one), None) => one,
        (None, _) if is_of(&types.manifests, image.config()) => image.config(),
        (None, _) => return Ok(None),
    };
    let layers = image.layers().iter();
    let is_part =
        |layer: &&Descriptor| is_of(&types.components, layer) || is_of(&types.files, layer);
    let layers: Vec<_> = layers.filter(is_part).take(MAX_LAYERS + 1).collect();
    if layers.len() > MAX_LAYERS {
        return Err(Error::invalid(format!(
            "the image has more than {MAX_LAYERS} layers of an application"
        )));
    }
    Ok(Some(Selection { manifest, layers }))
}

/// Checks a plan against the layers of its image.
///
/// # Errors
///
/// `Invalid` with the part that cannot be.
pub(crate) fn check(plan: &PlanRecord, layers: &[LayerRecord]) -> Result<(), Error> {
    let (components, files) = (&plan.components, &plan.files);
    if components.is_empty() {
        return Err(Error::invalid("the application has no component"));
    }
    for (what, parts, most) in [
        ("component", components, MAX_COMPONENTS),
        ("file", files, MAX_FILES),
    ] {
        if parts.len() > most {
            return Err(Error::invalid(format!(
                "the application has {} {what}s, more than {most}",
                parts.len()
            )));
        }
        let mut names = HashSet::new();
        for part in parts {
            let wrong = wrong(part, layers);
            let wrong = wrong.or_else(|| {
                let is_new = names.insert(&part.name);
                (!is_new).then(|| "the name is not unique".to_owned())
            });
            if let Some(reason) = wrong {
                return Err(Error::invalid(format!("{}: {reason}", title(what, part))));
            }
        }
    }
    Ok(())
}

/// A part, for a message: names are the image's, and may be long.
pub(crate) fn title(what: &str, part: &PartRecord) -> String {
    let start = part.name.floor_char_boundary(100);
    let name = printable(&part.name[..start]);
    format!("{what} \"{name}\"")
}

fn wrong(part: &PartRecord, layers: &[LayerRecord]) -> Option<String> {
    if part.name.is_empty() || part.name.len() > MAX_NAME {
        return Some("the name is empty or too long".to_owned());
    }
    match &part.source {
        SourceRecord::Path(path) => {
            let shown = &path[..path.floor_char_boundary(100)];
            let components = Path::new(path).components();
            let mut names = components.filter(|part| !matches!(part, Component::RootDir));
            let reason = if path.is_empty() || path.len() > MAX_NAME || path.contains('\0') {
                "is not a path"
            } else if names.any(|part| part == Component::ParentDir) {
                "leaves the root file system"
            } else {
                return None;
            };
            Some(format!("the path {shown:?} {reason}"))
        }
        SourceRecord::Layer(digest) => {
            let shown = &digest[..digest.floor_char_boundary(100)];
            let is_there = layers.iter().any(|layer| layer.digest == *digest);
            (!is_there).then(|| {
                format!("the digest {shown:?} is of no layer of the image that the engine knows")
            })
        }
    }
}

/// Checks that a container with these limits has what the application requires.
///
/// # Errors
///
/// `Invalid` with the limit that is in the way.
pub(crate) fn check_requirements(plan: &PlanRecord, limits: &Limits) -> Result<(), Error> {
    for requirement in &plan.requirements {
        let (is_lacking, what, limit) = match requirement {
            Requirement::Network => (limits.isolates_network(), "a network", "network"),
            Requirement::RootFileSystem => (limits.hides_image(), "the root file system", "rootfs"),
        };
        if is_lacking {
            return Err(Error::invalid(format!(
                "the application requires {what}, and the container has the limit {limit} = none"
            )));
        }
    }
    Ok(())
}

/// Selects the layers of an image and follows a plan, see [`crate::fuzzing`].
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let text = "a/manifest";
    let format = ApplicationFormat {
        manifest_paths: &[],
        manifest_types: &["a/manifest"],
        component_types: &["application/wasm"],
        file_types: &["a/file"],
    };
    if let Ok(image) = serde_json::from_slice::<ImageManifest>(bytes)
        && let Ok(Some(selection)) = select(&image, &LayerTypes::of(format))
    {
        assert_eq!(selection.manifest.media_type().to_string(), text);
        assert!(selection.layers.len() <= MAX_LAYERS);
    }
    if let Ok(plan) = serde_json::from_slice::<PlanRecord>(bytes)
        && check(&plan, &[]).is_ok()
    {
        assert!((1..=MAX_COMPONENTS).contains(&plan.components.len()));
        for part in plan.components.iter().chain(&plan.files) {
            let SourceRecord::Path(path) = &part.source else {
                panic!("there are no layers");
            };
            assert!(
                Path::new(path)
                    .components()
                    .all(|c| c != Component::ParentDir)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::application::{Plan, Source};

    const TYPES: ApplicationFormat = ApplicationFormat {
        manifest_paths: &[],
        manifest_types: &["a/manifest"],
        component_types: &["a/component"],
        file_types: &["a/file"],
    };

    fn image(config: &str, layers: &[&str]) -> ImageManifest {
        let descriptor = |index: usize, media_type: &str| {
            format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{index:064}","size":1}}"#)
        };
        let layers = layers.iter().enumerate();
        let layers: Vec<_> = layers
            .map(|(index, layer)| descriptor(index, layer))
            .collect();
        let config = descriptor(99, config);
        let text = format!(
            r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#,
            layers.join(",")
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_manifest_is_a_layer_or_the_configuration_and_the_parts_follow() {
        let types = LayerTypes::of(TYPES);
        let found = image("x/y", &["a/file", "a/manifest", "tar", "a/component"]);
        let selection = select(&found, &types).unwrap().unwrap();
        assert_eq!(selection.manifest, &found.layers()[1]);
        assert_eq!(selection.layers, [&found.layers()[0], &found.layers()[3]]);
        assert!(types.is_component("a/component") && !types.is_component("a/file"));

        let old = image("a/manifest", &["a/component"]);
        let selection = select(&old, &types).unwrap().unwrap();
        assert_eq!(selection.manifest, old.config());

        assert!(
            select(&image("x/y", &["a/component"]), &types)
                .unwrap()
                .is_none()
        );
        assert!(select(&found, &LayerTypes::default()).unwrap().is_none());
        let two = image("x/y", &["a/manifest", "a/manifest"]);
        assert!(
            select(&two, &types)
                .unwrap_err()
                .to_string()
                .contains("several layers")
        );
        let many = ["a/manifest"].into_iter().chain([("a/file"); 2049]);
        let many = image("x/y", &many.collect::<Vec<_>>());
        assert!(
            select(&many, &types)
                .unwrap_err()
                .to_string()
                .contains("more than 2048")
        );
    }

    fn refusal(plan: Plan) -> String {
        let layers = [LayerRecord {
            media_type: "a/b".to_owned(),
            digest: "sha256:1".to_owned(),
            size: 1,
        }];
        check(&plan.0, &layers).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_plan_that_cannot_be_followed_is_refused_with_the_part() {
        let one = || Plan::new().component("a", Source::path("/a.wasm"));
        assert_eq!(refusal(one()), "");
        assert_eq!(refusal(one().component("b", Source::layer("sha256:1"))), "");
        assert_eq!(
            refusal(one().file("a", Source::path("./b/../b"))),
            "file \"a\": the path \"./b/../b\" leaves the root file system"
        );
        assert_eq!(refusal(Plan::new()), "the application has no component");
        assert_eq!(
            refusal(one().component("a", Source::path("b"))),
            "component \"a\": the name is not unique"
        );
        assert_eq!(
            refusal(one().component("\n", Source::path("../../etc/shadow"))),
            "component \"\\n\": the path \"../../etc/shadow\" leaves the root file system"
        );
        assert_eq!(
            refusal(one().component("b", Source::layer("sha256:2"))),
            "component \"b\": the digest \"sha256:2\" is of no layer of the image that the engine \
             knows"
        );
        for path in ["", "a\0b", &"x".repeat(5000)] {
            let reason = refusal(one().file("f", Source::path(path)));
            assert!(reason.contains("is not a path"), "{reason}");
            assert!(reason.len() < 300, "{reason}");
        }
        let long = refusal(one().component("n".repeat(5000), Source::path("a")));
        assert!(
            long.ends_with("the name is empty or too long") && long.len() < 300,
            "{long}"
        );
        let many = |what: fn(Plan, String) -> Plan, count: usize| {
            refusal((0..count).fold(Plan::new(), |plan, n| what(plan, n.to_string())))
        };
        let component = |plan: Plan, name| plan.component(name, Source::path("a"));
        assert_eq!(many(component, 128), "");
        assert_eq!(
            many(component, 129),
            "the application has 129 components, more than 128"
        );
    }

    #[test]
    fn what_an_application_requires_it_has() {
        let limits = |text: &str| toml::from_str::<Limits>(text).unwrap();
        let plan = Plan::new().requires_network().requires_root_file_system().0;
        assert!(check_requirements(&plan, &limits("outbound = []")).is_ok());
        for (limit, expected) in [
            (
                "network = 'none'",
                "requires a network, and the container has the limit network",
            ),
            (
                "rootfs = 'none'",
                "requires the root file system, and the container has the limit",
            ),
        ] {
            let error = check_requirements(&plan, &limits(limit))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
            assert!(check_requirements(&Plan::new().0, &limits(limit)).is_ok());
        }
    }
}
