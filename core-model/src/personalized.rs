//! The networks that learning a concept may change, as one module in which every tensor has one
//! name: `concept.…` or `neti.…`, `text_encoder.…`, `unet.…`, and below that the names of its
//! checkpoint.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};

use crate::checkpoint::{Checkpoint, TensorToWrite};
use crate::error::{Error, Result};
use crate::learned_embedding::LearnedEmbedding;
use crate::neti::NetiMapper;
use crate::network::Network;
use crate::params::{Extension, ParamBuilder, ParamNames, set_trainable, to_vec};
use crate::photomaker::StackedId;
use crate::text_encoder::TextEncoder;
use crate::unet::UNet2DConditionModel;

/// The first parts of tensors' names.
pub(crate) const UNET: &str = "unet";
pub(crate) const TEXT_ENCODER: &str = "text_encoder";

/// The concept's input embeddings, which stand where its placeholder stands in a prompt.
#[derive(Module, Debug)]
pub struct ConceptEmbedding {
    /// [vectors, channels].
    embedding: Param<Tensor<2>>,
    /// Whether the vectors stand for token and position embedding together.
    #[module(skip)]
    without_positions: bool,
}

impl ConceptEmbedding {
    /// The name of the embedding among the tensors of a [`PersonalizedModel`].
    pub const NAME: &'static str = "concept.embedding";

    /// A concept of these vectors, [vectors, channels].
    pub fn new(vectors: Tensor<2>) -> Self {
        Self {
            embedding: Param::initialized(ParamId::new(), vectors),
            without_positions: false,
        }
    }

    /// The same with vectors that get no position embedding, as those of Face2Diffusion.
    pub fn without_positions(vectors: Tensor<2>) -> Self {
        Self {
            without_positions: true,
            ..Self::new(vectors)
        }
    }

    /// The vectors, [vectors, channels]; on the tape while they are trained.
    pub fn vectors(&self) -> Tensor<2> {
        self.embedding.val()
    }

    /// The same parameter with other values; it is trained if it was.
    #[must_use]
    pub fn with_vectors(&self, vectors: Tensor<2>) -> Self {
        let vectors = match self.vectors().is_require_grad() {
            true => vectors.inner().autodiff().require_grad(),
            false => vectors.inner(),
        };
        Self {
            embedding: Param::initialized(self.embedding.id, vectors),
            ..*self
        }
    }

    /// The Euclidean norm of all vectors together, as `torch.norm` of the whole parameter: what
    /// the authors' code rescales. With one vector it is the vector's norm.
    pub fn norm(&self) -> f32 {
        let values = to_vec(self.vectors());
        let squares = values.iter().map(|v| f64::from(*v) * f64::from(*v));
        squares.sum::<f64>().sqrt() as f32
    }

    fn names(&self) -> ParamNames {
        let shape = self.embedding.dims().to_vec();
        ParamNames::one(self.embedding.id, Self::NAME, shape)
    }
}

/// What stands where the concept's placeholder stands in a prompt.
#[derive(Module, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a model has one concept, beside networks that are far larger"
)]
pub enum Concept {
    /// The same input embeddings always.
    Embedding(ConceptEmbedding),
    /// Another one for every timestep and cross-attention layer (NeTI).
    Mapper(NetiMapper),
    /// Nothing: a person's photos are fused with the class word's states (PhotoMaker).
    StackedId(StackedId),
}

impl Concept {
    fn names(&self) -> ParamNames {
        match self {
            Self::Embedding(embedding) => embedding.names(),
            Self::Mapper(mapper) => mapper.names().clone(),
            Self::StackedId(person) => person.names().clone(),
        }
    }
}

/// Text encoder, U-Net and, where one is learned, the concept.
#[derive(Module, Debug)]
pub struct PersonalizedModel {
    concept: Option<Concept>,
    text_encoder: TextEncoder,
    unet: UNet2DConditionModel,
    #[module(skip)]
    names: ParamNames,
    /// What layers have beside the weights of the base model.
    #[module(skip)]
    extensions: Vec<Extension>,
}

impl PersonalizedModel {
    /// The networks of a base model; there is no concept yet.
    pub fn new(text_encoder: TextEncoder, unet: UNet2DConditionModel) -> Self {
        Self::of_parts(None, text_encoder, unet)
    }

    /// The networks of a model folder by their configurations alone: names and shapes are the model's, and no weights
    /// are read or kept.
    ///
    /// # Errors
    /// A configuration that is missing or that this crate does not compute.
    pub fn shapes_of(folder: &Path) -> Result<Self> {
        let config = |part: &str| folder.join(part).join("config.json");
        let text_encoder = TextEncoder::read_config(&config(TEXT_ENCODER))?;
        let unet = UNet2DConditionModel::read_config(&config(UNET))?;
        Ok(Self::new(
            TextEncoder::new(&text_encoder, &ParamBuilder::shapes())?,
            UNet2DConditionModel::new(&unet, &ParamBuilder::shapes())?,
        ))
    }

