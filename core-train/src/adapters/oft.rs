//! `oft`: rotations of the inputs of layers (OFT, Qiu et al. 2023), near the identity with a
//! `constraint` (COFT).

use std::path::Path;

use burn::tensor::Tensor;
use core_model::oft::{Oft as OftFolder, projected};
use core_model::params::{Added, Extension};
use core_model::personalized::PersonalizedModel;
use core_model::pipeline::StableDiffusionPipeline;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::targets::Targets;
use super::{Adapter, Loading, Trained, refuse};
use crate::error::Result;

/// The folder in a run folder, as PEFT writes one.
pub const OFT: &str = "oft";

/// Rotations of the inputs of the U-Net's layers (OFT), whose weights stay as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Oft {
    /// The number of blocks of a layer's inputs that are rotated apart from each other. It divides the
    /// inputs of every layer.
    pub blocks: usize,
    /// How far a block may be from the identity (COFT's epsilon, 6e-5 as published): the norm of its
    /// parameters is at most `constraint * side^2 / sqrt(blocks)`. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint: Option<f64>,
    /// The layers that are rotated.
    pub targets: Targets,
}

impl Default for Oft {
    fn default() -> Self {
        Self {
            blocks: 4,
            constraint: None,
            targets: Targets::default(),
        }
    }
}

impl Adapter for Oft {
    fn moves(&self, name: &str) -> bool {
        name.ends_with(".oft_R")
    }

    fn extend(&self, model: PersonalizedModel, seed: u64) -> Result<PersonalizedModel> {
        if self.blocks == 0 {
            return Err(refuse(
                "oft",
                "has 0 `blocks`, expected at least 1; 4 is usual",
            ));
        }
        if self
            .constraint
            .is_some_and(|eps| !eps.is_finite() || eps <= 0.0)
        {
            return Err(refuse(
                "oft",
                "has a `constraint` that is not above 0; 6e-5 is usual",
            ));
        }
        let layers = self.targets.layers(&model, false);
        let extension = Extension {
            added: Added::Rotation {
                blocks: self.blocks,
            },
            layers: layers.map_err(|reason| refuse("oft", &reason))?,
            seed,
        };
        Ok(model.extended(extension)?)
    }

    /// COFT's projection. The public code projects before the forward pass, which is the same
    /// trajectory; here what is stored obeys as well.
    fn constrain(&self, value: Tensor<1>) -> Tensor<1> {
        let Some(eps) = self.constraint else {
            return value;
        };
        let count = value.dims()[0];
        let side = (count / self.blocks).isqrt();
        let bound = eps * (side * side) as f64 / (self.blocks as f64).sqrt();
        let blocks = value.reshape([self.blocks, side, side]);
        projected(blocks, bound as f32).reshape([count])
    }

    fn file(&self) -> &'static str {
        OFT
    }

    /// The strict upper triangle of every block.
    fn numbers_written(&self, shape: &[usize]) -> u64 {
        let side = shape.last().copied().unwrap_or(0) as u64;
        let blocks = shape.first().copied().unwrap_or(0) as u64;
        blocks * side * side.saturating_sub(1) / 2
    }

    fn save(&self, trained: &Trained<'_>, path: &Path) -> Result<()> {
        Ok(OftFolder::of_model(trained.model).save(path)?)
    }

    fn load(
        &self,
        path: &Path,
        _: Loading<'_>,
        mut pipeline: StableDiffusionPipeline,
    ) -> Result<StableDiffusionPipeline> {
        pipeline.model = OftFolder::load(path)?.merge(pipeline.model)?;
        Ok(pipeline)
    }
}
