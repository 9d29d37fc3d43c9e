//! CLIP-T, CLIP-I and DINO: cosines of features.

mod judges;

pub use judges::Judges;

/// A feature vector of length 1.
pub type Feature = Vec<f32>;

/// The cosine of two features of length 1.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

/// CLIP-I and DINO: the mean cosine of an image to all photos.
pub fn mean_cosine(image: &[f32], photos: &[Feature]) -> f64 {
    photos.iter().map(|photo| cosine(image, photo)).sum::<f64>() / photos.len() as f64
}

/// The scores of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Cosine of image and text.
    pub clip_t: f64,
    /// Mean cosine to the photos by CLIP; absent where the protocol leaves it out.
    pub clip_i: Option<f64>,
    /// The same by DINO.
    pub dino: Option<f64>,
}

/// The features of a concept's photos.
#[derive(Debug, Clone)]
pub struct References {
    pub(crate) clip: Vec<Feature>,
    pub(crate) dino: Vec<Feature>,
}

impl References {
    /// CLIP-I of an image with this feature.
    pub fn clip_i(&self, image: &[f32]) -> f64 {
        mean_cosine(image, &self.clip)
    }

    /// DINO of an image with this feature.
    pub fn dino(&self, image: &[f32]) -> f64 {
        mean_cosine(image, &self.dino)
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
    fn the_score_of_an_image_is_the_mean_over_all_photos() {
        let photos = [vec![1.0, 0.0], vec![0.0, 1.0]];
        assert!((mean_cosine(&[1.0, 0.0], &photos) - 0.5).abs() < 1e-12);
    }
}
