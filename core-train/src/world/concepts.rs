//! The things in the shipped concept folders. None of their combinations of noun, colour and
//! pattern occurs in pretraining.

use core_model::rng::rng;
use rand::RngExt;

use super::{Background, Category, Color, Pattern, Rendering, Style, Thing, View, render};

/// Number of photos per concept.
pub const PHOTOS: usize = 5;

/// How many of the photos have a plain background; the others show different places.
const PLAIN_PHOTOS: usize = 2;

/// One thing of the world to be learned from its photos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorldConcept {
    /// The name of its folder.
    pub name: &'static str,
    /// Whether settings are chosen on it, so that no score of it is reported.
    pub for_development: bool,
    /// The noun.
    pub category: Category,
    /// The main colour.
    pub color: Color,
    /// The markings.
    pub pattern: Pattern,
}

const fn evaluated(
    name: &'static str,
    category: Category,
    color: Color,
    pattern: Pattern,
) -> WorldConcept {
    WorldConcept {
        name,
        for_development: false,
        category,
        color,
        pattern,
    }
}

const fn development(
    name: &'static str,
    category: Category,
    color: Color,
    pattern: Pattern,
) -> WorldConcept {
    WorldConcept {
        for_development: true,
        ..evaluated(name, category, color, pattern)
    }
}

impl WorldConcept {
    /// Every shipped concept: one per category, then the two for development.
    pub const ALL: [Self; 10] = [
        evaluated("spotted-dog", Category::Dog, Color::Blue, Pattern::Spots),
        evaluated(
            "patched-cat",
            Category::Cat,
            Color::Orange,
            Pattern::Patches,
        ),
        evaluated(
            "two-coloured-rabbit",
            Category::Rabbit,
            Color::Purple,
            Pattern::Half,
        ),
        evaluated(
            "spotted-bird",
            Category::Bird,
            Color::Yellow,
            Pattern::Spots,
        ),
        evaluated("striped-cup", Category::Cup, Color::White, Pattern::Stripes),
        evaluated("striped-car", Category::Car, Color::Pink, Pattern::Stripes),
        evaluated(
            "striped-house",
            Category::House,
            Color::Blue,
            Pattern::Stripes,
        ),
        evaluated(
            "spotted-clock",
            Category::Clock,
            Color::Blue,
            Pattern::Spots,
        ),
        development("patched-dog", Category::Dog, Color::White, Pattern::Patches),
        development("spotted-cup", Category::Cup, Color::Red, Pattern::Spots),
    ];

    /// Its folder inside the folder of all concepts.
    pub fn folder(&self) -> String {
        if self.for_development {
            format!("development/{}", self.name)
        } else {
            self.name.to_string()
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
        let mut places = vec![Background::Plain; PLAIN_PHOTOS];
        while places.len() < PHOTOS {
            let place = Background::ALL[generator.random_range(0..Background::ALL.len())];
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
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

    /// The text of `concept.toml`, which lies beside the photos.
    pub fn toml(&self) -> String {
        let Self { name, category, .. } = self;
        let noun = category.word();
        let group = if category.is_animate() {
            "animate"
        } else {
            "inanimate"
        };
        format!(
            "name = \"{name}\"\n\
             images = \".\"\n\
             super_category = \"{noun}\"\n\
             initializer_token = \"{noun}\"\n\
             group = \"{group}\"\n"
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

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

    #[test]
    fn evaluated_concepts_cover_every_category_and_two_more_are_for_development() {
        let (development, evaluated): (Vec<&WorldConcept>, Vec<&WorldConcept>) = WorldConcept::ALL
            .iter()
            .partition(|concept| concept.for_development);
        let nouns: HashSet<_> = evaluated.iter().map(|concept| concept.category).collect();
        assert_eq!((evaluated.len(), nouns.len(), development.len()), (8, 8, 2));
        let names: HashSet<_> = WorldConcept::ALL.iter().map(WorldConcept::folder).collect();
        assert_eq!(names.len(), WorldConcept::ALL.len());
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
        let table: toml::Table = concept.toml().parse().unwrap();
        let keys: Vec<_> = table
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str().unwrap()))
            .collect();
        let expected = [
            ("group", "inanimate"),
            ("images", "."),
            ("initializer_token", "cup"),
            ("name", "striped-cup"),
            ("super_category", "cup"),
        ];
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
    }
}
