//! `[validation]` of an experiment: images during training, scored with the experiment's own encoders.

use core_train::config::ValidationConfig;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Evaluation;

/// Images during training, of every run and always from the same noise, so that they show what training
/// changes and which step is the best.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// The number of steps between two sets of images; it is counted anew in each stage.
    every: usize,
    /// One image is drawn for each of these prompts. `{}` stands for the concept.
    prompts: Vec<String>,
    /// Whether the images are scored with the encoders of `[evaluation]`, as under the protocol
    /// `dreambooth`; the means stand in `validation.csv`.
    #[serde(default)]
    pub(crate) scores: bool,
}

impl Validation {
    /// The same for one run.
    pub(super) fn of_run(&self, evaluation: &Evaluation) -> ValidationConfig {
        let encoders = evaluation.encoders.encoders();
        // Nothing finds faces in validation images.
        let encoders = encoders.filter(|(kind, _)| !kind.reads_faces());
        let encoders = encoders.map(|(kind, folder)| (kind.key.to_string(), folder.path().into()));
        ValidationConfig {
            every: self.every,
            prompts: self.prompts.clone(),
            scores: self.scores,
            encoders: match self.scores {
                true => encoders.collect(),
                false => Default::default(),
            },
        }
    }
}
