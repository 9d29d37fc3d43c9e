//! People for the identity encoder: groups of four that share skin and hair, and views that differ in
//! one respect.

use core_model::rng::rng;
use rand::RngExt;

use super::scenes::{Scenes, rendered};
use super::taught::Traits;
use crate::world::{Accessory, Background, Face, Identity, Pose, Style, View};

/// Size of the groups of people with the same skin, hair style and colour of hair, so that each is a
/// hard negative of the others.
pub(super) const GROUP: u64 = 4;

/// Two images of each of several people.
#[derive(Debug)]
pub(super) struct Portraits {
    /// The number of each image's person.
    pub(super) numbers: Vec<i64>,
    /// What there is to know about each image's person.
    pub(super) traits: Vec<Traits>,
    /// The first images of all people, then the second ones.
    pub(super) pixels: Vec<f32>,
}

impl Portraits {
    /// A batch of the first `fixed` groups of people, drawn anew for each step.
    pub(super) fn of_fixed(scenes: &Scenes, step: u64, groups: u64, fixed: u64) -> Self {
        let mut generator = rng(0, "identity batch", step);
        let mut chosen: Vec<u64> = Vec::new();
        while (chosen.len() as u64) < groups.min(fixed) {
            let group = generator.random_range(0..fixed);
            if !chosen.contains(&group) {
                chosen.push(group);
            }
        }
        Self::new(scenes, step, chosen.into_iter())
    }

    /// A batch of people that occur in no other batch, and not among the first `fixed` groups.
    pub(super) fn of_others(scenes: &Scenes, step: u64, groups: u64, fixed: u64) -> Self {
        let first = fixed + step * groups;
        Self::new(scenes, step, first..first + groups)
    }

    fn new(scenes: &Scenes, step: u64, groups: impl Iterator<Item = u64>) -> Self {
        let mut generator = rng(1, "identity views", step);
        let (mut numbers, mut traits_of, mut images) =
            (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
        for group in groups {
            for (member, face) in (0..).zip(faces(scenes, group)) {
                numbers.push((group * GROUP + member) as i64);
                traits_of.push(traits(&face));
                let person = face.into();
                for images in &mut images {
                    images.extend(rendered(&person, &View::sample(&mut generator, &person)));
                }
            }
        }
        Self {
            numbers: numbers.repeat(2),
            traits: [traits_of.clone(), traits_of].concat(),
            pixels: images.concat(),
        }
    }
}

/// `count` images of each member of a group, person after person.
pub(super) fn images_of_group(scenes: &Scenes, group: u64, count: u64) -> Vec<f32> {
    let mut generator = rng(2, "identity views", group);
    let people = faces(scenes, group).into_iter().map(Identity::from);
    people
        .flat_map(|person| {
            let views: Vec<View> = (0..count)
                .map(|_| View::sample(&mut generator, &person))
                .collect();
            views
                .into_iter()
                .flat_map(move |view| rendered(&person, &view))
        })
        .collect()
}

/// The members of a group; none is reserved for concepts.
fn faces(scenes: &Scenes, group: u64) -> Vec<Face> {
    let mut generator = scenes.rng(group);
    let mut faces: Vec<Face> = Vec::new();
    while (faces.len() as u64) < GROUP {
        let face = match faces.first() {
            None => Face::sample(&mut generator),
            Some(first) => Face::sample_like(&mut generator, first),
        };
        if !face.is_held_out() {
            faces.push(face);
        }
    }
    faces
}

/// A person whose combination is reserved for concepts, so that it never occurs in training.
pub(super) fn held_out(scenes: &Scenes, number: u64) -> Face {
    let mut generator = scenes.rng(number);
    loop {
        let face = Face::sample(&mut generator);
        if face.is_held_out() {
            return face;
        }
    }
}

/// Whether two people share two of skin, hair style and colour of hair.
pub(super) fn are_alike(a: &Face, b: &Face) -> bool {
    let shared = [
        a.skin == b.skin,
        a.hair == b.hair,
        a.hair_color == b.hair_color,
    ];
    shared.into_iter().filter(|is_shared| *is_shared).count() >= 2
}

/// A kind of view in which people are compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    /// The name of the comparison of a frontal photo with it.
    pub(super) name: &'static str,
    style: Style,
    accessory: Option<Accessory>,
    /// The range of the turn to either side.
    turn: [f32; 2],
}

