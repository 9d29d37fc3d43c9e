//! The inputs of one forward pass of training.

use burn::tensor::Tensor;

/// Latents, noise, timesteps and prompts of one forward pass.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Scaled latents of photos, [batch, channels, h, w].
    pub latents: Tensor<4>,
    /// Standard normal noise of the same shape.
    pub noise: Tensor<4>,
    /// One timestep per sample.
    pub timesteps: Vec<usize>,
    /// The index of each sample's training prompt.
    pub prompts: Vec<usize>,
    /// The index of the regularisation template, one for the whole batch.
    pub template: usize,
}

/// Sizes from which a batch is drawn.
#[derive(Debug, Clone, Copy)]
pub struct BatchSizes {
    /// Number of samples.
    pub batch_size: usize,
    /// Number of training prompts to choose from.
    pub prompts: usize,
    /// Number of regularisation templates to choose from; 0 when no term reads one.
    pub templates: usize,
    /// Number of timesteps to choose from.
    pub num_train_timesteps: usize,
    /// Whether photos are mirrored at random.
    pub flip: bool,
}
