//! The scores of an image, and of all images of an experiment.

mod images;

use anyhow::{Context, Result, ensure};

use crate::gallery::{ImageFeatures, TextFeatures};
use crate::metrics::{Compared, Feature, Metric, Scores, direction};
use crate::protocol::{Protocol, is_unrelated};
pub use images::{PhotosBeside, ScoredImage, ScoredImages};

/// The position of an image among the others.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its index among the images of its concept.
    pub index: usize,
    /// Its index among the images of its concept and prompt.
    pub number: usize,
    /// The kind of its prompt; empty when it has none.
    pub kind: &'a str,
}

/// What an image is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Others<'a> {
    /// The features of its text.
    pub text: &'a TextFeatures,
    /// The photos of its concept. Without them metrics that compare with photos give no score.
    pub photos: Option<&'a [ImageFeatures]>,
    /// The base model's image. Without it metrics that compare with it give no score.
    pub base: Option<BaseImage<'a>>,
}

/// The image that the base model generates for the same prompt from the same noise.
#[derive(Debug, Clone, Copy)]
pub struct BaseImage<'a> {
    /// Its features.
    pub features: &'a ImageFeatures,
    /// The features of its prompt, which the direction of an edit begins with.
    pub text: Option<&'a TextFeatures>,
    /// Whether the prompt leaves the concept out, so that learning it should have changed nothing.
    pub unrelated: bool,
}

/// The scores of an image by some metrics under a protocol. An image of a prompt of the kind `unrelated`
/// says how far the model drifted and nothing about the concept, so it has no other score.
///
/// # Errors
/// A score that is NaN, because the weights of the encoder are damaged; features that were not computed.
pub fn scores(
    protocol: &Protocol,
    metrics: &[Metric],
    image: &ImageFeatures,
    place: Place<'_>,
    others: Others<'_>,
) -> Result<Scores> {
    let mut scores = Scores::default();
    if !protocol.counts(place.number, image.is_black) {
        return Ok(scores);
    }
    let unrelated = is_unrelated(place.kind);
    for metric in metrics {
        if unrelated && metric.compared_with() != Compared::BaseImage {
            continue;
        }
        let comparison = Comparison {
            protocol,
            metric: *metric,
            image,
        };
        scores[*metric] = comparison.score(place, others)?;
        ensure!(
            scores[*metric].is_none_or(f64::is_finite),
            "{} is NaN; the weights of its encoder are damaged, fetch them again",
            metric.title()
        );
    }
    Ok(scores)
}

/// Whether an image has no score of metrics that read faces for the one reason that no face was found in it.
pub fn lacks_face(protocol: &Protocol, image: &ImageFeatures, place: Place<'_>) -> bool {
    let is_compared = protocol.counts(place.number, image.is_black)
        && protocol.scores_identity(place.kind)
        && !is_unrelated(place.kind);
    image.no_face && is_compared
}

/// One metric of one image.
struct Comparison<'a> {
    protocol: &'a Protocol,
    metric: Metric,
    image: &'a ImageFeatures,
}

