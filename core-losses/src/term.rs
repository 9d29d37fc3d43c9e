//! The interface of loss terms, and the quantities of a training step that they can read.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::span::{Context, ContextPair, PromptSpan};

/// Whether a term follows the paper's equation or the authors' code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Formulation {
    /// The equation in the paper.
    #[default]
    Paper,
    /// The authors' public PyTorch code, to which the weights in the paper belong.
    ReferenceCode,
}

/// A quantity of a training step that a term can read. A step computes what its terms read and
/// nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading {
    /// [`Pass::prediction`] of [`Observed::photos`].
    PhotoPrediction,
    /// [`Pass::attention`] of [`Observed::photos`].
    PhotoAttention,
    /// [`Pass::prediction`] of [`Observed::prior`].
    PriorPrediction,
    /// [`Pass::hidden`] of [`Observed::template`].
    TemplateHidden,
    /// [`Pass::attention`] of [`Observed::template`].
    TemplateAttention,
    /// [`Pass::hidden`] of [`Observed::class_template`].
    ClassHidden,
    /// [`Pass::attention`] of [`Observed::class_template`].
    ClassAttention,
    /// [`Observed::embedding`].
    Embedding,
    /// [`PromptSpan::class_word`] of the training prompts.
    ClassWord,
    /// [`Pass::hidden`] of [`Observed::sentence`] and [`Observed::class_sentence`].
    Sentence,
}

impl Reading {
    /// Whether a regularisation template must be drawn for it.
    pub fn needs_template(self) -> bool {
        matches!(
            self,
            Self::TemplateHidden
                | Self::TemplateAttention
                | Self::ClassHidden
                | Self::ClassAttention
        )
    }
}

/// What the networks computed for some prompts and one batch of noisy latents, as far as a term
/// reads it.
#[derive(Debug, Clone)]
pub struct Pass {
    /// The positions of the concept: one span for each prompt in `hidden`.
    pub spans: Vec<PromptSpan>,
    /// Last hidden states of the text encoder, [prompts, tokens, channels]; of one template that
    /// serves the whole batch, [1, tokens, channels]. Absent where the layers of the U-Net read different
    /// ones.
    pub hidden: Option<Tensor<3>>,
    /// The U-Net's prediction and its target, [batch, channels, h, w] each.
    pub prediction: Option<[Tensor<4>; 2]>,
    /// Cross-attention probabilities, one tensor [batch, heads, pixels, tokens] per layer in the
    /// order of the forward pass; of templates it may be their means, [batch, 1, 1, tokens].
    pub attention: Option<Vec<Tensor<4>>>,
}

impl Pass {
    /// The hidden states at the end of text of each prompt, [prompts, channels].
    fn end_of_text(&self) -> Option<Tensor<2>> {
        let hidden = self.hidden.as_ref()?;
        let [_, _, channels] = hidden.dims();
        let ends = self.spans.iter().enumerate().map(|(prompt, span)| {
            let one = hidden.clone().narrow(0, prompt, 1);
            one.narrow(1, span.length - 1, 1).reshape([1, channels])
        });
        Some(Tensor::cat(ends.collect(), 0))
    }
}

/// What a step has computed, as far as one of its terms declared to read it.
///
/// The passes of the template and of the class template share noisy latents and timesteps with
/// the pass over the photos.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The training prompts, one for each photo of the batch.
    pub photos: Option<Pass>,
    /// Where a photo of the batch shows the concept, [batch, 1, h, w] of 0 and 1; absent where its
    /// augmentation gives none.
    pub photo_mask: Option<Tensor<4>>,
    /// The class prompts, one for each class image; latents and timesteps of their own.
    pub prior: Option<Pass>,
    /// One regularisation template filled with the concept (y* of the paper).
    pub template: Option<Pass>,
    /// The same template filled with the super-category (y_cat); never on the tape.
    pub class_template: Option<Pass>,
    /// Which positions of the two templates correspond.
    pub pair: Option<ContextPair>,
    /// The term's own sentence, [`Term::sentence`], filled with the concept.
    pub sentence: Option<Pass>,
    /// The same sentence filled with the super-category; never on the tape.
    pub class_sentence: Option<Pass>,
    /// The concept's input embeddings now and at the start of the run, [vectors, channels] each.
    pub embedding: Option<[Tensor<2>; 2]>,
}

impl Observed {
    /// The hidden states of the template with the concept and of the one with the super-category.
    ///
    /// # Panics
    /// When the step did not compute them: the term must declare
    /// [`Reading::TemplateHidden`] and [`Reading::ClassHidden`].
    pub fn template_hidden(&self) -> [&Tensor<3>; 2] {
        match (hidden(&self.template), hidden(&self.class_template)) {
            (Some(template), Some(class)) => [template, class],
            _ => panic!("this term does not declare that it reads the hidden states of templates"),
        }
    }

