//! The objective of CoRe (Wu et al., AAAI 2025): tensors in, scalars out.
//!
//! | the paper | module |
//! |---|---|
//! | Eq. 1 and 2, diffusion loss | [`diffusion`] |
//! | Eq. 3, context embedding regularisation | [`context_embedding`] |
//! | Eq. 4, context attention regularisation | [`context_attention`] |
//! | Eq. 5, their weighted sum | [`objective`] |
//! | which tokens are context | [`context`] |
//!
//! The crate knows no network and no file. A regulariser is one file that implements
//! [`Regularizer`] and one line in the table below.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use core_losses::{Context, ContextPair, PromptSpan, Regularizer, RegularizerConfig, RegularizerInput};
//!
//! // "a <robot> in space" beside "a stuffed animal in space": BOS, words, EOT.
//! let learned = PromptSpan { length: 6, concept: 2..3, context_length: 77 };
//! let reference = PromptSpan { length: 7, concept: 2..4, context_length: 77 };
//! let pair = ContextPair::new(learned, reference)?;
//! assert_eq!(pair.kept(Context::Prompt), [vec![0, 1, 3, 4, 5], vec![0, 1, 4, 5, 6]]);
//!
//! let device = Device::flex();
//! let output = Tensor::<3>::ones([1, 77, 8], &device);
//! let input = RegularizerInput { pair: &pair, embeddings: [&output, &output], attention: None };
//! let term = RegularizerConfig::ContextEmbedding(Default::default());
//! assert!(term.forward(&input).into_scalar::<f32>().abs() < 1e-6);
//! # Ok::<(), core_losses::Error>(())
//! ```

pub mod context;
pub mod context_attention;
pub mod context_embedding;
pub mod diffusion;
mod error;
pub mod objective;
mod regularizer;

pub use context::{Context, ContextPair, PromptSpan};
pub use context_attention::ContextAttention;
pub use context_embedding::ContextEmbedding;
pub use diffusion::diffusion_loss;
pub use error::Error;
pub use objective::{LossTerms, total_loss};
pub use regularizer::{Formulation, Regularizer, RegularizerInput};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// From one line per term to the enum that TOML files name by `kind`.
macro_rules! regularizers {
    ($($variant:ident => $kind:literal),+ $(,)?) => {
        /// One entry of `[[stages.regularizers]]`, told apart by its key `kind`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        pub enum RegularizerConfig {
            $(
                #[doc = concat!("`kind = \"", $kind, "\"`.")]
                #[serde(rename = $kind)]
                $variant($variant),
            )+
        }

        impl RegularizerConfig {
            /// Every `kind` there is.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];

            /// The name in TOML files and the column in `metrics.csv`.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind),+ }
            }
        }

        impl Regularizer for RegularizerConfig {
            fn weight(&self) -> f64 {
                match self { $(Self::$variant(term) => term.weight()),+ }
            }

            fn needs_attention(&self) -> bool {
                match self { $(Self::$variant(term) => term.needs_attention()),+ }
            }

            fn forward(&self, input: &RegularizerInput<'_>) -> Tensor<1> {
                match self { $(Self::$variant(term) => term.forward(input)),+ }
            }
        }
    };
}

regularizers! {
    ContextEmbedding => "context_embedding",
    ContextAttention => "context_attention",
}
