//! The inputs of one forward pass of training.

use burn::tensor::Tensor;

use super::nested_dropout::NestedDropout;

/// Samples that the U-Net sees in one forward pass.
#[derive(Debug, Clone)]
pub struct Samples {
    /// Scaled latents, [batch, channels, h, w].
    pub latents: Tensor<4>,
    /// Standard normal noise of the same shape.
    pub noise: Tensor<4>,
    /// One timestep per sample.
    pub timesteps: Vec<usize>,
    /// The index of each sample's prompt.
    pub prompts: Vec<usize>,
    /// Where the loss looks, [batch, 1, h, w] of 0 and 1; absent where it looks everywhere.
    pub mask: Option<Tensor<4>>,
}

/// Photos of the concept, class images where a term reads them, and a template.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Photos, each with a training prompt.
    pub photos: Samples,
    /// As many class images, each with a class prompt.
    pub prior: Option<Samples>,
    /// The index of the regularisation template, one for the whole batch.
    pub template: usize,
    /// How many hidden units a mapper keeps, of all samples of the first cross-attention layer, then
    /// of the second, and so on; all of them where absent.
    pub truncation: Option<Vec<usize>>,
}

/// Sizes from which a batch is drawn.
#[derive(Debug, Clone, Copy)]
pub struct BatchSizes {
    /// Number of samples.
    pub batch_size: usize,
    /// Number of training prompts to choose from, without what an augmentation says in front of them.
    pub prompts: usize,
    /// Number of class prompts.
    pub class_prompts: usize,
    /// Number of regularisation templates to choose from; 0 when no term reads one.
    pub templates: usize,
    /// Number of timesteps to choose from.
    pub num_train_timesteps: usize,
    /// What truncations of a mapper are drawn from; none where it is not truncated.
    pub nested_dropout: Option<NestedDropout>,
    /// Whether photos are mirrored at random.
    pub flip: bool,
}

/// The numbers of prompts with words in front: after all `count` prompts without come those with the
/// first words, then those with the second.
pub(super) fn with_words(prompts: Vec<usize>, words: &[usize], count: usize) -> Vec<usize> {
    let pairs = prompts.into_iter().zip(words);
    pairs
        .map(|(prompt, words)| prompt + words * count)
        .collect()
}
