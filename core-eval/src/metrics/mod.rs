//! CLIP-T, CLIP-I and DINO: cosines of features.

mod judges;
mod segmenter;

use anyhow::{Result, ensure};

pub use judges::{JudgeFolders, Judges};

use crate::protocol::Protocol;

/// A feature vector of length 1.
pub type Feature = Vec<f32>;

/// The cosine of two features of length 1.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

/// The scores of one image.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scores {
    /// Image and text by CLIP; absent where the protocol leaves the image out.
    pub clip_t: Option<f64>,
    /// Image and photos by CLIP; absent where the protocol leaves it out.
    pub clip_i: Option<f64>,
    /// The same by DINO.
    pub dino: Option<f64>,
}

/// What both judges see of one picture.
#[derive(Debug, Clone)]
pub struct Look {
    /// By CLIP.
    pub clip: Feature,
    /// By DINO.
    pub dino: Feature,
}

/// What both judges see of some pictures.
#[derive(Debug, Clone)]
pub struct Looks {
    /// By CLIP.
    pub clip: Vec<Feature>,
    /// By DINO.
    pub dino: Vec<Feature>,
}

/// A concept's photos as the judges see them.
#[derive(Debug, Clone)]
pub struct References {
    /// Whole.
    pub whole: Looks,
    /// Their foregrounds, where there are masks.
    pub foreground: Option<Looks>,
}

impl References {
    /// What a protocol compares images with.
    pub fn under(&self, protocol: &Protocol) -> &Looks {
        let foreground = self.foreground.as_ref().filter(|_| protocol.masked);
        foreground.unwrap_or(&self.whole)
    }
}

/// One image as the judges see it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Whole.
    pub whole: Look,
    /// Its foreground, where there is a mask.
    pub foreground: Option<Look>,
    /// Whether there is a mask without foreground.
    pub nothing_found: bool,
    /// Whether all of the picture is black.
    pub blank: bool,
}

/// Where an image stands among the others.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Among the images of its concept, from 0.
    pub index: usize,
    /// Among those of its concept and prompt, from 0.
    pub number: usize,
    /// The kind of its prompt; empty when nobody said.
    pub kind: &'a str,
}

impl Seen {
    /// What a protocol compares with photos.
    pub fn under(&self, protocol: &Protocol) -> &Look {
        let foreground = self.foreground.as_ref().filter(|_| protocol.masked);
        foreground.unwrap_or(&self.whole)
    }

    /// The scores under a protocol; `text` is CLIP's feature of the prompt.
    ///
    /// # Errors
    /// A score that is no number, which a judge with damaged weights gives.
    pub fn scores(
        &self,
        protocol: &Protocol,
        place: Place<'_>,
        text: &[f32],
        photos: Option<&References>,
    ) -> Result<Scores> {
        if !protocol.counts(place.number, self.blank) {
            return Ok(Scores::default());
        }
        let photos = photos.filter(|_| protocol.scores_identity(place.kind));
        let photos = photos.map(|photos| photos.under(protocol));
        let look = self.under(protocol);
        let identity =
            |image: &[f32], photos: &[Feature]| protocol.identity(image, place.index, photos);
        let scores = Scores {
            clip_t: Some(protocol.clip_t(cosine(&self.whole.clip, text))),
            clip_i: photos.map(|photos| identity(&look.clip, &photos.clip)),
            dino: photos.map(|photos| identity(&look.dino, &photos.dino)),
        };
        for (name, value) in [
            ("CLIP-T", scores.clip_t),
            ("CLIP-I", scores.clip_i),
            ("DINO", scores.dino),
        ] {
            ensure!(
                value.is_none_or(f64::is_finite),
                "{name} is no number; the weights of its encoder are damaged, fetch them again"
            );
        }
        Ok(scores)
    }
}

/// The vector scaled to length 1.
pub(crate) fn normalised(values: &[f32]) -> Feature {
    let norm = values
        .iter()
        .map(|v| f64::from(*v).powi(2))
        .sum::<f64>()
        .sqrt()
        .max(1e-12);
    values
        .iter()
        .map(|v| (f64::from(*v) / norm) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_has_cosine_one_with_itself_and_minus_one_with_its_opposite() {
        let a = normalised(&[3.0, 4.0]);
        assert!((cosine(&a, &a) - 1.0).abs() < 1e-7);
        let b = normalised(&[-3.0, -4.0]);
        assert!((cosine(&a, &b) + 1.0).abs() < 1e-7);
    }

    #[test]
    fn a_score_that_is_no_number_is_refused() {
        let seen = Seen {
            whole: Look {
                clip: vec![1.0],
                dino: vec![f32::NAN],
            },
            foreground: None,
            nothing_found: false,
            blank: false,
        };
        let photos = References {
            whole: Looks {
                clip: vec![vec![1.0]],
                dino: vec![vec![1.0]],
            },
            foreground: None,
        };
        let place = Place {
            index: 0,
            number: 0,
            kind: "",
        };
        let protocol = Protocol::named("dreambooth").expect("a protocol");
        let failed = seen.scores(protocol, place, &[1.0], Some(&photos));
        let message = failed.expect_err("a score is NaN").to_string();
        assert!(message.contains("DINO"), "{message}");
        let without = seen.scores(protocol, place, &[1.0], None);
        let without = without.expect("CLIP-T alone");
        assert_eq!((without.clip_t, without.dino), (Some(1.0), None));
    }
}
