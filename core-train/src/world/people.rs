//! People: faces, and how a view shows one.

use rand::{Rng, RngExt};

use super::{Beard, Color, Expression, Hair, Mark, is_reserved};

/// The colours of skin.
pub(super) const SKINS: [[u8; 3]; 6] = [
    [250, 220, 195],
    [238, 192, 155],
    [214, 160, 115],
    [178, 120, 78],
    [130, 84, 56],
    [86, 54, 38],
];

/// The colours of hair, brows and beards.
pub(super) const HAIRS: [[u8; 3]; 8] = [
    [36, 28, 26],
    [84, 52, 30],
    [150, 96, 48],
    [224, 184, 92],
    [182, 70, 34],
    [150, 150, 156],
    [238, 236, 230],
    [70, 92, 158],
];

/// The colours of the iris.
pub(super) const IRISES: [[u8; 3]; 5] = [
    [80, 48, 26],
    [60, 116, 186],
    [64, 138, 80],
    [124, 130, 138],
    [168, 112, 40],
];

/// The colours of lips.
pub(super) const LIPS: [[u8; 3]; 4] =
    [[190, 90, 90], [164, 48, 66], [212, 134, 120], [118, 60, 52]];

/// Number of shapes of noses: narrow, long and wide.
pub(super) const NOSES: u8 = 3;

/// Number of cuts of clothes: round neck, collar, rolled neck.
pub(super) const CUTS: u8 = 3;

/// From this size of [`Pose::smile`] on a face smiles or frowns.
const EXPRESSIVE: f32 = 0.35;

/// One person: everything that makes the face, of which captions name nothing. Numbers without unit
/// are factors around 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Face {
    /// One of six colours of skin.
    pub skin: u8,
    /// The hair style.
    pub hair: Hair,
    /// One of eight colours of hair.
    pub hair_color: u8,
    /// Width of the head.
    pub width: f32,
    /// Height of the head.
    pub height: f32,
    /// Width of the jaw; 1 is as wide as the cheeks.
    pub jaw: f32,
    /// One of five colours of the iris.
    pub iris: u8,
    /// Size of the eyes.
    pub eyes: f32,
    /// Distance of the eyes.
    pub gap: f32,
    /// Weight of the brows.
    pub brows: f32,
    /// Tilt of the brows; positive: the outer ends lie higher.
    pub brow_tilt: f32,
    /// One of three shapes of noses.
    pub nose: u8,
    /// Length of the nose.
    pub nose_length: f32,
    /// Width of the mouth.
    pub mouth: f32,
    /// One of four colours of lips.
    pub lips: u8,
    /// Size of the ears.
    pub ears: f32,
    /// The beard.
    pub beard: Beard,
    /// What else the skin shows.
    pub mark: Mark,
    /// Where a mole or a scar is: across and down, in half widths and half heights of the face.
    pub mark_at: [f32; 2],
}

impl Face {
    /// Draws any person.
    pub fn sample(generator: &mut impl Rng) -> Self {
        let skin = generator.random_range(0..SKINS.len() as u8);
        let hair = Hair::ALL[generator.random_range(0..Hair::ALL.len())];
        let hair_color = generator.random_range(0..HAIRS.len() as u8);
        Self::sample_of(generator, skin, hair, hair_color)
    }

    /// Draws a person with this skin, hair style and colour of hair.
    pub fn sample_of(generator: &mut impl Rng, skin: u8, hair: Hair, hair_color: u8) -> Self {
        Self {
            skin,
            hair,
            hair_color,
            width: generator.random_range(0.86..1.14),
            height: generator.random_range(0.9..1.12),
            jaw: generator.random_range(0.55..1.0),
            iris: generator.random_range(0..IRISES.len() as u8),
            eyes: generator.random_range(0.95..1.4),
            gap: generator.random_range(0.85..1.2),
            brows: generator.random_range(0.5..1.5),
            brow_tilt: generator.random_range(-0.25..0.25),
            nose: generator.random_range(0..NOSES),
            nose_length: generator.random_range(0.8..1.25),
            mouth: generator.random_range(0.75..1.25),
            lips: generator.random_range(0..LIPS.len() as u8),
            ears: generator.random_range(0.7..1.3),
            // Without a beard twice as often as with each kind.
            beard: Beard::ALL[generator.random_range(0..=Beard::ALL.len()) % Beard::ALL.len()],
            mark: Mark::ALL[generator.random_range(0..Mark::ALL.len())],
            mark_at: [
                generator.random_range(-0.6..0.6),
                generator.random_range(0.05..0.5),
            ],
        }
    }

