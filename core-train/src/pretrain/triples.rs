//! Whether an image encoder tells a thing from its counterfactuals: things almost like it, shown in
//! the very view in which the thing itself was shown.

use burn::tensor::{Device, Tensor};
use core_model::image_processor::channels_first;
use core_model::params::to_vec;
use image::RgbImage;

use super::contrast::normalised;
use super::objective::Quality;
use super::scenes::{Scenes, Split, pixels};
use crate::world::{
    ConceptSet, Counterfactual, Pattern, Thing, View, WorldConcept, render, visible_difference,
};

/// Things whose images go through the network together.
const BATCH: u64 = 16;

/// The difference that one has to see in the view, so that an encoder is asked nothing that a scarf or
/// a hat hides: 3 of 100 pixels of the thing, which leaves out one other shape in twenty and hardly
/// any of the other kinds.
const VISIBLE: f64 = 0.03;

/// For each kind of counterfactual the share of held-out things whose image in another view is
/// nearer to an image of the thing than its counterfactual in that image's view. Half of the things
/// are combinations that are reserved for concepts. The things are the same for every network.
pub(super) fn triples(
    features: impl Fn(Tensor<4>) -> Tensor<2>,
    things: u64,
    device: &Device,
) -> Quality {
    let scenes = Scenes::new(0, Split::HeldOut, "counterfactual");
    let mut right = [0_u32; Counterfactual::ALL.len()];
    let mut asked = right;
    for batch in 0..things.div_ceil(BATCH) {
        let sets: Vec<Triple> = (batch * BATCH..things.min((batch + 1) * BATCH))
            .map(|number| Triple::new(&scenes, number))
            .collect();
        let images = sets.iter().flat_map(|set| &set.images);
        let similarity = similarities(&features, images, device);
        let mut first = 0;
        for set in &sets {
            let anchor = &similarity[first];
            let same = anchor[first + 1];
            for (place, kind) in (first + 2..).zip(&set.kinds) {
                asked[*kind as usize] += 1;
                right[*kind as usize] += u32::from(same > anchor[place]);
            }
            first += set.images.len();
        }
    }
    let shares = Counterfactual::ALL
        .into_iter()
        .zip(right.into_iter().zip(asked));
    shares
        .map(|(kind, (right, asked))| (kind.word().into(), f64::from(right) / f64::from(asked)))
        .collect()
}

/// `photos`: the mean cosine of two photos of a shipped concept or one for choosing settings, so that
/// nothing is chosen on those of Table 3; `photos_without_pattern`: that of a
/// photo of it and a photo of the same thing without its markings. These are scores of the concepts
/// as experiments report them, so the second must lie below the first.
pub(super) fn photos(features: impl Fn(Tensor<4>) -> Tensor<2>, device: &Device) -> Quality {
    let (mut same, mut without, mut photos) = (0.0, 0.0, 0.0);
    let all = WorldConcept::ALL.iter();
    for concept in all.filter(|concept| concept.set != ConceptSet::Table3) {
        let (thing, views) = (concept.thing(), concept.views());
        let plain = Thing {
            pattern: Pattern::None,
            ..thing.clone()
        };
        let shown = |thing: Thing| -> Vec<RgbImage> {
            let thing = thing.into();
            let images = views.iter().map(|view| render(&thing, view).image);
            images.collect()
        };
        let images = [shown(thing), shown(plain)].concat();
        let similarity = similarities(&features, images.iter(), device);
        let count = views.len();
        for (i, row) in similarity[..count].iter().enumerate() {
            let others = (0..count).filter(|j| *j != i);
            same += mean(others.map(|j| row[j]));
            without += mean(row[count..].iter().copied());
            photos += 1.0;
        }
    }
    vec![
        ("photos".into(), same / photos),
        ("photos_without_pattern".into(), without / photos),
    ]
}

fn mean(values: impl Iterator<Item = f32>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| {
        (sum + f64::from(value), count + 1.0)
    });
    sum / count
}

/// A thing in two views, then its counterfactuals in the first of them.
struct Triple {
    images: Vec<RgbImage>,
    kinds: Vec<Counterfactual>,
}

impl Triple {
    fn new(scenes: &Scenes, number: u64) -> Self {
        let mut generator = scenes.rng(number);
        let is_reserved = number % 2 == 1;
        let thing = loop {
            let thing = Thing::sample(&mut generator);
            if thing.is_held_out() == is_reserved {
                break thing.into();
            }
        };
        let [view, other] = [(); 2].map(|()| View::sample(&mut generator, &thing));
        let anchor = render(&thing, &view);
        let mut images = vec![anchor.image.clone(), render(&thing, &other).image];
        let mut kinds = Vec::new();
        for kind in Counterfactual::ALL {
            let Some(counterfactual) = kind.of(&thing, &mut generator) else {
                continue;
            };
            let counterfactual = render(&counterfactual, &view);
            if visible_difference(&anchor, &counterfactual) >= VISIBLE {
                images.push(counterfactual.image);
                kinds.push(kind);
            }
        }
        Self { images, kinds }
    }
}

/// The cosine of every pair of images.
fn similarities<'a>(
    features: impl Fn(Tensor<4>) -> Tensor<2>,
    images: impl Iterator<Item = &'a RgbImage>,
    device: &Device,
) -> Vec<Vec<f32>> {
    let images = images.flat_map(channels_first).collect();
    let features = normalised(features(pixels(images, device)));
    let count = features.dims()[0];
    let cosines = to_vec(features.clone().matmul(features.transpose()));
    cosines.chunks_exact(count).map(<[f32]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_that_sees_only_the_view_is_always_wrong_and_raw_pixels_nearly_always() {
        let device = Device::flex();
        let raw = |pixels: Tensor<4>| {
            let [count, channels, height, width] = pixels.dims();
            pixels.reshape([count, channels * height * width])
        };
        for (kind, share) in triples(raw, 32, &device) {
            assert!(share < 0.1, "{kind} {share}");
        }
        let [photos, without] = photos(raw, &device).try_into().unwrap_or_else(|_| panic!());
        assert!(photos.1 < without.1, "{photos:?} {without:?}");
    }

    #[test]
    fn half_of_the_things_are_reserved_for_concepts_and_every_kind_is_asked() {
        let scenes = Scenes::new(0, Split::HeldOut, "counterfactual");
        let kinds: Vec<Counterfactual> = (0..8)
            .flat_map(|number| Triple::new(&scenes, number).kinds)
            .collect();
        for kind in Counterfactual::ALL {
            assert!(kinds.contains(&kind), "{kind:?}");
        }
    }
}