    fn of_parts(
        concept: Option<Concept>,
        text_encoder: TextEncoder,
        unet: UNet2DConditionModel,
    ) -> Self {
        let below = |names: &ParamNames, part: &str| names.renamed(|key| format!("{part}.{key}"));
        let mut names = below(text_encoder.names(), TEXT_ENCODER).with(&below(unet.names(), UNET));
        if let Some(concept) = &concept {
            names = concept.names().with(&names);
        }
        Self {
            concept,
            text_encoder,
            unet,
            names,
            extensions: Vec::new(),
        }
    }

    /// The same with further parameters beside the weights of layers, which an extension names as
    /// this model's tensors are named; nothing changes for layers that have them.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a layer that does not exist or cannot be extended.
    pub fn extended(self, extension: Extension) -> Result<Self> {
        if self.extensions.contains(&extension) {
            return Ok(self);
        }
        let known = |layer: &&String| {
            [UNET, TEXT_ENCODER]
                .iter()
                .any(|part| layer.starts_with(part))
        };
        if let Some(layer) = extension.layers.iter().find(|layer| !known(layer)) {
            return Err(Error::Invalid(format!(
                "`{layer}` is no layer of this model"
            )));
        }
        let mut extensions = self.extensions;
        extensions.push(extension);
        let below = |part: &str| extensions.iter().map(|e| e.below(part)).collect();
        let text_encoder = self.text_encoder.extended(below(TEXT_ENCODER))?;
        let unet = self.unet.extended(below(UNET))?;
        Ok(Self {
            extensions,
            ..Self::of_parts(self.concept, text_encoder, unet)
        })
    }

    /// The same networks with these vectors for the concept.
    #[must_use]
    pub fn with_embedding(self, embedding: ConceptEmbedding) -> Self {
        self.with_concept(Concept::Embedding(embedding))
    }

    /// The same networks with this mapper for the concept.
    #[must_use]
    pub fn with_mapper(self, mapper: NetiMapper) -> Self {
        self.with_concept(Concept::Mapper(mapper))
    }

    /// The same networks with the photos of a person for the concept.
    #[must_use]
    pub fn with_stacked_id(self, person: StackedId) -> Self {
        self.with_concept(Concept::StackedId(person))
    }

    fn with_concept(self, concept: Concept) -> Self {
        Self {
            extensions: self.extensions,
            ..Self::of_parts(Some(concept), self.text_encoder, self.unet)
        }
    }

    /// The same with another U-Net.
    #[must_use]
    pub fn with_unet(self, unet: UNet2DConditionModel) -> Self {
        let kept = self.extensions.iter().map(|e| e.without(UNET));
        Self {
            extensions: kept.collect(),
            ..Self::of_parts(self.concept, self.text_encoder, unet)
        }
    }

    /// The same with another text encoder.
    #[must_use]
    pub fn with_text_encoder(self, text_encoder: TextEncoder) -> Self {
        let kept = self.extensions.iter().map(|e| e.without(TEXT_ENCODER));
        Self {
            extensions: kept.collect(),
            ..Self::of_parts(self.concept, text_encoder, self.unet)
        }
    }

    /// Gives the concept other vectors, if it has some; they are trained if they were.
    pub fn set_vectors(&mut self, vectors: Tensor<2>) {
        if let Some(Concept::Embedding(embedding)) = &mut self.concept {
            *embedding = embedding.with_vectors(vectors);
        }
    }

    /// Whether parts of the U-Net keep only their inputs and are computed again in the backward
    /// pass: less memory, about a third more time.
    #[must_use]
    pub fn with_gradient_checkpointing(mut self, on: bool) -> Self {
        self.unet = self.unet.with_gradient_checkpointing(on);
        self
    }

    /// Whether keys and values of the first text position pass no gradient on in the cross-attention
    /// layers (Custom Diffusion); what is computed stays the same.
    #[must_use]
    pub fn with_first_token_gradient_stopped(mut self, on: bool) -> Self {
        self.unet = self.unet.with_first_token_gradient_stopped(on);
        self
    }

    /// The concept's vectors, if it has some.
    pub fn embedding(&self) -> Option<&ConceptEmbedding> {
        match &self.concept {
            Some(Concept::Embedding(embedding)) => Some(embedding),
            _ => None,
        }
    }

    /// The concept's mapper, if it has one.
    pub fn mapper(&self) -> Option<&NetiMapper> {
        match &self.concept {
            Some(Concept::Mapper(mapper)) => Some(mapper),
            _ => None,
        }
    }

