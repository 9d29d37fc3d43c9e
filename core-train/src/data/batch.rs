//! What one forward pass of training is made of.

use burn::tensor::Tensor;

/// Samples that the U-Net sees in one forward pass.
#[derive(Debug, Clone)]
pub struct Samples {
    /// Scaled latents, [batch, channels, h, w].
    pub latents: Tensor<4>,
    /// Standard normal, same shape.
    pub noise: Tensor<4>,
    /// One timestep per sample.
    pub timesteps: Vec<usize>,
    /// Number of each sample's prompt.
    pub prompts: Vec<usize>,
}

/// Photos of the concept, class images where a term reads them, and a template.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Photos, each with a training prompt.
    pub photos: Samples,
    /// As many class images, each with a class prompt.
    pub prior: Option<Samples>,
    /// Number of the regularisation template, one for the whole batch.
    pub template: usize,
}

/// Sizes from which a batch is drawn.
#[derive(Debug, Clone, Copy)]
pub struct BatchSizes {
    /// Samples.
    pub batch_size: usize,
    /// Training prompts to choose from.
    pub prompts: usize,
    /// Class prompts.
    pub class_prompts: usize,
    /// Regularisation templates to choose from; 0 where no term reads one.
    pub templates: usize,
    /// Timesteps to choose from.
    pub num_train_timesteps: usize,
    /// Whether photos are mirrored at random.
    pub flip: bool,
}
