//! Random changes of a photo each time it is shown: `augmentation = ".."` of a stage. An augmentation
//! is one file here and its entry in the table below.

mod rotation;

use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One random change of photos.
pub trait Augmentation {
    /// The changed photo, a square of `side` pixels; all randomness comes from `rng`.
    fn apply(&self, photo: &RgbImage, side: u32, rng: &mut ChaCha8Rng) -> RgbImage;
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
            fn apply(&self, photo: &RgbImage, side: u32, rng: &mut ChaCha8Rng) -> RgbImage {
                match self { $(Self::$variant => $variant.apply(photo, side, rng)),+ }
            }
        }
    };
}

augmentations! {
    /// Random rotation (in three of four cases, by up to 45 degrees), mirroring (in one of four) and
    /// cropping, as in the public code of CoRe and AttnDreamBooth.
    rotation::Rotation => "rotation",
}
