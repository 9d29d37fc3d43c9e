//! Endless streams of scenes for pretraining; each scene is a function of (seed, purpose, number).

use burn::tensor::{Device, Tensor, TensorData};
use core_model::image_processor::channels_first;
use core_model::params::to_vec;
use image::{GrayImage, RgbImage};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use crate::world::{
    Attributes, Caption, Category, Claims, Identity, Pattern, Rendering, SIDE, View, render,
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
        image_of(&self.pixels)
    }
}

/// An image with the mask of its subject.
#[derive(Debug, Clone)]
pub(super) struct MaskedScene {
    /// [3, side, side] in [-1, 1].
    pub(super) pixels: Vec<f32>,
    /// [side, side] in [0, 1].
    pub(super) mask: Vec<f32>,
    /// The index of the subject's category.
    pub(super) category: usize,
    /// The index of a category that the image does not show.
    pub(super) other: usize,
}

/// The share of scenes that show a person instead of a thing, 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct PeopleShare(f64);

impl TryFrom<f64> for PeopleShare {
    type Error = String;

    fn try_from(share: f64) -> Result<Self, String> {
        match (0.0..=1.0).contains(&share) {
            true => Ok(Self(share)),
            false => Err(format!(
                "people is the share of scenes that show a person, 0 to 1, and cannot be {share}"
            )),
        }
    }
}

impl PeopleShare {
    /// The nouns that scenes with this share of people show.
    pub(super) fn nouns(self) -> &'static [Category] {
        match self.0 > 0.0 {
            true => Category::ALL,
            false => Category::THINGS,
        }
    }
}

/// Images with masks and the patterns of their things.
#[derive(Debug, Clone, Default)]
pub(super) struct PatternedScenes {
    /// Of all images, [3, side, side] in [-1, 1] each.
    pub(super) pixels: Vec<f32>,
    /// Of all images, [side, side] in [0, 1] each.
    pub(super) masks: Vec<f32>,
    /// One per image.
    pub(super) patterns: Vec<Pattern>,
}

/// A stream of scenes for one purpose. Training uses the first 2^40 numbers and only combinations
/// that are not reserved for concepts; held-out scenes are drawn under another purpose, so none of
/// them occurs in training.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scenes {
    seed: u64,
    split: Split,
    purpose: &'static str,
    people: PeopleShare,
}

impl Scenes {
    /// A stream of things.
    pub(super) fn new(seed: u64, split: Split, purpose: &'static str) -> Self {
        Self {
            seed,
            split,
            purpose,
            people: PeopleShare::default(),
        }
    }

    /// The same stream with people in the place of some of its things.
    pub(super) fn with_people(self, people: PeopleShare) -> Self {
        Self { people, ..self }
    }

    /// The random generator of the scene with this number.
    pub(super) fn rng(&self, number: u64) -> ChaCha8Rng {
        rng(self.seed, &self.purpose(), number)
    }

    fn purpose(&self) -> String {
        match self.split {
            Split::Training => self.purpose.to_string(),
            Split::HeldOut => format!("{} (held out)", self.purpose),
        }
    }

    /// Whether the scene with this number shows a person. Its own generator decides, so that the other
    /// scenes are the same with every share.
    pub(super) fn is_person(&self, number: u64) -> bool {
        let PeopleShare(share) = self.people;
        let generator = || rng(self.seed, &format!("{}, person", self.purpose()), number);
        share > 0.0 && generator().random_bool(share)
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
                rendered(&identity, &view)
            })
            .collect()
    }

    /// A thing or a person, its view, and the random generator in the state after drawing them.
    fn scene(&self, number: u64) -> (ChaCha8Rng, Identity, View) {
        let mut generator = self.rng(number);
        let identity = Identity::sample_for_training(&mut generator, self.is_person(number));
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
                let categories = self.people.nouns().len();
                MaskedScene {
                    pixels: channels_first(&image),
                    mask: coverage(&mask).collect(),
                    category,
                    other: (category + generator.random_range(1..categories)) % categories,
                }
            })
            .collect()
    }

    /// A batch of images with the patterns of their things; people, who have none, are left out.
    pub(super) fn patterned(&self, batch: u64, size: usize) -> PatternedScenes {
        let mut scenes = PatternedScenes::default();
        for number in Self::numbers(batch, size) {
            let (_, identity, view) = self.scene(number);
            let Identity::Thing(thing) = &identity else {
                continue;
            };
            let Rendering { image, mask } = render(&identity, &view);
            scenes.pixels.extend(channels_first(&image));
            scenes.masks.extend(coverage(&mask));
            scenes.patterns.push(thing.pattern);
        }
        scenes
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

    /// Two views of each of `groups` times `size` things or people; those of one group are alike at
    /// first sight: things of one category and colour, people with the same skin and hair.
    pub(super) fn two_views(&self, batch: u64, groups: usize, size: usize) -> [Vec<f32>; 2] {
        let mut views = [Vec::new(), Vec::new()];
        for group in Self::numbers(batch, groups) {
            let mut generator = self.rng(group);
            let first = Identity::sample_for_training(&mut generator, self.is_person(group));
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
                    pixels.extend(rendered(identity, &view));
                }
            }
        }
        views
    }
}

/// The pixels [3, side, side] in [-1, 1] of a subject in a view.
pub(super) fn rendered(identity: &Identity, view: &View) -> Vec<f32> {
    channels_first(&render(identity, view).image)
}

/// A mask as numbers from 0 to 1.
pub(super) fn coverage(mask: &GrayImage) -> impl Iterator<Item = f32> {
    mask.pixels().map(|pixel| f32::from(pixel.0[0]) / 255.0)
}