/// A frontal photo.
pub(super) const FRONT: Shown = Shown {
    name: "front",
    style: Style::Photo,
    accessory: None,
    turn: [0.0, 0.3],
};

/// With what frontal photos are compared.
pub(super) const AGAINST: &[Shown] = &[
    Shown {
        name: "front_front",
        ..FRONT
    },
    Shown {
        name: "front_side",
        turn: [0.6, 1.0],
        ..FRONT
    },
    Shown {
        name: "front_sketch",
        style: Style::Sketch,
        ..FRONT
    },
    Shown {
        name: "front_hat",
        accessory: Some(Accessory::Hat),
        ..FRONT
    },
];

/// The pixels of a person in a view of this kind; two kinds show different places and poses.
pub(super) fn shown(scenes: &Scenes, number: u64, face: &Face, kind: &Shown) -> Vec<f32> {
    let mut generator = scenes.rng(number);
    let mut generator = rng(generator.random(), kind.name, number);
    let place = Background::ALL[generator.random_range(0..Background::ALL.len())];
    let mut view = View::portrait(&mut generator, kind.style, place, kind.accessory);
    let [least, most] = kind.turn;
    while !(least..=most).contains(&view.pose.yaw.abs()) {
        view.pose = Pose::sample(&mut generator);
    }
    rendered(&face.clone().into(), &view)
}

/// The eight traits of a face that have kinds.
pub(super) fn traits(face: &Face) -> Traits {
    let choices = face.kinds().into_iter();
    Traits {
        choices: choices.map(|(kind, count)| (Some(kind), count)).collect(),
        numbers: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenes::Split;
    use super::*;

    fn training() -> Scenes {
        Scenes::new(0, Split::Training, "portraits")
    }

    #[test]
    fn people_with_a_centre_are_drawn_from_the_first_groups_and_others_never_are() {
        let (groups, fixed) = (2, 5);
        for step in 1..20 {
            let batch = Portraits::of_fixed(&training(), step, groups, fixed);
            assert!(batch.numbers.iter().all(|number| *number < 20));
            let batch = Portraits::of_others(&training(), step, groups, fixed);
            assert!(batch.numbers.iter().all(|number| *number >= 20));
            assert_eq!(batch.numbers[..8], batch.numbers[8..]);
            assert_eq!(
                (batch.traits.len(), batch.pixels.len()),
                (16, 16 * 3 * 64 * 64)
            );
        }
    }

    #[test]
    fn the_members_of_a_group_are_alike_and_people_of_the_evaluation_never_occur_in_training() {
        for group in 0..20 {
            let faces = faces(&training(), group);
            for face in &faces {
                assert!(!face.is_held_out());
                assert!(are_alike(face, &faces[0]));
            }
            assert_ne!(faces[0], faces[1]);
            let scenes = Scenes::new(0, Split::HeldOut, "portraits");
            assert!(held_out(&scenes, group).is_held_out());
        }
    }

    #[test]
    fn people_are_alike_when_two_of_skin_hair_style_and_colour_of_hair_agree() {
        let face = held_out(&training(), 0);
        let other_skin = Face {
            skin: (face.skin + 1) % 6,
            ..face.clone()
        };
        assert!(are_alike(&face, &other_skin));
        let other_hair = Face {
            hair_color: (face.hair_color + 1) % 8,
            ..other_skin
        };
        assert!(!are_alike(&face, &other_hair));
    }
}
