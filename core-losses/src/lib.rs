//! The objective of CoRe (Wu et al., AAAI 2025): tensors in, scalars out.
//!
//! | the paper | module |
//! |---|---|
//! | Eq. 1 and 2, diffusion loss | [`terms::diffusion`] |
//! | Eq. 3, context embedding regularisation | [`terms::context_embedding`] |
//! | Eq. 4, context attention regularisation | [`terms::context_attention`] |
//! | Eq. 5, their weighted sum | [`objective`] |
//! | which tokens are context | [`span`] |
//! | not in the paper: the margin with which an identity encoder learns | [`angular_margin`] |
//!
//! The crate knows no network and no file. A term is one file in `terms/` that implements [`Term`]
//! and one line in the table below; it declares what it reads of a step ([`Reading`]), and the step
//! computes that much.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use core_losses::{Context, ContextPair, LossTerm, Observed, Pass, PromptSpan, Term};
//!
//! // "a <robot> in space" beside "a stuffed animal in space": BOS, words, EOT.
//! let learned = PromptSpan::of_token(6, 2..3, 77);
//! let reference = PromptSpan::of_token(7, 2..4, 77);
//! let pair = ContextPair::new(learned.clone(), reference.clone())?;
//! assert_eq!(pair.kept(Context::Prompt), [vec![0, 1, 3, 4, 5], vec![0, 1, 4, 5, 6]]);
//!
//! let device = Device::flex();
//! let pass = |span| Pass {
//!     spans: vec![span],
//!     hidden: Some(Tensor::ones([1, 77, 8], &device)),
//!     prediction: None,
//!     attention: None,
//! };
//! let observed = Observed {
//!     template: Some(pass(learned)),
//!     class_template: Some(pass(reference)),
//!     pair: Some(pair),
//!     ..Observed::default()
//! };
//! let term = LossTerm::ContextEmbedding(Default::default());
//! assert!(term.forward(&observed).into_scalar::<f32>().abs() < 1e-6);
//! # Ok::<(), core_losses::Error>(())
//! ```

pub mod angular_margin;
mod error;
pub mod objective;
pub mod span;
mod term;
pub mod terms;

pub use error::Error;
pub use objective::{Losses, total_loss};
pub use span::{Context, ContextPair, PromptSpan};
pub use term::{Formulation, Observed, Pass, Reading, Term};

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Makes the enum that TOML files name by `kind` from one line per term.
macro_rules! terms {
    ($($module:ident::$variant:ident => $kind:literal),+ $(,)?) => {
        $(pub use terms::$module::$variant;)+

        /// One term of a stage's objective. The key `kind` chooses the term; every term has keys of its
        /// own.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "kind")]
        #[allow(missing_docs, reason = "each term's struct says what it is")]
        pub enum LossTerm {
            $(
                #[serde(rename = $kind)]
                $variant($variant),
            )+
        }

        impl LossTerm {
            /// Every `kind` there is.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];

            /// The name in TOML files and the column in `metrics.csv`.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind),+ }
            }
        }

        impl Term for LossTerm {
            fn weight(&self) -> f64 {
                match self { $(Self::$variant(term) => term.weight()),+ }
            }

            fn reads(&self) -> &'static [Reading] {
                match self { $(Self::$variant(term) => term.reads()),+ }
            }

            fn sentence(&self) -> Option<&str> {
                match self { $(Self::$variant(term) => term.sentence()),+ }
            }

            fn forward(&self, observed: &Observed) -> Tensor<1> {
                match self { $(Self::$variant(term) => term.forward(observed)),+ }
            }
        }
    };
}

terms! {
    diffusion::Diffusion => "diffusion",
    context_embedding::ContextEmbedding => "context_embedding",
    context_attention::ContextAttention => "context_attention",
    embedding_anchor::EmbeddingAnchor => "embedding_anchor",
    attention_statistics::AttentionStatistics => "attention_statistics",
    prior_preservation::PriorPreservation => "prior_preservation",
    semantic_preservation::SemanticPreservation => "semantic_preservation",
}
