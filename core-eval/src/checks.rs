//! What a score alone does not tell: how photos score among themselves, whether images of one
//! prompt differ, which prompt fares worst, and whether a photo was copied.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::metrics::{Feature, Looks, cosine};
use crate::protocol::Protocol;
use crate::report::{METRICS, ScoreRow};
use crate::scoring::Measured;
use crate::statistics::mean;

/// A row of `checks.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRow {
    /// The method, or `photos` for what the photos alone say.
    pub variant: String,
    /// What was measured.
    pub measure: String,
    /// The figure: cosines, unscaled.
    pub value: f64,
    /// The prompt or the image that it is about; empty for means.
    pub place: String,
}

/// What the column `variant` says of figures of the photos.
pub const PHOTOS: &str = "photos";

/// All figures; under a masked protocol they are those of foregrounds:
///
/// * `clip_i_same`, `dino_same`: photos of a concept against each other (Ruiz et al. 2023 call it
///   "real images"), mean over concepts; as good as an image can be expected to be.
/// * `clip_i_other`, `dino_other`: photos of a concept against those of the other concepts; what
///   the wrong thing scores.
/// * `diversity`: 1 minus the mean DINO cosine between two images of one prompt.
/// * `lowest_clip_t`, `lowest_clip_i`, `lowest_dino`: the lowest mean of a prompt, and the prompt.
/// * `nothing_found`: the share of images in which the mask judge found no foreground; they are
///   compared as black pictures. Under masked protocols only.
/// * `closest`: the highest DINO cosine of an image to a photo, and the image: near 1 is a copy.
pub fn checks(measured: &Measured<'_>, protocol: &Protocol, scores: &[ScoreRow]) -> Vec<CheckRow> {
    let photos = measured.references.iter().flatten();
    let mut rows = of_photos(photos.map(|photos| photos.under(protocol)).collect());
    for variant in &measured.experiment.variants {
        let name = variant.name.as_str();
        rows.extend(diversity(measured, protocol, name));
        for metric in METRICS {
            rows.extend(lowest(scores, name, metric));
        }
        rows.extend(nothing_found(measured, protocol, name));
        rows.extend(closest(measured, protocol, name));
    }
    rows
}

fn check(variant: &str, measure: impl Into<String>, value: f64, place: &str) -> CheckRow {
    CheckRow {
        variant: variant.into(),
        measure: measure.into(),
        value,
        place: place.into(),
    }
}

fn of_photos(concepts: Vec<&Looks>) -> Vec<CheckRow> {
    let clip: Vec<&[Feature]> = concepts.iter().map(|c| c.clip.as_slice()).collect();
    let dino: Vec<&[Feature]> = concepts.iter().map(|c| c.dino.as_slice()).collect();
    let mut rows = Vec::new();
    for (metric, concepts) in [("clip_i", clip), ("dino", dino)] {
        let same = concepts.iter().filter_map(|photos| pairwise(photos));
        let same = mean(same).map(|value| check(PHOTOS, format!("{metric}_same"), value, ""));
        let other = concepts.iter().enumerate().filter_map(|(index, photos)| {
            let others = concepts.iter().enumerate();
            let others = others.filter(|(other, _)| *other != index);
            mean(others.filter_map(|(_, others)| between(photos, others)))
        });
        let other = mean(other).map(|value| check(PHOTOS, format!("{metric}_other"), value, ""));
        rows.extend(same.into_iter().chain(other));
    }
    rows
}

