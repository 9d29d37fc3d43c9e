//! How one image shows a thing or a person.

use rand::{Rng, RngExt};

use super::{Accessory, Background, Identity, Pose, Style};

/// How one image shows a thing or a person.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The medium.
    pub style: Style,
    /// The place.
    pub background: Background,
    /// What an animal or a person wears.
    pub accessory: Option<Accessory>,
    /// Whether the subject is mirrored; a thing then faces left. A person turns by [`pose`](Self::pose).
    pub mirrored: bool,
    /// Lean to one side, in degrees.
    pub lean: f32,
    /// Phase of an animal's step or the wing beat, 0 to 1.
    pub gait: f32,
    /// Shift of the centre, in hundredths of the image.
    pub shift: [f32; 2],
    /// Size; a thing of size 1 fills about two thirds of the image.
    pub size: f32,
    /// Brightness and warmth of the light, around 1 and 0.
    pub light: [f32; 2],
    /// Seed of the positions of dunes, stars, windows and brush strokes.
    pub seed: u64,
    /// Turn, expression and clothes of a person; things have none.
    pub pose: Pose,
}

impl View {
    /// Draws any view of a thing or a person.
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
            .filter(|_| identity.category().is_animate());
        match identity {
            Identity::Thing(_) => Self::arranged(generator, style, background, accessory),
            Identity::Person(_) => Self::portrait(generator, style, background, accessory),
        }
    }

    /// A view of a person with the given style, background and accessory: the head fills most of the
    /// image. Everything else is drawn at random.
    pub fn portrait(
        generator: &mut impl Rng,
        style: Style,
        background: Background,
        accessory: Option<Accessory>,
    ) -> Self {
        Self {
            mirrored: false,
            shift: [
                generator.random_range(-4.0..4.0),
                generator.random_range(4.0..9.0),
            ],
            size: generator.random_range(1.40..1.65),
            pose: Pose::sample(generator),
            ..Self::arranged(generator, style, background, accessory)
        }
    }

    /// A view of a thing with the given style, background and accessory; everything else is drawn at random.
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
            pose: Pose::default(),
        }
    }
}
