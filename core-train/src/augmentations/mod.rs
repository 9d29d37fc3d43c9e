//! What happens to a photo each time it is shown: `augmentation = ".."` of a stage. An
//! augmentation is one file here and one line in the table below.

mod rotation;

use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// One way to change photos.
pub trait Augmentation {
    /// The photo as a square of `side` pixels, changed as the random numbers say.
    fn apply(&self, photo: &RgbImage, side: u32, rng: &mut ChaCha8Rng) -> RgbImage;
}

/// Makes the enum that TOML files name from one line per augmentation.
macro_rules! augmentations {
    ($($module:ident::$variant:ident => $kind:literal),+ $(,)?) => {
        $(pub use $module::$variant;)+

        /// `augmentation = "NAME"` of a stage.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum AugmentationConfig {
            $(
                #[doc = concat!("`", $kind, "`.")]
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
    rotation::Rotation => "rotation",
}
