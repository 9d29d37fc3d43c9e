//! Batches in which everything has hard negatives: things (or people) that differ in one property,
//! all shown in the same two views.

use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;

use super::contrast::{cross_entropy, normalised};
use super::scenes::{Scenes, rendered};
use crate::world::{Counterfactual, Identity, View};

/// Images of things in two views.
#[derive(Debug)]
pub(super) struct Siblings {
    /// The things, in groups: one, then counterfactuals of it.
    pub(super) things: Vec<Identity>,
    /// The images of all things in their first view, then those in their second view.
    pub(super) pixels: Vec<f32>,
}

impl Siblings {
    /// `groups` times one thing and `counterfactuals` of it, of different kinds. None is reserved for
    /// concepts. Each group has two views of its own.
    pub(super) fn new(scenes: &Scenes, batch: u64, groups: u64, counterfactuals: usize) -> Self {
        let mut things = Vec::new();
        let mut images = [Vec::new(), Vec::new()];
        for group in batch * groups..(batch + 1) * groups {
            let mut generator = scenes.rng(group);
            let thing = Identity::sample_for_training(&mut generator, scenes.is_person(group));
            let mut kinds = Counterfactual::ALL.to_vec();
            let mut members = vec![thing.clone()];
            while members.len() <= counterfactuals && !kinds.is_empty() {
                let kind = kinds.swap_remove(generator.random_range(0..kinds.len()));
                let other = kind.of(&thing, &mut generator);
                members.extend(other.filter(|other| !other.is_held_out()));
            }
            for images in &mut images {
                let view = View::sample(&mut generator, &thing);
                for member in &members {
                    images.extend(rendered(member, &view));
                }
            }
            things.extend(members);
        }
        Self {
            things,
            pixels: images.concat(),
        }
    }
}

/// Each image has to find the other image of its thing among all other images of the batch.
pub(super) fn loss(features: Tensor<2>, temperature: f64, device: &Device) -> Tensor<1> {
    let features = normalised(features);
    let images = features.dims()[0];
    let things = images / 2;
    let mut itself = vec![0.0_f32; images * images];
    for image in 0..images {
        itself[image * images + image] = -1e4;
    }
    let itself = Tensor::<2>::from_data(TensorData::new(itself, [images, images]), device);
    let logits = features.clone().matmul(features.transpose()) * (1.0 / temperature);
    let answers = (0..images).map(|image| ((image + things) % images) as i64);
    cross_entropy(logits + itself, answers.collect(), device)
}

#[cfg(test)]
mod tests {
    use super::super::scenes::Split;
    use super::*;

    #[test]
    fn members_of_a_group_share_their_words_and_are_neither_equal_nor_reserved() {
        let scenes = Scenes::new(0, Split::Training, "siblings");
        let batch = Siblings::new(&scenes, 3, 5, 3);
        assert_eq!(batch.things.len(), 20);
        assert_eq!(batch.pixels.len(), 2 * 20 * 3 * 64 * 64);
        for group in batch.things.chunks_exact(4) {
            for (place, thing) in group.iter().enumerate() {
                assert!(!thing.is_held_out());
                assert_eq!(thing.category(), group[0].category());
                assert!(!group[..place].contains(thing));
            }
        }
        assert_eq!(batch.pixels, Siblings::new(&scenes, 3, 5, 3).pixels);
    }

    #[test]
    fn an_image_is_compared_with_every_other_image_but_itself() {
        let device = Device::flex();
        let features = [[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0]];
        let features = Tensor::<2>::from_floats(features, &device);
        // The cosine with the right image is 1, with the two others 0.
        let expected = (1.0 + 2.0 * (-10.0_f32).exp()).ln();
        let found = loss(features, 0.1, &device).into_scalar::<f32>();
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}
