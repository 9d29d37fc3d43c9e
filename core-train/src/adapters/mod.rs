//! The sets of weights that a stage may train, by their names in `train = [..]`.
//!
//! A set is one file here and one line in the table below. It says which tensors of a
//! [`PersonalizedModel`] it moves and how its result lies in a run folder; the training loop knows
//! none of them by name.

mod direction;
mod embedding;
mod lora;
mod neti;
mod network;
mod oft;
mod targets;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use burn::tensor::Tensor;
use core_model::folder::ModelFolder;
use core_model::personalized::PersonalizedModel;
use core_model::pipeline::StableDiffusionPipeline;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use toml::Table;

pub use direction::{Direction, OfTable, Scale};
pub use embedding::{EMBEDDING, learned_embedding};
pub use lora::LORA;
pub use neti::{Bypass, NETI};
pub use network::{TEXT_ENCODER, UNET};
pub use oft::OFT;
pub use targets::{NamedTargets, Targets};

use crate::config::StageConfig;
use crate::error::{Error, Result};
use crate::phrase::Phrase;

/// One set of weights.
pub trait Adapter: Debug {
    /// Whether it trains the tensor of this name, as [`PersonalizedModel::names`] spells it.
    fn moves(&self, name: &str) -> bool;

    /// Adds the parameters that it trains beyond those of the base model; what is random about them
    /// is a function of `seed` and their names. A set that trains what is there adds nothing.
    ///
    /// # Errors
    /// Keys of the set that do not fit the model.
    fn extend(&self, model: PersonalizedModel, seed: u64) -> Result<PersonalizedModel> {
        let _ = seed;
        Ok(model)
    }

    /// The name in the model of a parameter that it adds, given the key under which its own file
    /// holds it; `None` for other keys.
    fn parameter(&self, key: &str) -> Option<String> {
        let _ = key;
        None
    }

    /// The file or folder of a run folder that holds its result.
    fn file(&self) -> &'static str;

    /// Whether it is what stands for the concept in prompts: small, and all that a prompt needs of the run.
    fn is_concept(&self) -> bool {
        false
    }

    /// The numbers that its file holds of a tensor of this shape.
    fn numbers_written(&self, shape: &[usize]) -> u64 {
        shape.iter().map(|size| *size as u64).product()
    }

    /// Writes its result to `path`, which ends in [`file`](Self::file).
    ///
    /// # Errors
    /// An unwritable folder.
    fn save(&self, trained: &Trained<'_>, path: &Path) -> Result<()>;

    /// The values nearest to `value`, flattened, that a tensor of the set may have: where it is put
    /// back after every step.
    fn constrain(&self, value: Tensor<1>) -> Tensor<1> {
        value
    }

    /// Puts the result at `path` into a pipeline of the base model.
    ///
    /// # Errors
    /// A damaged file, or one that does not fit the base model.
    fn load(
        &self,
        path: &Path,
        loading: Loading<'_>,
        pipeline: StableDiffusionPipeline,
    ) -> Result<StableDiffusionPipeline>;
}

/// How results are put into a pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Loading<'a> {
    /// How the concept is written in prompts.
    pub phrase: &'a Phrase,
    /// The files of the model that the pipeline was loaded from.
    pub base: &'a ModelFolder,
    /// How strong changes of low rank are; 1 is as trained.
    pub lora_scale: f64,
}

/// Keys of a set that cannot be.
fn refuse(kind: &str, reason: &str) -> Error {
    core_model::Error::Invalid(format!("`{kind}` in `train` {reason}")).into()
}

/// A trained model on its way into a run folder.
#[derive(Debug, Clone, Copy)]
pub struct Trained<'a> {
    /// How the concept is written in prompts.
    pub phrase: &'a Phrase,
    /// The model that it was trained from, as the run file names it.
    pub base_name: &'a Path,
    /// That model's files.
    pub base: &'a ModelFolder,
    /// What came out.
    pub model: &'a PersonalizedModel,
    /// The stages that have trained it.
    pub stages: &'a [StageConfig],
}

