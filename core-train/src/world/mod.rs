//! The mini world: small scenes of things in places, drawn by code.
//!
//! A scene is a pure function of an [`Identity`] (one thing, with all that no caption names) and a
//! [`View`] (how one image shows it).

mod animals;
mod backgrounds;
mod bird;
mod canvas;
mod caption;
mod concepts;
pub mod contact_sheet;
mod counterfactual;
mod head;
mod objects;
mod pattern;
mod style;
#[cfg(test)]
mod tests;
mod words;

use image::{GrayImage, RgbImage};
use rand::{Rng, RngExt};

pub use caption::{Caption, Claims};
pub use concepts::{PHOTOS, WorldConcept};
pub use counterfactual::{Counterfactual, visible_difference};
pub use words::{Accessory, Background, Category, Color, Pattern, Style};

use canvas::Canvas;

/// Width and height of an image, in pixels.
pub const SIDE: u32 = 64;

/// One of this many (category, colour, pattern) combinations is reserved for concepts.
const HELD_OUT_ONE_IN: u64 = 12;

/// One thing: its words, and everything about it that no word names.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
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
const HIDDEN_COLORS: [[u8; 3]; 10] = [
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

impl Identity {
    /// Draws any thing of the world.
    pub fn sample(generator: &mut impl Rng) -> Self {
        let category = Category::ALL[generator.random_range(0..Category::ALL.len())];
        let color = Color::ALL[generator.random_range(0..Color::ALL.len())];
        Self::sample_of(generator, category, color)
    }

    /// Draws a thing for pretraining: any but those reserved for concepts.
    pub fn sample_for_training(generator: &mut impl Rng) -> Self {
        loop {
            let identity = Self::sample(generator);
            if !identity.is_held_out() {
                return identity;
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
        // SplitMix64 of the combination's number: the same on every platform and in every version.
        let mut x = (category * 64 + color * 8 + pattern).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)).is_multiple_of(HELD_OUT_ONE_IN)
    }
}

/// How one image shows a thing.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The medium.
    pub style: Style,
    /// The place.
    pub background: Background,
    /// What the animal wears.
    pub accessory: Option<Accessory>,
    /// Whether it faces left.
    pub mirrored: bool,
    /// Lean to one side, in degrees.
    pub lean: f32,
    /// Phase of the step or the wing beat, 0 to 1.
    pub gait: f32,
    /// Shift of the centre, in hundredths of the image.
    pub shift: [f32; 2],
    /// Size; a thing of size 1 fills about two thirds of the image.
    pub size: f32,
    /// Brightness and warmth of the light, around 1 and 0.
    pub light: [f32; 2],
    /// Seed of the positions of dunes, stars, windows and brush strokes.
    pub seed: u64,
}

impl View {
    /// Draws any view of a thing.
    pub fn sample(generator: &mut impl Rng, identity: &Identity) -> Self {
        let style = match generator.random_range(0..10) {
            0..4 => Style::Photo,
            4..6 => Style::Cartoon,
            6..8 => Style::Sketch,
            _ => Style::Painting,
        };
        let background = Background::ALL[generator.random_range(0..Background::ALL.len())];
        let worn = generator.random_range(0..6);
        let accessory = Accessory::ALL
            .get(worn)
            .copied()
            .filter(|_| identity.category.is_animate());
        Self::arranged(generator, style, background, accessory)
    }

    /// A view with the given style, background and accessory; everything else is drawn at random.
    pub fn arranged(
        generator: &mut impl Rng,
        style: Style,
        background: Background,
        accessory: Option<Accessory>,
    ) -> Self {
        Self {
            style,
            background,
            accessory,
            mirrored: generator.random(),
            lean: generator.random_range(-8.0..8.0),
            gait: generator.random_range(0.0..1.0),
            shift: [
                generator.random_range(-6.0..6.0),
                generator.random_range(-3.0..5.0),
            ],
            size: generator.random_range(0.88..1.12),
            light: [
                generator.random_range(0.88..1.08),
                generator.random_range(-0.06..0.06),
            ],
            seed: generator.random(),
        }
    }
}

/// The true attributes of a scene, which zero-shot classification has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The noun.
    pub category: Category,
    /// The main colour.
    pub color: Color,
    /// What is worn.
    pub accessory: Option<Accessory>,
    /// The place.
    pub background: Background,
    /// The medium.
    pub style: Style,
}

impl Attributes {
    /// What is true of this thing in this view.
    pub fn of(identity: &Identity, view: &View) -> Self {
        Self {
            category: identity.category,
            color: identity.color,
            accessory: view.accessory,
            background: view.background,
            style: view.style,
        }
    }
}

/// A rendered image and the mask of the thing in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendering {
    /// [`SIDE`] by [`SIDE`] pixels.
    pub image: RgbImage,
    /// 255 on the thing and what it wears, 0 elsewhere.
    pub mask: GrayImage,
}

/// Draws a scene.
pub fn render(identity: &Identity, view: &View) -> Rendering {
    let mut canvas = Canvas::new(view);
    backgrounds::draw(&mut canvas, view);
    canvas.begin_subject(view);
    let draw = match identity.category {
        Category::Dog => animals::dog,
        Category::Cat => animals::cat,
        Category::Rabbit => animals::rabbit,
        Category::Bird => bird::draw,
        Category::Cup => objects::cup,
        Category::Car => objects::car,
        Category::House => objects::house,
        Category::Clock => objects::clock,
    };
    draw(&mut canvas, identity, view);
    style::finish(canvas, view)
}