    /// The eight traits that have kinds: skin, hair style, colour of hair, iris, nose, lips, beard and
    /// mark, each with the number of its kinds.
    pub fn kinds(&self) -> [(usize, usize); 8] {
        [
            (self.skin.into(), SKINS.len()),
            (self.hair.index(), Hair::ALL.len()),
            (self.hair_color.into(), HAIRS.len()),
            (self.iris.into(), IRISES.len()),
            (self.nose.into(), NOSES.into()),
            (self.lips.into(), LIPS.len()),
            (self.beard.index(), Beard::ALL.len()),
            (self.mark.index(), Mark::ALL.len()),
        ]
    }

    /// Draws a person with the skin, the hair style and the colour of hair of another.
    pub fn sample_like(generator: &mut impl Rng, other: &Self) -> Self {
        Self::sample_of(generator, other.skin, other.hair, other.hair_color)
    }

    /// Whether its (skin, hair, colour of hair, iris, beard, nose, mark) is reserved for concepts and
    /// never occurs in pretraining.
    pub fn is_held_out(&self) -> bool {
        let digits = [
            (usize::from(self.skin), SKINS.len()),
            (self.hair.index(), Hair::ALL.len()),
            (usize::from(self.hair_color), HAIRS.len()),
            (usize::from(self.iris), IRISES.len()),
            (self.beard.index(), Beard::ALL.len()),
            (usize::from(self.nose), usize::from(NOSES)),
            (self.mark.index(), Mark::ALL.len()),
        ];
        is_reserved(digits.into_iter().fold(0, |number, (digit, base)| {
            number * base as u64 + digit as u64
        }))
    }
}

/// How a view shows a person. Numbers without unit lie in -1..1.
#[derive(Debug, Clone, PartialEq)]
pub struct Pose {
    /// Turn of the head to the right of the image, in units of 80 degrees.
    pub yaw: f32,
    /// Nod; positive: down.
    pub pitch: f32,
    /// From frowning to smiling.
    pub smile: f32,
    /// How far the mouth is open; negative: closed.
    pub open: f32,
    /// How far the brows are lifted.
    pub lift: f32,
    /// Where the light comes from: left to right.
    pub light_from: f32,
    /// The colour of the clothes.
    pub clothes: Color,
    /// One of three cuts of clothes.
    pub cut: u8,
}

impl Default for Pose {
    /// Seen from the front, with a calm face.
    fn default() -> Self {
        Self {
            yaw: 0.0,
            pitch: 0.0,
            smile: 0.0,
            open: -1.0,
            lift: 0.0,
            light_from: 0.0,
            clothes: Color::Blue,
            cut: 0,
        }
    }
}

impl Pose {
    /// Draws any pose: most faces turn a little, some are seen from the side; a third smiles, a third
    /// frowns.
    pub fn sample(generator: &mut impl Rng) -> Self {
        let mut even = |low: f32, high: f32| generator.random_range(low..high);
        // The sum of three draws of variance 1/3 is nearly normal, with variance 1.
        let normal = even(-1.0, 1.0) + even(-1.0, 1.0) + even(-1.0, 1.0);
        let smile = [even(-1.0, -0.5), even(-0.2, 0.2), even(0.5, 1.0)];
        Self {
            yaw: (0.45 * normal).clamp(-1.0, 1.0),
            pitch: even(-1.0, 1.0),
            open: even(-0.9, 1.0),
            lift: even(-1.0, 1.0),
            light_from: even(-1.0, 1.0),
            smile: smile[generator.random_range(0..smile.len())],
            clothes: Color::ALL[generator.random_range(0..Color::ALL.len())],
            cut: generator.random_range(0..CUTS),
        }
    }

