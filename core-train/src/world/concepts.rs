//! The things in the shipped concept folders. None of their combinations of noun, colour and
//! pattern occurs in pretraining.

use core_model::files::hex;
use core_model::rng::rng;
use image::RgbImage;
use rand::{Rng, RngExt};
use sha2::{Digest, Sha256};

use super::{Background, Category, Color, Pattern, Rendering, Style, Thing, View, render};

/// Number of photos per concept.
pub const PHOTOS: usize = 5;

/// How many of the photos have a plain background; the others show different places.
const PLAIN_PHOTOS: usize = 2;

/// What a concept is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConceptSet {
    /// The shipped experiments are evaluated on it.
    Shipped,
    /// Settings are chosen on it, so that no score of it is reported.
    Development,
    /// `experiments/table3.toml` is evaluated on it, and nothing is ever chosen on it.
    Table3,
}

impl ConceptSet {
    /// The folder of these concepts inside the folder of all concepts.
    fn folder(self) -> Option<&'static str> {
        match self {
            Self::Shipped => None,
            Self::Development => Some("development"),
            Self::Table3 => Some("table3"),
        }
    }
}

/// One thing of the world to be learned from its photos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorldConcept {
    /// The name of its folder.
    pub name: &'static str,
    /// What it is for.
    pub set: ConceptSet,
    /// The noun.
    pub category: Category,
    /// The main colour.
    pub color: Color,
    /// The markings.
    pub pattern: Pattern,
}

