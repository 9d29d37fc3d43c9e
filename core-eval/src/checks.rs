//! Checks beside the scores: how photos score against each other, how much images of one prompt differ,
//! which prompt scores lowest, and whether a photo was copied.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::gallery::ImageFeatures;
use crate::metrics::{Feature, Metric, Scores};
use crate::protocol::{Averaging, Protocol};
use crate::report::ScoreTable;
use crate::scoring::{PhotosBeside, ScoredImages, lacks_face};
use crate::statistics::mean;

/// A row of `checks.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRow {
    /// The variant, or `photos` for figures of the photos alone.
    pub variant: String,
    /// What was measured.
    pub measure: String,
    /// The value; similarities are not scaled by the protocol.
    pub value: f64,
    /// The prompt, the image or the files that it is about; empty for means.
    pub place: String,
}

/// The value of the column `variant` in rows about the photos alone.
pub const PHOTOS: &str = "photos";

/// The measure that counts images without a face.
pub const NO_FACE: &str = "no_face";

/// All checks. Under a masked protocol they are computed on foregrounds. `M` stands for the column of a
/// metric. The instance metric is the first that distinguishes one thing from another of its kind
/// ([`Metric::of_instances`]), which is DINO:
///
/// * `M_same`: photos of a concept against each other (Ruiz et al. 2023 call it "real images"),
///   mean over concepts. No image can be expected to score higher.
/// * `M_other`: photos of a concept against those of the other concepts, which is the score of the wrong
///   thing.
/// * `M_learned`: photos that are learned from against the photos that images are compared with, where the
///   two are not the same. How much the photos that are learned from tell.
/// * `M_decoded`: photos after the model's autoencoder against the other photos, where they are not learned
///   from. No image of the model can be expected to score higher.
/// * `diversity`: 1 minus the mean similarity of two images of one prompt, by the instance metric.
/// * `lowest_M`: the lowest mean score of a prompt, and the prompt.
/// * `nothing_found`: the share of images in which the segmenter found no foreground; they are
///   compared as black images. Under masked protocols only.
/// * `small_foregrounds`: the number of images of which the mask shows less than 3 %, those without
///   foreground included. Such a foreground is too small to be recognised. Under masked protocols only.
/// * `closest`: the highest similarity between an image and a photo, of those that are compared with and
///   those that are learned from, by the instance metric, and the image. Near 1, the photo was copied.
/// * `M_own_encoder`: 1 where the network that scores a tuning-free variant is the one that this variant reads
///   the photos with, and the two equal files; see [`own_encoder`](crate::own_encoder).
/// * `no_face` and `M_zeros` of a metric that reads faces: the number of images in which none was found,
///   and the mean score in which they count as 0.
pub fn checks(
    images: &ScoredImages<'_>,
    protocol: &Protocol,
    scores: &ScoreTable,
) -> Vec<CheckRow> {
    let instances = Metric::of_instances(&images.metrics);
    let photos = images.photos.iter().zip(&images.beside);
    let mut rows = checks_of_photos(&images.metrics, protocol, photos);
    for variant in &images.experiment.variants {
        let name = variant.name.as_str();
        rows.extend(instances.and_then(|metric| diversity(images, protocol, metric, name)));
        for metric in &images.metrics {
            rows.extend(lowest(scores, name, *metric));
        }
        rows.extend(empty_masks(images, protocol, name));
        rows.extend(small_foregrounds(images, protocol, name));
        rows.extend(instances.and_then(|metric| closest(images, protocol, metric, name)));
        rows.extend(faces(images, protocol, scores, name));
    }
    rows
}

/// The checks about photos alone, of some metrics, given the photos of every concept that are compared with
/// and those beside them.
pub fn checks_of_photos<'a>(
    metrics: &[Metric],
    protocol: &Protocol,
    photos: impl Iterator<Item = (&'a Vec<ImageFeatures>, &'a PhotosBeside)> + Clone,
) -> Vec<CheckRow> {
    let metrics = metrics.iter().filter(|metric| metric.reads_photos());
    let rows = metrics.flat_map(|metric| {
        let concepts = photos.clone();
        let concepts = concepts.map(|(photos, _)| features(photos, *metric, protocol));
        let mut rows = of_photos(*metric, &concepts.collect::<Vec<_>>());
        rows.extend(beside(*metric, protocol, photos.clone()));
        rows
    });
    rows.collect()
}

