//! Which class of diffusers or transformers writes a network's folder.

/// The file in which diffusers keeps the weights of a network.
pub const DIFFUSERS_WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
/// The file in which transformers keeps them.
pub const TRANSFORMERS_WEIGHTS: &str = "model.safetensors";

/// The class that writes a network's folder, as `config.json` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `_class_name` of diffusers.
    Diffusers(&'static str),
    /// `architectures` and `model_type` of transformers.
    Transformers(&'static str, &'static str),
}

impl Class {
    /// The name of the file with the weights.
    pub(crate) fn weights(self) -> &'static str {
        match self {
            Self::Diffusers(_) => DIFFUSERS_WEIGHTS,
            Self::Transformers(..) => TRANSFORMERS_WEIGHTS,
        }
    }
}
