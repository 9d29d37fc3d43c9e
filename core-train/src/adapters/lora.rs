//! `lora`: changes of low rank beside the weights of layers (Hu et al. 2021).

use std::path::Path;

use core_model::Precision;
use core_model::lora::{LayerNames, Lora as LoraFile, LoraForm, parameter};
use core_model::params::{Added, Extension};
use core_model::personalized::PersonalizedModel;
use core_model::pipeline::StableDiffusionPipeline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::targets::Targets;
use super::{Adapter, Loading, Trained, refuse};
use crate::error::Result;

/// The file in a run folder.
pub const LORA: &str = "lora.safetensors";

/// Changes of low rank beside the weights of layers (LoRA), which stay as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// The rank of the changes.
    pub rank: usize,
    /// The numerator of their factor, alpha / rank. Absent: the rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// The layers that are changed.
    pub targets: Targets,
    /// Whether layers of the text encoder are changed as well.
    pub text_encoder: bool,
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            rank: 4,
            alpha: None,
            targets: Targets::default(),
            text_encoder: false,
        }
    }
}

impl Lora {
    fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(self.rank as f64)
    }
}

impl Adapter for Lora {
    fn moves(&self, name: &str) -> bool {
        name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")
    }

    fn extend(&self, model: PersonalizedModel, seed: u64) -> Result<PersonalizedModel> {
        if self.rank == 0 {
            return Err(refuse(
                "lora",
                "has `rank` 0, which changes nothing; 4 is usual",
            ));
        }
        if self
            .alpha
            .is_some_and(|alpha| !alpha.is_finite() || alpha == 0.0)
        {
            return Err(refuse("lora", "has an `alpha` that is 0, NaN or infinite"));
        }
        let layers = self.targets.layers(&model, self.text_encoder);
        let extension = Extension {
            added: Added::LowRank {
                rank: self.rank,
                scale: self.alpha() / self.rank as f64,
            },
            layers: layers.map_err(|reason| refuse("lora", &reason))?,
            seed,
        };
        Ok(model.extended(extension)?)
    }

    fn parameter(&self, key: &str) -> Option<String> {
        parameter(key)
    }

    fn file(&self) -> &'static str {
        LORA
    }

    fn save(&self, trained: &Trained<'_>, path: &Path) -> Result<()> {
        let mut file = LoraFile::of_model(trained.model, self.alpha());
        file.metadata = trained.metadata();
        Ok(file.save(path, LoraForm::Diffusers, Precision::Float32)?)
    }

    fn load(
        &self,
        path: &Path,
        loading: Loading<'_>,
        mut pipeline: StableDiffusionPipeline,
    ) -> Result<StableDiffusionPipeline> {
        let file = LoraFile::load(path, &LayerNames::of_model(&pipeline.model))?;
        pipeline.model = file.merge(pipeline.model, loading.lora_scale)?;
        Ok(pipeline)
    }
}
