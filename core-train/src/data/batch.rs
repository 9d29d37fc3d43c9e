//! What one forward pass of training is made of.

use burn::tensor::Tensor;

/// Latents, noise, timesteps and prompts of one forward pass.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Scaled latents of photos, [batch, channels, h, w].
    pub latents: Tensor<4>,
    /// Standard normal, same shape.
    pub noise: Tensor<4>,
    /// One timestep per sample.
    pub timesteps: Vec<usize>,
    /// Number of each sample's training prompt.
    pub prompts: Vec<usize>,
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
    /// Regularisation templates to choose from; 0 where no term reads one.
    pub templates: usize,
    /// Timesteps to choose from.
    pub num_train_timesteps: usize,
    /// Whether photos are mirrored at random.
    pub flip: bool,
}