    /// The photos of the concept, if it is a person whose class word they stand for.
    pub fn stacked_id(&self) -> Option<&StackedId> {
        match &self.concept {
            Some(Concept::StackedId(person)) => Some(person),
            _ => None,
        }
    }

    /// Token numbers to hidden states.
    pub fn text_encoder(&self) -> &TextEncoder {
        &self.text_encoder
    }

    /// The noise predictor.
    pub fn unet(&self) -> &UNet2DConditionModel {
        &self.unet
    }

    /// The name of every tensor.
    pub fn names(&self) -> &ParamNames {
        &self.names
    }

    /// The last hidden states [prompts, tokens, channels] of prompts, in which the concept's
    /// vectors stand where its placeholder does.
    ///
    /// # Panics
    /// When prompts differ in length, or hold a placeholder and the concept has no vectors.
    pub fn encode(&self, ids: &[Vec<u32>]) -> Tensor<3> {
        match self.embedding() {
            Some(embedding) if embedding.without_positions => self
                .text_encoder
                .forward_with_inputs(ids, embedding.vectors()),
            embedding => {
                let vectors = embedding.map(ConceptEmbedding::vectors);
                self.text_encoder.forward(ids, vectors)
            }
        }
    }

    /// The mapper that decides what these prompts are, if they hold its placeholder.
    pub fn mapper_of(&self, ids: &[Vec<u32>]) -> Option<&NetiMapper> {
        let vocab_size = self.text_encoder.config().vocab_size as u32;
        let holds_concept = ids.iter().flatten().any(|id| *id >= vocab_size);
        self.mapper().filter(|_| holds_concept)
    }

    /// Trains the tensors whose name satisfies `moves`, and freezes all others.
    #[must_use]
    pub fn train_only(self, moves: impl Fn(&str) -> bool) -> Self {
        let names = self.names.clone();
        set_trainable(self, &names, moves)
    }

    /// The values of `trained`, and this model's own where it has parameters beyond those.
    #[must_use]
    pub fn with_values_of(&self, trained: Self) -> Self {
        if self.names.is(&trained.names) {
            return trained;
        }
        let names = trained.names.clone();
        let mut values = HashMap::new();
        names.read(&trained, |param| {
            values.insert(param.name.to_string(), param.value);
        });
        // What an optimiser moves in place must be nowhere else in use.
        drop(trained);
        let shared: HashSet<&str> = names.keys().collect();
        let is_shared = |name: &str, _| shared.contains(name);
        self.names
            .clone()
            .map(self.clone(), is_shared, |name, own| {
                values.remove(name).unwrap_or(own)
            })
    }

    /// The tensors whose name satisfies `of`, to be written to a file, in the shapes of their
    /// checkpoints.
    pub fn tensors(&self, of: impl Fn(&str) -> bool) -> Vec<TensorToWrite> {
        let mut tensors = Vec::new();
        self.names.read(self, |param| {
            if of(param.name) {
                tensors.push(param.into());
            }
        });
        tensors
    }

    /// The same with the tensors that a file holds under their names, in float32; the others stay
    /// as they are.
    ///
    /// # Errors
    /// [`Error::Format`] or [`Error::Shape`] for a tensor that this model does not have, or has in
    /// another shape.
    pub fn with_tensors(self, file: &Checkpoint, device: &Device) -> Result<Self> {
        let names = self.names.clone();
        let mut count = 0;
        for (name, expected) in names.iter() {
            let Some(info) = file.info(name) else {
                continue;
            };
            if info.shape != expected {
                return Err(Error::Shape {
                    path: file.path().to_path_buf(),
                    key: name.to_string(),
                    found: info.shape.clone(),
                    expected: expected.to_vec(),
                });
            }
            count += 1;
        }
        if count < file.keys().count() {
            let reason = "holds tensors that this model does not have";
            return Err(Error::format(file.path(), reason));
        }
        let mut failure = None;
        let is_there = |name: &str, _| file.info(name).is_some();
        let model = names.map(self, is_there, |name, old| match file.read_f32(name) {
            Ok(Some((values, _))) => Tensor::from_data(values.as_slice(), device),
            Ok(None) => old,
            Err(error) => {
                failure.get_or_insert(error);
                old
            }
        });
        failure.map_or(Ok(model), Err)
    }

    /// The concept as a file of it says it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the vectors are not as wide as the text encoder's tokens.
    pub(crate) fn with_learned(
        self,
        embedding: &LearnedEmbedding,
        device: &Device,
    ) -> Result<Self> {
        let width = self.text_encoder.config().hidden_size;
        if embedding.dim != width {
            return Err(Error::Invalid(format!(
                "the learned embedding `{}` has {} values per vector but the text encoder's tokens \
                 have {width}; it was learned with another base model",
                embedding.token, embedding.dim
            )));
        }
        Ok(self.with_embedding(ConceptEmbedding::new(embedding.to_tensor(device))))
    }
}
