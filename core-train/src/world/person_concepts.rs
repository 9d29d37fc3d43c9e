//! The people in the shipped concept folders. None of their combinations of hidden attributes occurs
//! in pretraining.

use core_model::rng::rng;
use image::RgbImage;
use rand::RngExt;

use super::concepts::{concept_toml, places};
use super::{Beard, Category, Face, Hair, Rendering, Style, View, render};

/// Turns of the photos to learn from: two side views, then a frontal one and two half turned.
const PHOTO_TURNS: [[f32; 2]; 5] = [
    [0.75, 1.0],
    [-1.0, -0.75],
    [-0.2, 0.2],
    [0.3, 0.55],
    [-0.55, -0.3],
];

/// Turns of the photos that scores compare with: frontal and half turned.
const REFERENCE_TURNS: [[f32; 2]; 6] = [
    [-0.15, 0.15],
    [-0.15, 0.15],
    [-0.15, 0.15],
    [0.35, 0.6],
    [-0.6, -0.35],
    [0.35, 0.6],
];

/// Number of photos in the folder with side views alone.
const SIDE_VIEWS: usize = 2;

/// Number of different places in each set of photos; the first is plain.
const PLACES: usize = 4;

/// One person to be learned from photos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PersonConcept {
    /// The name of the folder with two side views.
    pub name: &'static str,
    /// Whether settings are chosen on it, so that no score of it is reported.
    pub for_development: bool,
    /// The hair style.
    pub hair: Hair,
    /// The beard.
    pub beard: Beard,
    /// The colours of skin and hair, as in [`Face::skin`] and [`Face::hair_color`].
    pub colors: [u8; 2],
}

/// Photos to learn a person from, in a folder of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonPhotos {
    /// Its path inside the folder of all people.
    pub path: String,
    /// The photos.
    pub photos: Vec<RgbImage>,
    /// The text of `concept.toml`, which lies beside them.
    pub toml: String,
}

const fn evaluated(name: &'static str, hair: Hair, beard: Beard, colors: [u8; 2]) -> PersonConcept {
    PersonConcept {
        name,
        for_development: false,
        hair,
        beard,
        colors,
    }
}

const fn development(
    name: &'static str,
    hair: Hair,
    beard: Beard,
    colors: [u8; 2],
) -> PersonConcept {
    PersonConcept {
        for_development: true,
        ..evaluated(name, hair, beard, colors)
    }
}

impl PersonConcept {
    /// Every shipped person: four to evaluate, two for development.
    pub const ALL: [Self; 6] = [
        evaluated("person-a", Hair::Curled, Beard::None, [5, 2]),
        evaluated("person-b", Hair::Long, Beard::None, [1, 4]),
        evaluated("person-c", Hair::Bun, Beard::Moustache, [3, 7]),
        evaluated("person-d", Hair::Parted, Beard::Full, [2, 0]),
        development("person-e", Hair::Bob, Beard::None, [4, 3]),
        development("person-f", Hair::Cropped, Beard::Goatee, [0, 5]),
    ];

    /// The person: what the table does not say is drawn once.
    pub fn face(&self) -> Face {
        let mut generator = rng(0, &format!("concept {}", self.name), 0);
        loop {
            let face = Face {
                hair: self.hair,
                beard: self.beard,
                skin: self.colors[0],
                hair_color: self.colors[1],
                ..Face::sample(&mut generator)
            };
            if face.is_held_out() {
                return face;
            }
        }
    }

    /// The views to learn from: two from the side, then three others.
    pub fn views(&self) -> Vec<View> {
        views(&format!("photos of {}", self.name), &PHOTO_TURNS)
    }