impl Trained<'_> {
    /// Whether a stage has trained the tensor of this name.
    fn moves(&self, name: &str) -> bool {
        self.stages.iter().any(|stage| stage.moves(name))
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        metadata(self.phrase, self.base_name)
    }
}

/// What files of a concept say of it: super-category and base model.
fn metadata(phrase: &Phrase, base_name: &Path) -> BTreeMap<String, String> {
    let name = base_name.file_name().unwrap_or(base_name.as_os_str());
    [
        ("super_category".to_string(), phrase.class().to_string()),
        ("base_model".into(), name.to_string_lossy().into_owned()),
    ]
    .into()
}

/// Makes the enum that TOML files name from one line per set.
macro_rules! adapters {
    ($($module:ident::$variant:ident => $kind:literal),+ $(,)?) => {
        $(pub use $module::$variant;)+

        /// An entry of `train`, told apart by its `kind`; each has keys of its own.
        #[derive(Debug, Clone, PartialEq)]
        pub enum AdapterConfig {
            $(
                #[doc = concat!("`", $kind, "`.")]
                $variant($variant),
            )+
        }

        impl AdapterConfig {
            /// Every `kind` there is.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];

            /// The name in TOML files.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind),+ }
            }

            /// The set of this name with the default of every key; `None` for an unknown name.
            pub fn named(kind: &str) -> Option<Self> {
                match kind {
                    $($kind => Some(Self::$variant($variant::default())),)+
                    _ => None,
                }
            }

            /// The same set with these keys.
            pub(crate) fn with_keys(&self, keys: Table) -> Result<Self, toml::de::Error> {
                Ok(match self { $(Self::$variant(_) => Self::$variant($variant::deserialize(keys)?)),+ })
            }

            /// The keys that differ from their defaults, to be written as TOML.
            pub(crate) fn keys(&self) -> Result<Table, toml::ser::Error> {
                match self {
                    $(Self::$variant(set) if *set == $variant::default() => Ok(Table::new()),)+
                    $(Self::$variant(set) => Table::try_from(set),)+
                }
            }

            /// The kinds with the schemas of their keys.
            pub(crate) fn schemas(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
                vec![$(($kind, $variant::json_schema(generator))),+]
            }

            /// What the training loop sees of it.
            pub fn adapter(&self) -> &dyn Adapter {
                match self { $(Self::$variant(set) => set),+ }
            }
        }
    };
}

adapters! {
    embedding::Embedding => "embedding",
    neti::Neti => "neti",
    network::Unet => "unet",
    network::CrossAttention => "cross_attention",
    network::CrossAttentionKv => "cross_attention_kv",
    network::TextEncoderAll => "text_encoder",
    lora::Lora => "lora",
    oft::Oft => "oft",
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::AdapterConfig;

    #[test]
    fn sets_are_chosen_by_the_names_of_diffusers_tensors() {
        let block = "unet.down_blocks.1.attentions.0.transformer_blocks.0";
        let names = [
            "concept.embedding".to_string(),
            "neti.net.1.weight".into(),
            "neti.encoder.w".into(),
            "text_encoder.final_layer_norm.bias".into(),
            format!("{block}.attn1.to_k.weight"),
            format!("{block}.attn2.to_out.0.weight"),
            format!("{block}.attn2.to_k.weight"),
            format!("{block}.attn2.to_v.weight"),
            format!("{block}.attn2.to_v.lora_A.weight"),
            format!("{block}.attn2.to_v.oft_R"),
        ];
        let yes = |letters: &str| letters.chars().map(|c| c == 'x').collect::<Vec<_>>();
        for (kind, chosen) in [
            ("embedding", "x........."),
            ("neti", ".x........"),
            ("text_encoder", "...x......"),
            ("unet", "....xxxx.."),
            ("cross_attention", ".....xxx.."),
            ("cross_attention_kv", "......xx.."),
            ("lora", "........x."),
            ("oft", ".........x"),
        ] {
            let set = AdapterConfig::named(kind).unwrap();
            let found: Vec<bool> = names.iter().map(|name| set.adapter().moves(name)).collect();
            assert_eq!(found, yes(chosen), "{kind}");
        }
    }
}
