//! Face2Diffusion (Shiohara and Yamasaki, CVPR 2024): a face to two vectors that stand in a prompt, made
//! by an encoder of identity at several depths and a mapping.
//!
//! | module | |
//! |---|---|
//! | `msid` | the multi-scale identity encoder |
//! | `mapping` | identity and expression to two vectors |

mod mapping;
mod msid;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

pub use mapping::Mapping;
pub(crate) use msid::canonical_key as canonical_msid_key;
pub use msid::{Msid, MsidConfig};

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::params::ParamBuilder;

/// The vectors that stand for a person in a prompt.
pub const VECTORS: usize = 2;

/// The sizes of encoder and mapping; absent keys are those of the published ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Face2DiffusionConfig {
    /// The encoder.
    pub msid: MsidConfig,
    /// Numbers that describe an expression.
    pub exp_dim: usize,
    /// Channels of the text encoder's inputs.
    pub text_width: usize,
}

impl Default for Face2DiffusionConfig {
    fn default() -> Self {
        Self {
            msid: MsidConfig::default(),
            exp_dim: 64,
            text_width: 768,
        }
    }
}

/// Both networks.
#[derive(Module, Debug)]
pub struct Face2Diffusion {
    msid: Msid,
    mapping: Mapping,
}

impl Face2Diffusion {
    /// The networks in two files, which keys of timm and of transformers name.
    ///
    /// # Errors
    /// A file without a norm head that the sizes name; what does not fit the sizes.
    pub fn of_files(
        config: &Face2DiffusionConfig,
        msid: Checkpoint,
        mapping: Checkpoint,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self {
            msid: Msid::of_file(&config.msid, msid, device)?,
            mapping: Mapping::new(config, &ParamBuilder::from_checkpoint(mapping, device))?,
        })
    }

    /// The encoder.
    pub fn msid(&self) -> &Msid {
        &self.msid
    }

    /// The mapping.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The vectors of a person, [2, text width], from photos [photos, 3, side, side] in -1..1: of the mean
    /// of the photos' identities, without an expression.
    pub fn vectors(&self, photos: Tensor<4>) -> Tensor<2> {
        let identity = self.msid.forward(photos).mean_dim(0);
        let expression = self.mapping.null_expression(1);
        let vectors = self.mapping.forward(identity, expression);
        let [_, count, width] = vectors.dims();
        vectors.reshape([count, width])
    }
}