    /// The folders to learn from: the two side views and, of an evaluated person, all five views.
    pub fn folders(&self) -> Vec<PersonPhotos> {
        let drawn = self.drawn(&self.views());
        let photos: Vec<RgbImage> = drawn.into_iter().map(|photo| photo.image).collect();
        let folder = |path: String, name: &str, photos: &[RgbImage]| {
            let up = "../".repeat(path.split('/').count());
            let references = format!("{up}{}", self.references_path());
            PersonPhotos {
                path,
                toml: concept_toml(name, Category::Person, photos, Some(&references)),
                photos: photos.to_vec(),
            }
        };
        let (name, side_views) = (self.name, &photos[..SIDE_VIEWS]);
        if self.for_development {
            return vec![folder(format!("development/{name}"), name, side_views)];
        }
        let five = format!("{name}-five");
        vec![
            folder(name.to_string(), name, side_views),
            folder(five.clone(), &five, &photos),
        ]
    }

    /// The folder of the photos that scores compare with, inside the folder of all people.
    pub fn references_path(&self) -> String {
        format!("references/{}", self.name)
    }

    /// The photos that scores compare with, of which none is learned from.
    pub fn references(&self) -> Vec<Rendering> {
        let purpose = format!("references of {}", self.name);
        self.drawn(&views(&purpose, &REFERENCE_TURNS))
    }

    fn drawn(&self, views: &[View]) -> Vec<Rendering> {
        let identity = self.face().into();
        views.iter().map(|view| render(&identity, view)).collect()
    }
}

/// Photos with turns drawn from these ranges, in changing places, with different clothes, light and
/// expressions, and without accessories.
fn views(purpose: &str, turns: &[[f32; 2]]) -> Vec<View> {
    let mut generator = rng(0, purpose, 0);
    let places = places(&mut generator, 1, PLACES);
    let views = turns.iter().zip(places.iter().cycle());
    views
        .map(|([from, to], place)| {
            let mut view = View::portrait(&mut generator, Style::Photo, *place, None);
            view.pose.yaw = generator.random_range(*from..*to);
            view
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn people_are_combinations_that_training_never_meets_and_differ_in_hair_and_colours() {
        let faces = PersonConcept::ALL.map(|concept| concept.face());
        assert!(faces.iter().all(Face::is_held_out));
        let hair: HashSet<_> = faces.iter().map(|face| face.hair).collect();
        let skin: HashSet<_> = faces.iter().map(|face| face.skin).collect();
        let color: HashSet<_> = faces.iter().map(|face| face.hair_color).collect();
        assert_eq!([hair.len(), skin.len(), color.len()], [6; 3]);
    }

    #[test]
    fn the_two_photos_show_one_side_each_and_three_others_follow() {
        for concept in PersonConcept::ALL {
            let views = concept.views();
            let yaws: Vec<f32> = views.iter().map(|view| view.pose.yaw).collect();
            assert_eq!(yaws.len(), 5);
            assert!((0.75..=1.0).contains(&yaws[0]) && (0.75..=1.0).contains(&-yaws[1]));
            assert!(yaws[2..].iter().all(|yaw| yaw.abs() < 0.6), "{yaws:?}");
            for view in &views {
                assert_eq!((view.style, view.accessory), (Style::Photo, None));
            }
            let places: HashSet<_> = views.iter().map(|view| view.background).collect();
            assert_eq!(places.len(), PLACES);
        }
    }

    #[test]
    fn both_folders_of_a_person_share_the_side_views_and_references_are_none_of_the_photos() {
        let folders: Vec<_> = PersonConcept::ALL
            .iter()
            .map(PersonConcept::folders)
            .collect();
        assert_eq!(folders.concat().len(), 4 * 2 + 2);
        for (concept, folders) in PersonConcept::ALL.iter().zip(&folders) {
            let references = concept.references();
            assert_eq!(references.len(), 6);
            for folder in folders {
                assert_eq!(folder.photos[..2], folders[0].photos[..]);
                let learned = |photo: &Rendering| folder.photos.contains(&photo.image);
                assert!(!references.iter().any(learned));
            }
        }
    }
}