/// Stacks images of 64x64 pixels, the values of each after those of the one before, to a tensor [n, 3, 64, 64].
pub fn pixels(values: Vec<f32>, device: &Device) -> Tensor<4> {
    let side = SIDE as usize;
    let size = values.len() / (3 * side * side);
    Tensor::from_data(TensorData::new(values, [size, 3, side, side]), device)
}

/// The images of a tensor [n, 3, side, side] in [-1, 1].
pub(super) fn images(pixels: Tensor<4>) -> Vec<RgbImage> {
    let values = to_vec(pixels);
    let images = values.chunks_exact(3 * (SIDE * SIDE) as usize);
    images.map(image_of).collect()
}

/// The image of pixels [3, side, side] in [-1, 1].
fn image_of(pixels: &[f32]) -> RgbImage {
    let plane = (SIDE * SIDE) as usize;
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let at = (y * SIDE + x) as usize;
        let byte = |c: usize| ((pixels[c * plane + at] + 1.0) * 127.5).round() as u8;
        image::Rgb([byte(0), byte(1), byte(2)])
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use core_model::files::hex;
    use sha2::{Digest, Sha256};

    use super::*;

    /// The digest of the first 64 scenes in every form in which networks see them.
    fn digest(scenes: &Scenes) -> String {
        let mut hasher = Sha256::new();
        let floats = |hasher: &mut Sha256, values: &[f32]| {
            for value in values {
                hasher.update(value.to_le_bytes());
            }
        };
        for scene in scenes.labelled(0, 64) {
            hasher.update(&scene.caption);
            floats(&mut hasher, &scene.pixels);
        }
        for scene in scenes.fully_described(0, 64) {
            hasher.update(&scene.caption);
        }
        for scene in scenes.masked(0, 64) {
            hasher.update([scene.category as u8, scene.other as u8]);
            floats(&mut hasher, &scene.mask);
        }
        for view in scenes.two_views(0, 16, 4) {
            floats(&mut hasher, &view);
        }
        hex(&hasher.finalize())
    }

    /// The shipped weights were trained on exactly these scenes. Sine and cosine come from the
    /// platform's mathematics library, so the last bit is pinned on one platform only.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn streams_without_people_are_those_that_the_shipped_models_were_trained_on() {
        for (split, expected) in [
            (
                Split::Training,
                "f1b73aaca15f60316fb5fb5a0f30a90e4d2e301d96e4315c457ef09244a167ae",
            ),
            (
                Split::HeldOut,
                "86e92bad5e34d3969158657cc27b55f8b935a5f586eee85ff749a178ee589546",
            ),
        ] {
            assert_eq!(digest(&Scenes::new(4, split, "unet scene")), expected);
        }
    }

    fn with_people(share: f64) -> Scenes {
        let share = PeopleShare::try_from(share).unwrap();
        Scenes::new(4, Split::Training, "unet scene").with_people(share)
    }

    #[test]
    fn people_take_the_place_of_their_share_of_scenes_and_leave_the_others_as_they_are() {
        let things = with_people(0.0).labelled(0, 300);
        let mixed = with_people(0.333).labelled(0, 300);
        let mut people = 0;
        for (thing, scene) in things.iter().zip(&mixed) {
            match scene.attributes.category {
                Category::Person => people += 1,
                _ => assert_eq!(
                    (&thing.caption, &thing.pixels),
                    (&scene.caption, &scene.pixels)
                ),
            }
        }
        // Three standard deviations of 300 draws are 24.
        assert!((76..=124).contains(&people), "{people}");
        let alone = with_people(1.0).fully_described(0, 20);
        for scene in alone {
            assert_eq!(scene.attributes.category, Category::Person);
            assert!(scene.caption.contains(" person in "), "{}", scene.caption);
        }
    }

    #[test]
    fn masks_are_asked_for_one_of_the_nouns_of_the_stream() {
        let others = |share: f64| -> Vec<usize> {
            let scenes = with_people(share).masked(0, 200);
            for scene in &scenes {
                assert_ne!(scene.category, scene.other);
                let area = scene.mask.iter().sum::<f32>() / scene.mask.len() as f32;
                assert!(area > 0.03, "{area}");
            }
            scenes.iter().map(|scene| scene.other).collect()
        };
        let person = Category::Person.index();
        assert!(!others(0.0).contains(&person));
        assert!(others(0.5).contains(&person));
    }

    #[test]
    fn two_views_of_people_differ_and_come_in_groups() {
        let [first, second] = with_people(1.0).two_views(0, 2, 4);
        assert_eq!(first.len(), 8 * 3 * (SIDE * SIDE) as usize);
        assert_eq!(second.len(), first.len());
        assert_ne!(first, second);
    }

    #[derive(Debug, Deserialize)]
    struct Table {
        people: PeopleShare,
    }

    #[test]
    fn a_share_of_people_lies_between_none_and_all() {
        let message = toml::from_str::<Table>("people = 3")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("people = 3") && message.contains("0 to 1"),
            "{message}"
        );
        let table: Table = toml::from_str("people = 1").unwrap();
        assert_eq!(table.people, PeopleShare(1.0));
        for share in [-0.1, 1.5, f64::NAN] {
            let message = PeopleShare::try_from(share).unwrap_err();
            assert!(message.contains("0 to 1"), "{message}");
        }
        assert_eq!(
            PeopleShare::try_from(0.0).unwrap().nouns(),
            Category::THINGS
        );
        assert_eq!(PeopleShare::try_from(0.3).unwrap().nouns(), Category::ALL);
    }
}
