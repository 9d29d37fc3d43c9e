//! Functions shared by the contrastive objectives.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Scales rows to Euclidean length 1.
pub(super) fn normalised(features: Tensor<2>) -> Tensor<2> {
    let norm = features.clone().square().sum_dim(1).sqrt() + 1e-12;
    features / norm
}

/// Mean cross-entropy of logits [n, k] with the indices of the right answers.
pub(super) fn cross_entropy(logits: Tensor<2>, answers: Vec<i64>, device: &Device) -> Tensor<1> {
    let size = answers.len();
    let answers = Tensor::<2, Int>::from_data(TensorData::new(answers, [size, 1]), device);
    -log_softmax(logits, 1).gather(1, answers).mean()
}