/// What the photos beside those that are compared with score.
fn beside<'a>(
    metric: Metric,
    protocol: &Protocol,
    photos: impl Iterator<Item = (&'a Vec<ImageFeatures>, &'a PhotosBeside)> + Clone,
) -> impl Iterator<Item = CheckRow> {
    let learned = photos.clone().filter_map(|(photos, beside)| {
        let learned = features(&beside.learned, metric, protocol);
        between(metric, &learned, &features(photos, metric, protocol))
    });
    let decoded = photos.filter_map(|(photos, beside)| {
        let decoded = beside.decoded.iter().enumerate();
        let pairs = decoded.flat_map(|(index, decoded)| {
            let others = photos.iter().enumerate();
            let others = others.filter(move |(other, _)| *other != index);
            others.filter_map(move |(_, photo)| {
                let of = |image: &'a ImageFeatures| image.of(metric, protocol);
                Some((of(decoded)?, of(photo)?))
            })
        });
        mean(pairs.map(|(a, b)| metric.definition().similarity(a, b)))
    });
    let column = metric.column();
    let rows = [("learned", mean(learned)), ("decoded", mean(decoded))];
    rows.into_iter().filter_map(move |(name, value)| {
        Some(check(PHOTOS, format!("{column}_{name}"), value?, ""))
    })
}

/// How many images show no face, and the mean score in which these count as 0, of every metric that reads
/// faces, given concept, scores and whether a face is lacking of every image of a variant.
pub fn checks_of_faces<'a>(
    images: impl Iterator<Item = (&'a str, &'a Scores, bool)> + Clone,
    metrics: &[Metric],
    averaging: Averaging,
    variant: &str,
) -> Vec<CheckRow> {
    let lacking = images.clone().filter(|(.., lacks)| *lacks).count();
    let metrics = metrics.iter().filter(|metric| metric.reads_faces());
    let rows = metrics.flat_map(|metric| {
        let mut concepts: IndexMap<&str, Vec<f64>> = IndexMap::new();
        for (concept, scores, lacks) in images.clone() {
            if let Some(score) = scores[*metric].or(lacks.then_some(0.0)) {
                concepts.entry(concept).or_default().push(score);
            }
        }
        let total = match averaging {
            Averaging::Macro => mean(concepts.into_values().filter_map(mean)),
            Averaging::Pooled => mean(concepts.into_values().flatten()),
        };
        let zeros =
            total.map(|total| check(variant, format!("{}_zeros", metric.column()), total, ""));
        let count = check(variant, NO_FACE, lacking as f64, "");
        zeros.map(|zeros| [count, zeros]).into_iter().flatten()
    });
    rows.collect()
}

fn faces(
    images: &ScoredImages<'_>,
    protocol: &Protocol,
    scores: &ScoreTable,
    variant: &str,
) -> Vec<CheckRow> {
    let rows = images.images.iter().zip(&scores.rows);
    let rows = rows.filter(|(_, row)| row.variant == variant);
    let images = rows.map(|(image, row)| {
        let lacks = lacks_face(protocol, &image.features, image.place());
        (row.concept.as_str(), &row.scores, lacks)
    });
    checks_of_faces(images, &scores.metrics, protocol.averaging, variant)
}

fn check(variant: &str, measure: impl Into<String>, value: f64, place: &str) -> CheckRow {
    CheckRow {
        variant: variant.into(),
        measure: measure.into(),
        value,
        place: place.into(),
    }
}

fn features<'a>(
    images: &'a [ImageFeatures],
    metric: Metric,
    protocol: &Protocol,
) -> Vec<&'a Feature> {
    let images = images.iter();
    images
        .filter_map(|image| image.of(metric, protocol))
        .collect()
}

fn of_photos(metric: Metric, concepts: &[Vec<&Feature>]) -> Vec<CheckRow> {
    let column = metric.column();
    let same = concepts
        .iter()
        .filter_map(|photos| pairwise(metric, photos));
    let same = mean(same).map(|value| check(PHOTOS, format!("{column}_same"), value, ""));
    let other = concepts.iter().enumerate().filter_map(|(index, photos)| {
        let others = concepts.iter().enumerate();
        let others = others.filter(|(other, _)| *other != index);
        mean(others.filter_map(|(_, others)| between(metric, photos, others)))
    });
    let other = mean(other).map(|value| check(PHOTOS, format!("{column}_other"), value, ""));
    same.into_iter().chain(other).collect()
}