    /// The word for the face that one sees, if there is one.
    pub fn expression(&self) -> Option<Expression> {
        match self.smile {
            smile if smile >= EXPRESSIVE => Some(Expression::Smiling),
            smile if smile <= -EXPRESSIVE => Some(Expression::Frowning),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use core_model::rng::rng;

    use super::super::Identity;
    use super::*;

    fn faces(count: u64) -> impl Iterator<Item = Face> {
        (0..count).map(|index| Face::sample(&mut rng(0, "face", index)))
    }

    #[test]
    fn training_never_meets_a_person_kept_for_concepts() {
        let mut generator = rng(0, "people", 0);
        for _ in 0..3000 {
            let person = Identity::sample_for_training(&mut generator, true);
            assert_eq!(person.category(), super::super::Category::Person);
            assert!(!person.is_held_out());
        }
        // One in twelve; three standard deviations of 6000 draws are 64.
        let kept = faces(6000).filter(Face::is_held_out).count();
        assert!((436..=564).contains(&kept), "{kept}");
    }

    #[test]
    fn numbers_between_whole_ones_and_lips_do_not_decide_who_is_kept() {
        for face in faces(300) {
            let other = Face {
                width: 1.0,
                height: 1.0,
                jaw: 1.0,
                eyes: 1.0,
                gap: 1.0,
                brows: 1.0,
                brow_tilt: 0.0,
                nose_length: 1.0,
                mouth: 1.0,
                lips: 0,
                ears: 1.0,
                mark_at: [0.0; 2],
                ..face.clone()
            };
            assert_eq!(face.is_held_out(), other.is_held_out());
        }
    }

    #[test]
    fn every_value_of_every_attribute_occurs() {
        let faces: Vec<Face> = faces(400).collect();
        let count = |is: &dyn Fn(&Face) -> bool| faces.iter().filter(|face| is(face)).count();
        for index in 0..SKINS.len() as u8 {
            assert!(count(&|face| face.skin == index) > 0);
        }
        for hair in Hair::ALL {
            assert!(count(&|face| face.hair == *hair) > 0);
        }
        for mark in Mark::ALL {
            assert!(count(&|face| face.mark == *mark) > 0);
        }
        // Without a beard in two of five; three standard deviations of 400 draws are 29.
        let shaved = count(&|face| face.beard == Beard::None);
        assert!((131..=189).contains(&shaved), "{shaved}");
        for beard in &Beard::ALL[1..] {
            assert!((56..=104).contains(&count(&|face| face.beard == *beard)));
        }
    }

    #[test]
    fn people_alike_at_first_sight_share_skin_and_hair_alone() {
        let mut generator = rng(0, "alike", 0);
        let first = Face::sample(&mut generator);
        let other = Face::sample_like(&mut generator, &first);
        assert_eq!(
            (first.skin, first.hair, first.hair_color),
            (other.skin, other.hair, other.hair_color)
        );
        assert_ne!(first.mark_at, other.mark_at);
    }

    #[test]
    fn a_third_smiles_a_third_frowns_and_side_views_occur_on_both_sides() {
        let poses: Vec<Pose> = (0..3000)
            .map(|index| Pose::sample(&mut rng(0, "pose", index)))
            .collect();
        let share = |is: &dyn Fn(&Pose) -> bool| {
            poses.iter().filter(|pose| is(pose)).count() as f64 / poses.len() as f64
        };
        for expression in [None, Some(Expression::Smiling), Some(Expression::Frowning)] {
            let shown = share(&|pose| pose.expression() == expression);
            assert!((shown - 1.0 / 3.0).abs() < 0.03, "{expression:?} {shown}");
        }
        // A normal distribution of deviation .45 has 9.1 % beyond .6 on each side.
        for side in [-1.0, 1.0] {
            let seen = share(&|pose| side * pose.yaw > 0.6);
            assert!((seen - 0.091).abs() < 0.02, "{seen}");
        }
        assert!(poses.iter().all(|pose| pose.yaw.abs() <= 1.0));
    }
}