/// The mean cosine of two different features; none of fewer than two.
fn pairwise<T: AsRef<[f32]>>(features: &[T]) -> Option<f64> {
    let pairs = (0..features.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    mean(pairs.map(|(i, j)| cosine(features[i].as_ref(), features[j].as_ref())))
}

fn between(ours: &[Feature], theirs: &[Feature]) -> Option<f64> {
    let pairs = ours.iter().flat_map(|a| theirs.iter().map(move |b| (a, b)));
    mean(pairs.map(|(a, b)| cosine(a, b)))
}

fn diversity(measured: &Measured<'_>, protocol: &Protocol, variant: &str) -> Option<CheckRow> {
    let mut prompts: IndexMap<(usize, usize), Vec<&Feature>> = IndexMap::new();
    for image in measured.of_variant(variant) {
        let prompt = (image.cell, image.image.prompt_index);
        let look = image.seen.under(protocol);
        prompts.entry(prompt).or_default().push(&look.dino);
    }
    let similar = mean(prompts.values().filter_map(|images| pairwise(images)))?;
    Some(check(variant, "diversity", 1.0 - similar, ""))
}

fn lowest(scores: &[ScoreRow], variant: &str, metric: &str) -> Option<CheckRow> {
    let mut prompts: IndexMap<&str, Vec<f64>> = IndexMap::new();
    for row in scores.iter().filter(|row| row.variant == variant) {
        if let Some(value) = row.metric(metric) {
            prompts.entry(&row.prompt).or_default().push(value);
        }
    }
    let prompts = prompts.into_iter();
    let means = prompts.filter_map(|(prompt, values)| Some((prompt, mean(values)?)));
    let (prompt, value) = means.min_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(check(variant, format!("lowest_{metric}"), value, prompt))
}

fn nothing_found(measured: &Measured<'_>, protocol: &Protocol, variant: &str) -> Option<CheckRow> {
    let images = measured.of_variant(variant).filter(|_| protocol.masked);
    let share = mean(images.map(|image| f64::from(u8::from(image.seen.nothing_found))))?;
    Some(check(variant, "nothing_found", share, ""))
}

fn closest(measured: &Measured<'_>, protocol: &Protocol, variant: &str) -> Option<CheckRow> {
    let to_photos = measured.of_variant(variant).filter_map(|image| {
        let photos = measured.references[measured.cells[image.cell].concept].as_ref()?;
        let photos = photos.under(protocol).dino.iter();
        let cosines = photos.map(|photo| cosine(&image.seen.under(protocol).dino, photo));
        Some((image, cosines.max_by(f64::total_cmp)?))
    });
    let (image, value) = to_photos.max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(check(variant, "closest", value, &image.image.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_are_compared_among_themselves_and_with_those_of_other_concepts() {
        let concept = |features: [[f32; 2]; 2]| Looks {
            clip: features.map(Vec::from).to_vec(),
            dino: features.map(Vec::from).to_vec(),
        };
        let (dog, cup) = (
            concept([[1.0, 0.0], [0.8, 0.6]]),
            concept([[0.0, 1.0], [0.0, 1.0]]),
        );
        let rows = of_photos(vec![&dog, &cup]);
        let value = |measure: &str| {
            let row = rows.iter().find(|row| row.measure == measure);
            row.expect("a row").value
        };
        assert!((value("dino_same") - (0.8 + 1.0) / 2.0).abs() < 1e-6);
        assert!((value("dino_other") - 0.3).abs() < 1e-6);
        assert_eq!(of_photos(vec![&dog]).len(), 2, "nothing to compare with");
    }

    #[test]
    fn the_worst_prompt_is_the_one_with_the_lowest_mean() {
        let row = |prompt: &str, dino: f64| ScoreRow {
            variant: "v".into(),
            concept: "dog".into(),
            seed: 0,
            group: String::new(),
            kind: String::new(),
            prompt: prompt.into(),
            image: String::new(),
            clip_t: None,
            clip_i: None,
            dino: Some(dino),
        };
        let rows = [row("a", 0.1), row("a", 0.9), row("b", 0.4), row("b", 0.4)];
        let worst = lowest(&rows, "v", "dino").expect("a row");
        assert_eq!((worst.place.as_str(), worst.value), ("b", 0.4));
        assert_eq!(lowest(&rows, "v", "clip_t"), None);
    }
}
