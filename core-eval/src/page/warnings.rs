//! What a reader must know before believing a page.

use std::collections::BTreeSet;

use indexmap::IndexSet;

use super::data::Page;
use crate::checks::PHOTOS;
use crate::machines::mixture;
use crate::own_encoder::of_check;
use crate::report::ALL_CONCEPTS;
use crate::statistics::ENOUGH_CONCEPTS;

/// The warnings of a page, in whole sentences.
pub(super) fn warnings(page: &Page) -> Vec<String> {
    let mut warnings: Vec<String> = mixture(page.environments.iter()).into_iter().collect();
    if warnings.is_empty() && page.environments.len() > 1 {
        warnings
            .push("The runs were made on different machines or versions; see Runs.".to_string());
    }
    if page.seeds.len() == 1 {
        warnings.push("One seed: the intervals do not cover another training.".to_string());
    }
    let concepts = page.concepts.len();
    if (1..ENOUGH_CONCEPTS).contains(&concepts) {
        let concepts = match concepts {
            1 => "One concept".to_string(),
            count => format!("{count} concepts"),
        };
        warnings.push(format!(
            "{concepts}: with fewer than {ENOUGH_CONCEPTS} the intervals resample prompts and say \
             nothing about other concepts."
        ));
    }
    for protocol in &page.protocols {
        let failed = protocol.checks.iter().filter(|check| {
            check.measure == "nothing_found"
                && check.variant != PHOTOS
                && check.value.is_some_and(|share| share > 0.0)
        });
        let failed: Vec<&str> = failed.map(|check| check.variant.as_str()).collect();
        if !failed.is_empty() {
            warnings.push(format!(
                "Protocol {}: the segmenter found no foreground in some images of {}; they are \
                 compared as black images.",
                protocol.name,
                failed.join(", ")
            ));
        }
        let is_nan = |mean: &super::data::Mean| !mean.row.mean.is_finite();
        if protocol.summary.iter().any(is_nan) {
            warnings.push(format!(
                "Protocol {}: some scores are NaN or infinite.",
                protocol.name
            ));
        }
    }
    // Every protocol has them; they are said once.
    let checks = page.protocols.iter().flat_map(|of| &of.checks);
    let flattered = checks.filter_map(|row| of_check(&row.variant, &row.measure, &row.place));
    warnings.extend(flattered.collect::<IndexSet<String>>());
    warnings
}

/// What is missing of single variants, in whole sentences.
pub(super) fn gaps(page: &Page) -> Vec<String> {
    let mut gaps = Vec::new();
    let images = &page.images;
    let place = |at: usize| {
        (
            images.concept[at],
            images.prompt[at],
            images.seed[at],
            images.number[at],
        )
    };
    let all: BTreeSet<_> = (0..images.variant.len()).map(place).collect();
    for (variant, name) in page.variants.iter().enumerate() {
        let ours = (0..images.variant.len()).filter(|at| images.variant[*at] == variant);
        let ours: BTreeSet<_> = ours.map(place).collect();
        if ours.len() < all.len() && !all.is_empty() {
            gaps.push(format!(
                "{name} has scores of {} of {} images.",
                ours.len(),
                all.len()
            ));
        }
    }
    let absent = images.file.iter().filter(|file| file.is_none()).count();
    if absent > 0 {
        gaps.push(format!(
            "{absent} of {} image files are not where scores.csv says; their cells stay empty.",
            images.file.len()
        ));
    }
    let without_photos = page
        .concepts
        .iter()
        .enumerate()
        .filter(|(number, _)| !page.photos.concept.contains(number));
    let without_photos: Vec<&str> = without_photos.map(|(_, c)| c.name.as_str()).collect();
    if !without_photos.is_empty() {
        gaps.push(format!(
            "Photos of {} were not found.",
            without_photos.join(", ")
        ));
    }
    for protocol in &page.protocols {
        if protocol.closest.iter().all(Option::is_none) {
            gaps.push(format!(
                "No images.csv for protocol {}: closest photos and masks are not shown.",
                protocol.name
            ));
        }
        let compared = |variant: &str| {
            let mut rows = protocol
                .summary
                .iter()
                .filter(|mean| mean.kind == ALL_CONCEPTS);
            rows.any(|mean| mean.row.variant == variant)
        };
        for variant in page.variants.iter().filter(|variant| !compared(variant)) {
            gaps.push(format!(
                "{variant} has no scores under protocol {}.",
                protocol.name
            ));
        }
    }
    gaps
}
