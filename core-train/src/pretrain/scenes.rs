//! Endless streams of scenes for pretraining; each scene is a function of (seed, purpose, number).

use burn::tensor::{Device, Tensor, TensorData};
use core_model::image_processor::channels_first;
use image::RgbImage;
use rand_chacha::ChaCha8Rng;

use crate::world::{
    Attributes, Caption, Category, Claims, Identity, Rendering, SIDE, View, render,
};
use core_model::rng::rng;
use rand::RngExt;

/// Scenes for training or held-out scenes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    Training,
    HeldOut,
}

/// An image with its caption, the claims of the caption and the true attributes.
#[derive(Debug, Clone)]
pub(super) struct LabelledScene {
    /// [3, side, side] in [-1, 1].
    pub(super) pixels: Vec<f32>,
    pub(super) caption: String,
    pub(super) claims: Claims,
    pub(super) attributes: Attributes,
}

impl LabelledScene {
    fn new(image: &RgbImage, caption: Caption, attributes: Attributes) -> Self {
        let pixels = channels_first(image);
        Self {
            pixels,
            caption: caption.text,
            claims: caption.claims,
            attributes,
        }
    }

    /// The rendered image.
    pub(super) fn image(&self) -> RgbImage {
        let plane = (SIDE * SIDE) as usize;
        RgbImage::from_fn(SIDE, SIDE, |x, y| {
            let at = (y * SIDE + x) as usize;
            let byte = |c: usize| ((self.pixels[c * plane + at] + 1.0) * 127.5).round() as u8;
            image::Rgb([byte(0), byte(1), byte(2)])
        })
    }
}

/// An image with the mask of its thing.
#[derive(Debug, Clone)]
pub(super) struct MaskedScene {
    /// [3, side, side] in [-1, 1].
    pub(super) pixels: Vec<f32>,
    /// [side, side] in [0, 1].
    pub(super) mask: Vec<f32>,
    /// The index of the thing's category.
    pub(super) category: usize,
    /// The index of a category that the image does not show.
    pub(super) other: usize,
}

/// A stream of scenes for one purpose. Training uses the first 2^40 numbers and only combinations
/// that are not reserved for concepts; held-out scenes are drawn under another purpose, so none of
/// them occurs in training.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scenes {
    seed: u64,
    split: Split,
    purpose: &'static str,
}

impl Scenes {
    pub(super) fn new(seed: u64, split: Split, purpose: &'static str) -> Self {
        Self {
            seed,
            split,
            purpose,
        }
    }

    /// The random generator of the scene with this number.
    pub(super) fn rng(&self, number: u64) -> ChaCha8Rng {
        let purpose = match self.split {
            Split::Training => self.purpose.to_string(),
            Split::HeldOut => format!("{} (held out)", self.purpose),
        };
        rng(self.seed, &purpose, number)
    }

    fn numbers(batch: u64, size: usize) -> impl Iterator<Item = u64> {
        let first = batch * size as u64;
        first..first + size as u64
    }

    /// The pixels of a batch as one tensor [size, 3, side, side] in [-1, 1].
    pub(super) fn pixels(&self, batch: u64, size: usize) -> Vec<f32> {
        Self::numbers(batch, size)
            .flat_map(|number| {
                let (_, identity, view) = self.scene(number);
                channels_first(&render(&identity, &view).image)
            })
            .collect()
    }

    /// A thing, its view, and the random generator in the state after drawing them.
    fn scene(&self, number: u64) -> (ChaCha8Rng, Identity, View) {
        let mut generator = self.rng(number);
        let identity = Identity::sample_for_training(&mut generator);
        let view = View::sample(&mut generator, &identity);
        (generator, identity, view)
    }

    fn captioned(
        &self,
        batch: u64,
        size: usize,
        caption: impl Fn(&mut ChaCha8Rng, &Identity, &View) -> Caption,
    ) -> Vec<LabelledScene> {
        Self::numbers(batch, size)
            .map(|number| {
                let (mut generator, identity, view) = self.scene(number);
                let caption = caption(&mut generator, &identity, &view);
                let image = render(&identity, &view).image;
                LabelledScene::new(&image, caption, Attributes::of(&identity, &view))
            })
            .collect()
    }

    /// A batch of images with captions that leave out parts at random.
    pub(super) fn labelled(&self, batch: u64, size: usize) -> Vec<LabelledScene> {
        self.captioned(batch, size, |generator, identity, view| {
            Caption::sample(generator, identity, view)
        })
    }

    /// A batch of images whose captions name every attribute that has a word.
    pub(super) fn fully_described(&self, batch: u64, size: usize) -> Vec<LabelledScene> {
        self.captioned(batch, size, |_, identity, view| {
            Caption::full(identity, view)
        })
    }

    /// A batch of images with masks.
    pub(super) fn masked(&self, batch: u64, size: u64) -> Vec<MaskedScene> {
        (batch * size..(batch + 1) * size)
            .map(|number| {
                let (mut generator, identity, view) = self.scene(number);
                let Rendering { image, mask } = render(&identity, &view);
                let category = Attributes::of(&identity, &view).category.index();
                let categories = Category::ALL.len();
                MaskedScene {
                    pixels: channels_first(&image),
                    mask: mask.pixels().map(|p| f32::from(p.0[0]) / 255.0).collect(),
                    category,
                    other: (category + generator.random_range(1..categories)) % categories,
                }
            })
            .collect()
    }

    /// Captions without images, for the tokenizer.
    pub(super) fn captions(&self, count: usize) -> Vec<String> {
        (0..count as u64)
            .map(|number| {
                let (mut generator, identity, view) = self.scene(number);
                Caption::sample(&mut generator, &identity, &view).text
            })
            .collect()
    }

    /// Two views of each of `groups` times `size` things; the things of one group share category and
    /// colour.
    pub(super) fn two_views(&self, batch: u64, groups: usize, size: usize) -> [Vec<f32>; 2] {
        let mut views = [Vec::new(), Vec::new()];
        for group in Self::numbers(batch, groups) {
            let mut generator = self.rng(group);
            let first = Identity::sample_for_training(&mut generator);
            let mut members = vec![first.clone()];
            while members.len() < size {
                let member = Identity::sample_like(&mut generator, &first);
                if !member.is_held_out() {
                    members.push(member);
                }
            }
            for identity in &members {
                for pixels in &mut views {
                    let view = View::sample(&mut generator, identity);
                    pixels.extend(channels_first(&render(identity, &view).image));
                }
            }
        }
        views
    }
}

/// Stacks images to a tensor [n, 3, side, side].
pub(super) fn pixels(values: Vec<f32>, device: &Device) -> Tensor<4> {
    let side = SIDE as usize;
    let size = values.len() / (3 * side * side);
    Tensor::from_data(TensorData::new(values, [size, 3, side, side]), device)
}