    /// The cross-attention of the template with the concept and of the one with the
    /// super-category, layer by layer.
    ///
    /// # Panics
    /// When the step did not compute them: the term must declare
    /// [`Reading::TemplateAttention`] and [`Reading::ClassAttention`].
    pub fn template_attention(&self) -> [&[Tensor<4>]; 2] {
        match (attention(&self.template), attention(&self.class_template)) {
            (Some(template), Some(class)) => [template, class],
            _ => panic!("this term does not declare that it reads the attention of templates"),
        }
    }

    /// Which positions of the two templates correspond.
    ///
    /// # Panics
    /// When the term declares no reading of templates.
    pub fn pair(&self) -> &ContextPair {
        match &self.pair {
            Some(pair) => pair,
            None => panic!("this term does not declare that it reads templates"),
        }
    }

    /// The concept's vectors now and at the start.
    ///
    /// # Panics
    /// When the term does not declare [`Reading::Embedding`], or no vector is learned.
    pub fn vectors(&self) -> [&Tensor<2>; 2] {
        match &self.embedding {
            Some([now, start]) => [now, start],
            None => panic!("this term does not declare that it reads the embedding"),
        }
    }

    /// The hidden states at the end of the term's own sentence, [1, channels] each: with the concept and
    /// with the super-category.
    ///
    /// # Panics
    /// When the term does not declare [`Reading::Sentence`].
    pub fn ends_of_sentence(&self) -> [Tensor<2>; 2] {
        let end = |pass: &Option<Pass>| pass.as_ref().and_then(Pass::end_of_text);
        match (end(&self.sentence), end(&self.class_sentence)) {
            (Some(sentence), Some(class)) => [sentence, class],
            _ => panic!("this term does not declare that it reads a sentence of its own"),
        }
    }

    /// The cross-attention of the pass over the photos, layer by layer, and the positions of the concept
    /// in the prompt of each sample.
    ///
    /// # Panics
    /// When the term does not declare [`Reading::PhotoAttention`].
    pub fn photo_attention(&self) -> (&[Tensor<4>], &[PromptSpan]) {
        match (&self.photos, attention(&self.photos)) {
            (Some(pass), Some(maps)) => (maps, &pass.spans),
            _ => panic!("this term does not declare that it reads the attention of the photos"),
        }
    }

    /// The prediction for the noisy photos and its target.
    ///
    /// # Panics
    /// When the term does not declare [`Reading::PhotoPrediction`].
    pub fn photo_prediction(&self) -> [&Tensor<4>; 2] {
        prediction(&self.photos)
    }

    /// The prediction for the noisy class images and its target.
    ///
    /// # Panics
    /// When the term does not declare [`Reading::PriorPrediction`].
    pub fn prior_prediction(&self) -> [&Tensor<4>; 2] {
        prediction(&self.prior)
    }
}

fn prediction(pass: &Option<Pass>) -> [&Tensor<4>; 2] {
    match pass.as_ref().and_then(|pass| pass.prediction.as_ref()) {
        Some([prediction, target]) => [prediction, target],
        None => panic!("this term does not declare that it reads this prediction"),
    }
}

fn hidden(pass: &Option<Pass>) -> Option<&Tensor<3>> {
    pass.as_ref().and_then(|pass| pass.hidden.as_ref())
}

fn attention(pass: &Option<Pass>) -> Option<&[Tensor<4>]> {
    pass.as_ref().and_then(|pass| pass.attention.as_deref())
}

/// One term of the objective: a formula on what a step observed.
pub trait Term {
    /// Its factor in the total, lambda of Eq. 5. A term of weight zero is not computed.
    fn weight(&self) -> f64;

    /// What it reads of a step; everything else is absent from [`Observed`].
    fn reads(&self) -> &'static [Reading];

    /// The template that the term compares with and without the concept, where it has one of its own
    /// beside those of the stage.
    fn sentence(&self) -> Option<&str> {
        None
    }

    /// The unweighted value, shape `[1]`.
    ///
    /// # Panics
    /// When something that it reads is absent, or shapes do not fit: a programmer's error.
    fn forward(&self, observed: &Observed) -> Tensor<1>;
}

/// The kept positions of `dim` in both tensors of a pair.
pub(crate) fn keep<const D: usize>(
    tensors: [Tensor<D>; 2],
    dim: usize,
    pair: &ContextPair,
    context: Context,
) -> [Tensor<D>; 2] {
    let [learned, reference] = pair.kept(context);
    let [x, y] = tensors;
    [select(x, dim, &learned), select(y, dim, &reference)]
}

/// Selects ascending positions as a few contiguous pieces: the concept leaves one gap.
fn select<const D: usize>(tensor: Tensor<D>, dim: usize, positions: &[usize]) -> Tensor<D> {
    let pieces = positions
        .chunk_by(|a, b| a + 1 == *b)
        .map(|run| tensor.clone().narrow(dim, run[0], run.len()))
        .collect();
    Tensor::cat(pieces, dim)
}