/// The mean similarity of all pairs of features; `None` for fewer than two.
fn pairwise(metric: Metric, features: &[&Feature]) -> Option<f64> {
    let pairs = (0..features.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    mean(pairs.map(|(i, j)| metric.definition().similarity(features[i], features[j])))
}

fn between(metric: Metric, ours: &[&Feature], theirs: &[&Feature]) -> Option<f64> {
    let pairs = ours.iter().flat_map(|a| theirs.iter().map(move |b| (a, b)));
    mean(pairs.map(|(a, b)| metric.definition().similarity(a, b)))
}

fn diversity(
    images: &ScoredImages<'_>,
    protocol: &Protocol,
    metric: Metric,
    variant: &str,
) -> Option<CheckRow> {
    let mut prompts: IndexMap<(usize, usize), Vec<&Feature>> = IndexMap::new();
    for image in images.of_variant(variant) {
        let prompt = (image.cell, image.image.prompt_index);
        let feature = image.features.of(metric, protocol)?;
        prompts.entry(prompt).or_default().push(feature);
    }
    let similar = prompts
        .values()
        .filter_map(|images| pairwise(metric, images));
    Some(check(variant, "diversity", 1.0 - mean(similar)?, ""))
}

fn lowest(scores: &ScoreTable, variant: &str, metric: Metric) -> Option<CheckRow> {
    let mut prompts: IndexMap<&str, Vec<f64>> = IndexMap::new();
    for row in scores.rows.iter().filter(|row| row.variant == variant) {
        if let Some(value) = row.scores[metric] {
            prompts.entry(&row.prompt).or_default().push(value);
        }
    }
    let prompts = prompts.into_iter();
    let means = prompts.filter_map(|(prompt, values)| Some((prompt, mean(values)?)));
    let (prompt, value) = means.min_by(|a, b| a.1.total_cmp(&b.1))?;
    let measure = format!("lowest_{}", metric.column());
    Some(check(variant, measure, value, prompt))
}

fn empty_masks(images: &ScoredImages<'_>, protocol: &Protocol, variant: &str) -> Option<CheckRow> {
    let images = images.of_variant(variant).filter(|_| protocol.masked);
    let share = mean(images.map(|image| f64::from(u8::from(image.features.empty_mask))))?;
    Some(check(variant, "nothing_found", share, ""))
}

/// The share of an image below which its foreground is too small to be recognised.
const SMALL_FOREGROUND: f64 = 0.03;

fn small_foregrounds(
    images: &ScoredImages<'_>,
    protocol: &Protocol,
    variant: &str,
) -> Option<CheckRow> {
    let images = images.of_variant(variant).filter(|_| protocol.masked);
    let shares = images.filter_map(|image| Some(image.features.outline.as_ref()?.share));
    Some(check(
        variant,
        "small_foregrounds",
        count_small(shares)?,
        "",
    ))
}

/// How many shares are below the limit; `None` where there is no share.
fn count_small(shares: impl Iterator<Item = f64>) -> Option<f64> {
    let small: Vec<bool> = shares.map(|share| share < SMALL_FOREGROUND).collect();
    let count = small.iter().filter(|small| **small).count();
    (!small.is_empty()).then_some(count as f64)
}

fn closest(
    images: &ScoredImages<'_>,
    protocol: &Protocol,
    metric: Metric,
    variant: &str,
) -> Option<CheckRow> {
    let to_photos = images.of_variant(variant).filter_map(|image| {
        let photos = &images.photos[images.cells[image.cell].concept];
        let learned = &images.beside[images.cells[image.cell].concept].learned;
        let photos = [photos, learned].map(|photos| features(photos, metric, protocol));
        let photos = photos.into_iter().flatten();
        let feature = image.features.of(metric, protocol)?;
        let similarities = photos.map(|photo| metric.definition().similarity(feature, photo));
        Some((image, similarities.max_by(f64::total_cmp)?))
    });
    let (image, value) = to_photos.max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(check(variant, "closest", value, &image.image.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ScoreRow;

    fn metric(column: &str) -> Metric {
        Metric::named(column).expect("a metric of that column")
    }

    #[test]
    fn photos_are_compared_among_themselves_and_with_those_of_other_concepts() {
        let dog: [Feature; 2] = [vec![1.0, 0.0], vec![0.8, 0.6]];
        let cup: [Feature; 2] = [vec![0.0, 1.0], vec![0.0, 1.0]];
        let concepts: Vec<Vec<&Feature>> = [&dog, &cup].map(|c| c.iter().collect()).into();
        let rows = of_photos(metric("dino"), &concepts);
        let value = |measure: &str| {
            let row = rows.iter().find(|row| row.measure == measure);
            row.expect("a row").value
        };
        assert!((value("dino_same") - (0.8 + 1.0) / 2.0).abs() < 1e-6);
        assert!((value("dino_other") - 0.3).abs() < 1e-6);
        let alone = of_photos(metric("dino"), &concepts[..1]);
        assert_eq!(alone.len(), 1, "nothing to compare with");
    }

    #[test]
    fn foregrounds_under_three_per_cent_are_counted() {
        let shares = [0.0, 0.0299, 0.03, 0.5];
        assert_eq!(count_small(shares.into_iter()), Some(2.0));
        assert_eq!(count_small([0.5].into_iter()), Some(0.0));
        assert_eq!(count_small([].into_iter()), None);
    }

    #[test]
    fn the_worst_prompt_is_the_one_with_the_lowest_mean() {
        let dino = metric("dino");
        let row = |prompt: &str, value: f64| ScoreRow {
            variant: "v".into(),
            prompt: prompt.into(),
            scores: [(dino, Some(value))].into_iter().collect(),
            ..ScoreRow::default()
        };
        let table = ScoreTable {
            metrics: vec![dino],
            rows: vec![row("a", 0.1), row("a", 0.9), row("b", 0.4), row("b", 0.4)],
        };
        let worst = lowest(&table, "v", dino).expect("a row");
        assert_eq!((worst.place.as_str(), worst.value), ("b", 0.4));
        assert_eq!(lowest(&table, "v", metric("clip_t")), None);
    }
}
