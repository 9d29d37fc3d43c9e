//! What every regulariser is.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::context::{Context, ContextPair};

/// Whether a term is computed as the paper writes it or as the authors' code does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Formulation {
    /// The equation in the paper.
    #[default]
    Paper,
    /// The public PyTorch code, to which the published weights belong.
    ReferenceCode,
}

/// What the regularisers of one step look at. In every pair the learned concept's comes first and
/// the super-category's second; no gradient is wanted through the second.
#[derive(Debug, Clone, Copy)]
pub struct RegularizerInput<'a> {
    /// Which positions correspond.
    pub pair: &'a ContextPair,
    /// Last hidden states of the text encoder, [1, n, d]: one template serves the whole batch.
    pub embeddings: [&'a Tensor<3>; 2],
    /// Cross-attention probabilities, one tensor [batch, heads, pixels, n] per layer; there when
    /// any term of the step asks for them.
    pub attention: Option<[&'a [Tensor<4>]; 2]>,
}

/// One term of the objective beside the diffusion loss.
pub trait Regularizer {
    /// lambda of Eq. 5. A term of weight zero is not computed.
    fn weight(&self) -> f64;

    /// Whether the term reads [`RegularizerInput::attention`], which costs U-Net passes.
    fn needs_attention(&self) -> bool;

    /// The unweighted value, shape `[1]`.
    ///
    /// # Panics
    /// When attention is needed and absent, or shapes do not fit: a programmer's error.
    fn forward(&self, input: &RegularizerInput<'_>) -> Tensor<1>;
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
