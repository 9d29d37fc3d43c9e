//! Random changes of a photo each time it is shown: `augmentation = ".."` of a stage. An augmentation
//! is one file here and its entry in the table below.

mod custom_diffusion;
mod rotation;

use core_model::image_processor::channels_first;
use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The square that a model is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Its side in pixels.
    pub side: u32,
    /// The side in pixels of what becomes one cell of the latents.
    pub cell: u32,
}

impl Frame {
    /// The side of the latents.
    pub fn cells(self) -> usize {
        (self.side / self.cell) as usize
    }
}

/// A photo as it is shown once.
#[derive(Debug, Clone, PartialEq)]
pub struct Augmented {
    /// [3, side, side] from -1 to 1.
    pub pixels: Vec<f32>,
    /// The cells of the latents that the diffusion loss looks at: 1 there and 0 elsewhere, row by row.
    /// Absent: all of them, and the loss is the mean.
    pub mask: Option<Vec<f32>>,
    /// What is said in front of the prompt, one of the augmentation's [`words`](Augmentation::words).
    pub words: Option<&'static str>,
}

impl From<RgbImage> for Augmented {
    /// A photo of which everything is shown and nothing said.
    fn from(photo: RgbImage) -> Self {
        Self {
            pixels: channels_first(&photo),
            mask: None,
            words: None,
        }
    }
}

/// One random change of photos.
pub trait Augmentation {
    /// The changed photo; all randomness comes from `rng`.
    fn apply(&self, photo: &RgbImage, frame: Frame, rng: &mut ChaCha8Rng) -> Augmented;

    /// All that it may say in front of a prompt.
    fn words(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether it gives masks.
    fn has_mask(&self) -> bool {
        false
    }
}

/// Makes the enum that TOML files name from one entry per augmentation.
macro_rules! augmentations {
    ($($(#[$doc:meta])* $module:ident::$variant:ident => $kind:literal),+ $(,)?) => {
        $(pub use $module::$variant;)+

        /// `augmentation = "NAME"` of a stage.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum AugmentationConfig {
            $(
                $(#[$doc])*
                #[serde(rename = $kind)]
                $variant,
            )+
        }

        impl AugmentationConfig {
            /// Every name there is.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];
        }

        impl Augmentation for AugmentationConfig {
            fn apply(&self, photo: &RgbImage, frame: Frame, rng: &mut ChaCha8Rng) -> Augmented {
                match self { $(Self::$variant => $variant.apply(photo, frame, rng)),+ }
            }

            fn words(&self) -> &'static [&'static str] {
                match self { $(Self::$variant => $variant.words()),+ }
            }

            fn has_mask(&self) -> bool {
                match self { $(Self::$variant => $variant.has_mask()),+ }
            }
        }
    };
}

augmentations! {
    /// Random rotation (in three of four cases, by up to 45 degrees), mirroring (in one of four) and
    /// cropping, as in the public code of CoRe and AttnDreamBooth.
    rotation::Rotation => "rotation",
    /// Random scales with words about them in front of the prompt, and a diffusion loss on the part of
    /// the frame that the photo fills, as in diffusers' Custom Diffusion. The loss is the sum over the
    /// four channels, so other terms weigh a quarter of what they do without it.
    custom_diffusion::CustomDiffusion => "custom_diffusion",
}
