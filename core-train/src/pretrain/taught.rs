//! An image encoder that is also asked what it sees, by linear heads that are not saved: contrast
//! alone is slow at first, as it is for the CLIP models, which have questions for the same reason.

use anyhow::Result;
use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use core_model::Network;
use core_model::dino::DinoModel;
use core_model::nn::Linear;
use core_model::params::{ParamBuilder, ParamNames};

/// The encoder and its heads.
#[derive(Module, Debug)]
pub(super) struct Taught {
    pub(super) encoder: DinoModel,
    heads: Linear,
    #[module(skip)]
    names: ParamNames,
}

/// What there is to know about the subject of an image; `None` where a question makes no sense, as
/// for the markings of a person.
#[derive(Debug, Clone)]
pub(super) struct Traits {
    /// The right answer and the number of answers of each multiple-choice question.
    pub(super) choices: Vec<(Option<usize>, usize)>,
    /// Numbers of about unit variance.
    pub(super) numbers: Vec<Option<f32>>,
}

impl Taught {
    /// Fresh heads on features with `channels` values, for subjects with such traits.
    pub(super) fn new(
        encoder: DinoModel,
        channels: usize,
        like: &Traits,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let pb = ParamBuilder::random(seed, device).pp("heads");
        let answers: usize = like.choices.iter().map(|(_, count)| count).sum();
        let outputs = answers + like.numbers.len();
        let heads = Linear::new(channels, outputs, true, &pb)?;
        let names = encoder.names().with(&pb.finish()?);
        Ok(Self {
            encoder,
            heads,
            names,
        })
    }

    pub(super) fn names(&self) -> &ParamNames {
        &self.names
    }

    /// The mean over all questions of the cross-entropy, or of half the squared error of a number,
    /// over the images for which it makes sense.
    pub(super) fn loss(
        &self,
        features: Tensor<2>,
        traits: &[Traits],
        device: &Device,
    ) -> Tensor<1> {
        let outputs = self.heads.forward(features);
        let Some(some) = traits.first() else {
            return Tensor::zeros([1], device);
        };
        let mut losses = Vec::new();
        let mut first = 0;
        for (question, (_, count)) in some.choices.iter().enumerate() {
            let right = traits.iter().map(|traits| traits.choices[question].0);
            let logits = outputs.clone().narrow(1, first, *count);
            let indices = right.clone().map(|right| right.unwrap_or(0) as i64);
            let indices = column(indices.collect::<Vec<i64>>(), device);
            let surprise = -log_softmax(logits, 1).gather(1, indices);
            losses.push(mean_of(
                surprise,
                right.map(|right| right.is_some()),
                device,
            ));
            first += count;
        }
        for question in 0..some.numbers.len() {
            let right = traits.iter().map(|traits| traits.numbers[question]);
            let values = right.clone().map(|right| right.unwrap_or(0.0));
            let values = TensorData::new(values.collect::<Vec<f32>>(), [traits.len(), 1]);
            let values = Tensor::<2>::from_data(values, device);
            let error = outputs.clone().narrow(1, first, 1) - values;
            let half = error.square() * 0.5;
            losses.push(mean_of(half, right.map(|right| right.is_some()), device));
            first += 1;
        }
        let questions = losses.len() as f64;
        Tensor::cat(losses, 0).sum() / questions
    }
}

fn column(indices: Vec<i64>, device: &Device) -> Tensor<2, Int> {
    let shape = [indices.len(), 1];
    Tensor::from_data(TensorData::new(indices, shape), device)
}

/// The mean of a column over the rows that are asked; 0 when none is.
fn mean_of(values: Tensor<2>, asked: impl Iterator<Item = bool>, device: &Device) -> Tensor<1> {
    let asked: Vec<f32> = asked.map(|asked| f32::from(u8::from(asked))).collect();
    let count = asked.iter().sum::<f32>().max(1.0);
    let shape = [asked.len(), 1];
    let asked = Tensor::<2>::from_data(TensorData::new(asked, shape), device);
    (values * asked).sum() / count
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use core_model::dino::DinoConfig;

    use super::*;

    #[test]
    fn questions_that_make_no_sense_do_not_count() {
        let device = Device::flex();
        let config = DinoConfig {
            hidden_size: 4,
            intermediate_size: 4,
            num_hidden_layers: 1,
            num_attention_heads: 1,
            image_size: 8,
            patch_size: 8,
            ..DinoConfig::default()
        };
        let encoder = DinoModel::init(&config, 0, &device).unwrap();
        let traits = |choice, number| Traits {
            choices: vec![(choice, 3)],
            numbers: vec![number],
        };
        let taught = Taught::new(encoder, 4, &traits(None, None), 0, &device).unwrap();
        let loss = |of: &[Traits]| {
            let features = Tensor::<2>::ones([of.len(), 4], &device);
            taught.loss(features, of, &device).into_scalar::<f32>()
        };
        let [asked, other] = [traits(Some(2), Some(0.5)), traits(Some(0), Some(-1.0))];
        let without = traits(None, None);
        assert_eq!(loss(&[without.clone(), without.clone()]), 0.0);
        let [first, second] = [&asked, &other].map(|one| loss(std::slice::from_ref(one)));
        assert!((loss(&[asked.clone(), without]) - first).abs() < 1e-6);
        let mean = (first + second) / 2.0;
        assert!((loss(&[asked, other]) - mean).abs() < 1e-6);
    }
}