/// Places of `count` photos: so many plain ones, then different others.
pub(super) fn places(generator: &mut impl Rng, plain: usize, count: usize) -> Vec<Background> {
    let mut places = vec![Background::Plain; plain];
    while places.len() < count {
        let place = Background::ALL[generator.random_range(0..Background::ALL.len())];
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

impl WorldConcept {
    /// Its folder inside the folder of all concepts.
    pub fn folder(&self) -> String {
        match self.set.folder() {
            Some(set) => format!("{set}/{}", self.name),
            None => self.name.to_string(),
        }
    }

    /// The thing itself: everything that no caption names is drawn once.
    pub fn thing(&self) -> Thing {
        let mut generator = rng(0, &format!("concept {}", self.name), 0);
        loop {
            let thing = Thing::sample_of(&mut generator, self.category, self.color);
            if thing.pattern == self.pattern {
                return thing;
            }
        }
    }

    /// The views of its photos: different poses, light and backgrounds, and no accessory.
    pub fn views(&self) -> Vec<View> {
        let mut generator = rng(0, &format!("photos of {}", self.name), 0);
        places(&mut generator, PLAIN_PHOTOS, PHOTOS)
            .into_iter()
            .map(|place| View::arranged(&mut generator, Style::Photo, place, None))
            .collect()
    }

    /// Its photos, in the order of [`views`](Self::views).
    pub fn photos(&self) -> Vec<Rendering> {
        let identity = self.thing().into();
        self.views()
            .iter()
            .map(|view| render(&identity, view))
            .collect()
    }

    /// The text of `concept.toml`, which lies beside these photos.
    pub fn toml(&self, photos: &[RgbImage]) -> String {
        concept_toml(self.name, self.category, photos, None)
    }
}

/// The text of the `concept.toml` of a concept with this name and noun, which lies beside these photos.
/// Scores compare with the photos in the folder `references`, where it is named.
pub(super) fn concept_toml(
    name: &str,
    category: Category,
    photos: &[RgbImage],
    references: Option<&str>,
) -> String {
    let noun = category.word();
    let group = if category.is_animate() {
        "animate"
    } else {
        "inanimate"
    };
    let references = references.map_or(String::new(), |folder| {
        format!("references = \"{folder}\"\n")
    });
    format!(
        "name = \"{name}\"\n\
         images = \".\"\n\
         {references}\
         super_category = \"{noun}\"\n\
         initializer_token = \"{noun}\"\n\
         group = \"{group}\"\n\
         rendered = \"{}\"\n",
        photos_digest(photos)
    )
}

/// What distinguishes photos from those of another version of the renderer: the beginning of the SHA-256 of
/// their sizes and pixels.
pub fn photos_digest(photos: &[RgbImage]) -> String {
    let mut hasher = Sha256::new();
    for photo in photos {
        hasher.update(photo.width().to_le_bytes());
        hasher.update(photo.height().to_le_bytes());
        hasher.update(photo.as_raw());
    }
    let mut digest = hex(&hasher.finalize());
    digest.truncate(16);
    digest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn concepts_are_combinations_that_training_never_meets() {
        for concept in WorldConcept::ALL {
            let thing = concept.thing();
            assert_eq!(thing.category, concept.category);
            assert_eq!(thing.color, concept.color);
            assert_eq!(thing.pattern, concept.pattern);
            assert!(thing.is_held_out(), "{}", concept.name);
        }
    }

    fn of_set(set: ConceptSet) -> Vec<WorldConcept> {
        let concepts = WorldConcept::ALL.iter().copied();
        concepts.filter(|concept| concept.set == set).collect()
    }

    fn per_category(concepts: &[WorldConcept]) -> HashMap<Category, usize> {
        let mut counts = HashMap::new();
        for concept in concepts {
            *counts.entry(concept.category).or_insert(0) += 1;
        }
        counts
    }

    #[test]
    fn every_category_has_one_shipped_concept_and_three_of_table_3() {
        for (set, count) in [(ConceptSet::Shipped, 1), (ConceptSet::Table3, 3)] {
            let counts = per_category(&of_set(set));
            assert_eq!(counts.len(), 8, "{set:?}");
            assert!(counts.values().all(|found| *found == count), "{counts:?}");
        }
        let animate = of_set(ConceptSet::Table3).into_iter();
        let animate = animate.filter(|concept| concept.category.is_animate());
        assert_eq!(animate.count(), 12);
    }

    #[test]
    fn concepts_for_choosing_settings_are_two_animals_and_two_things_with_words_of_their_own() {
        let development = of_set(ConceptSet::Development);
        let animate = development.iter().filter(|c| c.category.is_animate());
        assert_eq!((development.len(), animate.count()), (4, 2));
        let words = |c: &WorldConcept| (c.category, c.color, c.pattern);
        for chosen in &development {
            let mut evaluated = WorldConcept::ALL.iter();
            assert!(
                evaluated.all(|c| c.set == ConceptSet::Development || words(c) != words(chosen)),
                "{}",
                chosen.name
            );
        }
    }

    #[test]
    fn concepts_with_the_same_words_are_different_things_that_one_can_tell_apart() {
        let all = WorldConcept::ALL;
        let mut pairs = 0;
        for (index, one) in all.iter().enumerate() {
            for other in &all[..index] {
                assert_ne!(one.folder(), other.folder());
                let [a, b] = [one, other].map(WorldConcept::thing);
                if (a.category, a.color, a.pattern) == (b.category, b.color, b.pattern) {
                    pairs += 1;
                    let names = format!("{}, {}", one.name, other.name);
                    assert_ne!(a.second, b.second, "{names}: colour of markings");
                    assert_ne!(a.third, b.third, "{names}: colour of details");
                }
            }
        }
        assert_eq!(pairs, 5);
    }

    #[test]
    fn photos_of_one_concept_differ_in_pose_and_light_and_show_three_places() {
        for concept in WorldConcept::ALL {
            let views = concept.views();
            assert_eq!(views.len(), PHOTOS);
            for (index, view) in views.iter().enumerate() {
                assert_eq!((view.style, view.accessory), (Style::Photo, None));
                for other in &views[..index] {
                    assert_ne!(view.lean, other.lean);
                    assert_ne!(view.light, other.light);
                }
            }
            let places: HashSet<_> = views.iter().map(|view| view.background).collect();
            assert_eq!(places.len(), 1 + PHOTOS - PLAIN_PHOTOS);
        }
    }

    #[test]
    fn the_concept_file_gives_words_group_and_place_of_the_photos() {
        let concept = WorldConcept::ALL[4];
        let photos = [RgbImage::new(1, 2)];
        let table: toml::Table = concept.toml(&photos).parse().unwrap();
        let keys: Vec<_> = table
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str().unwrap()))
            .collect();
        let expected = [
            ("group", "inanimate"),
            ("images", "."),
            ("initializer_token", "cup"),
            ("name", "striped-cup"),
            ("rendered", &photos_digest(&photos)),
            ("super_category", "cup"),
        ];
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
    }

    #[test]
    fn the_digest_is_of_the_pixels_and_of_the_shape_of_the_photos() {
        let photo =
            |width, height, value| RgbImage::from_pixel(width, height, image::Rgb([value; 3]));
        let one = photos_digest(&[photo(1, 2, 7)]);
        // printf '\1\0\0\0\2\0\0\0\7\7\7\7\7\7' | sha256sum
        assert_eq!(one, "15e5b23ba3e3b6f3");
        for other in [photo(1, 2, 8), photo(2, 1, 7)] {
            assert_ne!(photos_digest(&[other]), one);
        }
    }
}
