//! The manifest of a pipeline: `pipeline.json`.

use serde::Deserialize;
use shimwright_core::{BoxError, Manifest, Plan, Source};

/// The name of the input among the files of an application.
pub(crate) const INPUT: &str = "input";

/// Components that run one after the other. The output of one is the input of the next.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pipeline {
    /// What the first stage reads, if it is not the container's standard input.
    input: Option<Place>,
    pub(crate) stages: Vec<Stage>,
}

/// One component, which is a command.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stage {
    pub(crate) name: String,
    source: Place,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    /// The stage is left out unless this variable is set.
    when: Option<String>,
}

/// A file in the root file system, or a layer of the image.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    path: Option<String>,
    digest: Option<String>,
}

impl Place {
    fn source(self) -> Result<Source, BoxError> {
        match (self.path, self.digest) {
            (Some(path), None) => Ok(Source::path(path)),
            (None, Some(digest)) => Ok(Source::layer(digest)),
            _ => Err("it needs one of `path` and `digest`, and not both".into()),
        }
    }
}

impl Pipeline {
    /// Reads a manifest, for a container with this environment.
    pub(crate) fn parse(manifest: &Manifest, env: &[(String, String)]) -> Result<Self, BoxError> {
        let mut pipeline: Self = serde_json::from_slice(manifest.bytes())?;
        let is_set = |variable: &String| env.iter().any(|(name, _)| name == variable);
        let stages = &mut pipeline.stages;
        stages.retain(|stage| stage.when.as_ref().is_none_or(is_set));
        Ok(pipeline)
    }

    /// The parts that core is to get.
    pub(crate) fn plan(self) -> Result<Plan, BoxError> {
        let mut plan = Plan::new();
        for stage in self.stages {
            let source = stage.source.source();
            let source = source.map_err(|error| format!("stage {:?}: {error}", stage.name))?;
            plan = plan.component(stage.name, source);
        }
        if let Some(input) = self.input {
            let source = input.source().map_err(|error| format!("input: {error}"))?;
            plan = plan.file(INPUT, source);
        }
        Ok(plan)
    }
}