impl Comparison<'_> {
    fn score(&self, place: Place<'_>, others: Others<'_>) -> Result<Option<f64>> {
        let protocol = self.protocol;
        Ok(match self.metric.compared_with() {
            Compared::Text => {
                Some(protocol.text_score(self.similarity(self.of_text(others.text)?)?))
            }
            Compared::Photos => match others.photos {
                Some(photos) if protocol.scores_identity(place.kind) && !self.lacks_face() => {
                    let of_photo = |photo| self.similarity(self.of_image(photo)?);
                    let similarities = photos.iter().map(of_photo).collect::<Result<Vec<_>>>()?;
                    Some(protocol.photo_score(&similarities, place.index))
                }
                _ => None,
            },
            Compared::BaseImage => match others.base {
                Some(base) if base.unrelated => {
                    Some(self.similarity(self.of_image(base.features)?)?)
                }
                _ => None,
            },
            Compared::Direction => self.direction(others)?,
        })
    }

    fn lacks_face(&self) -> bool {
        self.image.no_face && self.metric.reads_faces()
    }

    /// The similarity of the steps from base image to image and from base prompt to text; none where
    /// one of them is no step.
    fn direction(&self, others: Others<'_>) -> Result<Option<f64>> {
        let Some((base, text)) = others.base.and_then(|base| Some((base, base.text?))) else {
            return Ok(None);
        };
        let of_image = direction(self.of_image(base.features)?, self.of_image(self.image)?);
        let of_text = direction(self.of_text(text)?, self.of_text(others.text)?);
        let steps = of_image.zip(of_text);
        let definition = self.metric.definition();
        Ok(steps.map(|(image, text)| definition.similarity(&image, &text)))
    }

    fn similarity(&self, other: &[f32]) -> Result<f64> {
        let feature = self.of_image(self.image)?;
        Ok(self.metric.definition().similarity(feature, other))
    }

    fn of_image<'a>(&self, image: &'a ImageFeatures) -> Result<&'a Feature> {
        let feature = image.of(self.metric, self.protocol);
        feature.with_context(|| self.absent())
    }

    fn of_text<'a>(&self, text: &'a TextFeatures) -> Result<&'a Feature> {
        let feature = text.get(self.metric.definition().encoder().key);
        feature.with_context(|| self.absent())
    }

    fn absent(&self) -> String {
        format!("{}: its encoder has not read this", self.metric.title())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_is_nan_is_refused_by_the_name_of_its_metric() {
        let protocol = Protocol::named("dreambooth").expect("a protocol");
        let [clip_t, clip_i, dino] = ["clip_t", "clip_i", "dino"]
            .map(|column| Metric::named(column).expect("a metric of that column"));
        let features = |of_clip: f32, of_dino: f32| {
            ImageFeatures::default()
                .with(clip_t.reading(false), vec![of_clip])
                .with(dino.reading(false), vec![of_dino])
        };
        let image = features(1.0, f32::NAN);
        let photos = [features(1.0, 1.0)];
        let text = TextFeatures::from([("clip", vec![1.0])]);
        let place = Place {
            index: 0,
            number: 0,
            kind: "",
        };
        let metrics = [clip_t, clip_i, dino];
        let others = |photos| Others {
            text: &text,
            photos,
            base: None,
        };
        let failed = scores(protocol, &metrics, &image, place, others(Some(&photos[..])));
        let message = failed.expect_err("a score is NaN").to_string();
        assert!(message.starts_with("DINO is NaN"), "{message}");
        let without = scores(protocol, &metrics, &image, place, others(None));
        let without = without.expect("CLIP-T alone");
        assert_eq!((without[clip_t], without[dino]), (Some(1.0), None));
    }

    #[test]
    fn drift_and_direction_are_measured_from_the_base_image() {
        let protocol = Protocol::named("dreambench-plus").expect("a protocol");
        let [drift, step] = ["drift", "clip_direction"]
            .map(|column| Metric::named(column).expect("a metric of that column"));
        let features = |of_dino: [f32; 2], of_clip: [f32; 2]| {
            ImageFeatures::default()
                .with(drift.reading(false), of_dino.to_vec())
                .with(step.reading(false), of_clip.to_vec())
        };
        let image = features([1.0, 0.0], [0.0, 1.0]);
        let base = features([0.6, 0.8], [1.0, 0.0]);
        let text = |feature: [f32; 2]| TextFeatures::from([("clip", feature.to_vec())]);
        let (edited, plain) = (text([0.0, 1.0]), text([0.0, -1.0]));
        let place = Place {
            index: 0,
            number: 0,
            kind: "",
        };
        let score = |base_text, unrelated| {
            let others = Others {
                text: &edited,
                photos: None,
                base: Some(BaseImage {
                    features: &base,
                    text: base_text,
                    unrelated,
                }),
            };
            scores(protocol, &[drift, step], &image, place, others).expect("scores")
        };
        let both = score(Some(&plain), true);
        // One minus the cosine, which no protocol scales.
        assert!((both[drift].expect("a drift") - 0.4).abs() < 1e-7);
        // From (1, 0) to (0, 1), and upwards: half a right angle.
        let half = std::f64::consts::FRAC_1_SQRT_2;
        assert!((both[step].expect("a direction") - half).abs() < 1e-7);
        let neither = score(Some(&edited), false);
        assert_eq!((neither[drift], neither[step]), (None, None));
        assert_eq!(score(None, true)[step], None);
        let unrelated = Place {
            kind: "unrelated",
            ..place
        };
        let others = Others {
            text: &edited,
            photos: None,
            base: Some(BaseImage {
                features: &base,
                text: Some(&plain),
                unrelated: true,
            }),
        };
        let alone = scores(protocol, &[drift, step], &image, unrelated, others).expect("scores");
        assert!(alone[drift].is_some() && alone[step].is_none());
    }
}
