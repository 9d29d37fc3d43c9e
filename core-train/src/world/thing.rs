//! Things: animals and objects.

use rand::{Rng, RngExt};

use super::{Category, Color, Pattern, is_reserved};

/// One thing: its words, and everything about it that no word names.
#[derive(Debug, Clone, PartialEq)]
pub struct Thing {
    /// The noun.
    pub category: Category,
    /// The main colour.
    pub color: Color,
    /// The markings.
    pub pattern: Pattern,
    /// Seed of the positions of the markings.
    pub pattern_seed: u64,
    /// The colour of the markings.
    pub second: [u8; 3],
    /// The colour of details: inner ears, wheels, doors.
    pub third: [u8; 3],
    /// Factors around 1 for body width, body height, head, ears, legs, tail and face.
    pub proportions: [f32; 7],
    /// One of three shapes of the category.
    pub variant: u8,
    /// One of three kinds of eyes.
    pub eyes: u8,
}

/// The colours of markings and details. They differ from the eight named colours, so that a thing
/// is more than its words.
pub(super) const HIDDEN_COLORS: [[u8; 3]; 10] = [
    [92, 54, 32],
    [30, 30, 36],
    [238, 222, 190],
    [40, 140, 150],
    [168, 218, 220],
    [128, 20, 54],
    [196, 180, 60],
    [22, 60, 110],
    [252, 250, 244],
    [150, 150, 158],
];

impl Thing {
    /// Draws any of the eight kinds of things.
    pub fn sample(generator: &mut impl Rng) -> Self {
        let category = Category::THINGS[generator.random_range(0..Category::THINGS.len())];
        let color = Color::ALL[generator.random_range(0..Color::ALL.len())];
        Self::sample_of(generator, category, color)
    }

    /// Draws a thing for pretraining: any but those reserved for concepts.
    pub fn sample_for_training(generator: &mut impl Rng) -> Self {
        loop {
            let thing = Self::sample(generator);
            if !thing.is_held_out() {
                return thing;
            }
        }
    }

    /// Draws a thing that the same words describe.
    pub fn sample_like(generator: &mut impl Rng, other: &Self) -> Self {
        Self::sample_of(generator, other.category, other.color)
    }

    /// Draws a thing with this noun and this colour.
    pub fn sample_of(generator: &mut impl Rng, category: Category, color: Color) -> Self {
        let pattern = Pattern::ALL[generator.random_range(0..Pattern::ALL.len())];
        let far = |a: [u8; 3], b: [u8; 3]| {
            a.iter()
                .zip(b)
                .map(|(a, b)| a.abs_diff(b) as u32)
                .sum::<u32>()
                > 120
        };
        let mut pick = |others: &[[u8; 3]]| loop {
            let hue = HIDDEN_COLORS[generator.random_range(0..HIDDEN_COLORS.len())];
            if others.iter().all(|other| far(hue, *other)) {
                return hue;
            }
        };
        let second = pick(&[color.rgb()]);
        let third = pick(&[color.rgb(), second]);
        Self {
            category,
            color,
            pattern,
            pattern_seed: generator.random(),
            second,
            third,
            proportions: std::array::from_fn(|_| generator.random_range(0.82..1.18)),
            variant: generator.random_range(0..3),
            eyes: generator.random_range(0..3),
        }
    }

    /// Whether its (category, colour, pattern) is reserved for concepts and never occurs in
    /// pretraining.
    pub fn is_held_out(&self) -> bool {
        let [category, color, pattern] = [
            self.category.index(),
            self.color.index(),
            self.pattern.index(),
        ]
        .map(|i| i as u64);
        is_reserved(category * 64 + color * 8 + pattern)
    }
}
