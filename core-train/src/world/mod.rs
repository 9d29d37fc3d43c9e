//! The mini world: small scenes of things in places, drawn by code.
//!
//! A scene is a pure function of an [`Identity`] (one thing or one person, with all that no caption
//! names) and a [`View`] (how one image shows it).

mod animals;
mod backgrounds;
mod bird;
mod canvas;
mod caption;
mod concept_table;
mod concepts;
pub mod contact_sheet;
mod counterfactual;
mod face;
mod hair;
mod head;
mod objects;
mod pattern;
mod people;
mod person_concepts;
mod portrait;
mod style;
#[cfg(test)]
mod tests;
mod thing;
mod view;
mod words;

use image::{GrayImage, RgbImage};
use rand::Rng;

pub use caption::{Caption, Claims};
pub use concepts::{ConceptSet, PHOTOS, WorldConcept, photos_digest};
pub use counterfactual::{Counterfactual, visible_difference};
pub use people::{Face, Pose};
pub use person_concepts::{PersonConcept, PersonPhotos};
pub use thing::Thing;
pub use view::View;
pub use words::{
    Accessory, Background, Beard, Category, Color, Expression, Hair, Mark, Pattern, Style,
};

use canvas::Canvas;

/// Width and height of an image, in pixels.
pub const SIDE: u32 = 64;

/// One of this many combinations of hidden and named attributes is reserved for concepts.
const HELD_OUT_ONE_IN: u64 = 12;

/// Whether the combination with this number is reserved for concepts: by SplitMix64, which is the same
/// on every platform and in every version.
fn is_reserved(combination: u64) -> bool {
    let mut x = combination.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)).is_multiple_of(HELD_OUT_ONE_IN)
}

/// Who or what a scene shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Identity {
    /// An animal or an object.
    Thing(Thing),
    /// A person.
    Person(Face),
}

impl From<Thing> for Identity {
    fn from(thing: Thing) -> Self {
        Self::Thing(thing)
    }
}

impl From<Face> for Identity {
    fn from(face: Face) -> Self {
        Self::Person(face)
    }
}

impl Identity {
    /// Draws a thing or a person for pretraining: any but those reserved for concepts.
    pub fn sample_for_training(generator: &mut impl Rng, is_person: bool) -> Self {
        loop {
            let identity = match is_person {
                true => Face::sample(generator).into(),
                false => Thing::sample(generator).into(),
            };
            if !Self::is_held_out(&identity) {
                return identity;
            }
        }
    }

    /// Draws one that is alike at first sight: a thing with the same words, a person with the same skin
    /// and hair.
    pub fn sample_like(generator: &mut impl Rng, other: &Self) -> Self {
        match other {
            Self::Thing(thing) => Thing::sample_like(generator, thing).into(),
            Self::Person(face) => Face::sample_like(generator, face).into(),
        }
    }

    /// The noun.
    pub fn category(&self) -> Category {
        match self {
            Self::Thing(thing) => thing.category,
            Self::Person(_) => Category::Person,
        }
    }

    /// Whether its combination is reserved for concepts and never occurs in pretraining.
    pub fn is_held_out(&self) -> bool {
        match self {
            Self::Thing(thing) => thing.is_held_out(),
            Self::Person(face) => face.is_held_out(),
        }
    }
}

/// The true attributes of a scene, which zero-shot classification has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The noun.
    pub category: Category,
    /// The main colour of the thing, or of the person's clothes.
    pub color: Color,
    /// What the face shows; things have none.
    pub expression: Option<Expression>,
    /// What is worn.
    pub accessory: Option<Accessory>,
    /// The place.
    pub background: Background,
    /// The medium.
    pub style: Style,
}

impl Attributes {
    /// What is true of this thing or person in this view.
    pub fn of(identity: &Identity, view: &View) -> Self {
        let (color, expression) = match identity {
            Identity::Thing(thing) => (thing.color, None),
            Identity::Person(_) => (view.pose.clothes, view.pose.expression()),
        };
        Self {
            category: identity.category(),
            color,
            expression,
            accessory: view.accessory,
            background: view.background,
            style: view.style,
        }
    }
}

/// A rendered image and the mask of its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendering {
    /// [`SIDE`] by [`SIDE`] pixels.
    pub image: RgbImage,
    /// 255 on the thing or person and what it wears, 0 elsewhere.
    pub mask: GrayImage,
}

/// Draws a scene.
pub fn render(identity: &Identity, view: &View) -> Rendering {
    let mut canvas = Canvas::new(view);
    backgrounds::draw(&mut canvas, view);
    match identity {
        Identity::Thing(thing) => draw_thing(&mut canvas, thing, view),
        Identity::Person(face) => portrait::draw(&mut canvas, face, view),
    }
    style::finish(canvas, view)
}

fn draw_thing(canvas: &mut Canvas, thing: &Thing, view: &View) {
    canvas.begin_subject(view);
    let draw = match thing.category {
        Category::Dog => animals::dog,
        Category::Cat => animals::cat,
        Category::Rabbit => animals::rabbit,
        Category::Bird => bird::draw,
        Category::Cup => objects::cup,
        Category::Car => objects::car,
        Category::House => objects::house,
        Category::Clock => objects::clock,
        Category::Person => unreachable!("a person is no thing"),
    };
    draw(canvas, thing, view);
}
