//! The CSV that `core-eval score` writes, and the means that it prints.

use std::path::Path;

use anyhow::{Context, Result};
use core_model::files::write_atomically;
use indexmap::IndexSet;

use super::items::Item;
use core_eval::metrics::{Metric, Scores};
use core_eval::statistics::{mean, weighted_mean};

/// Images with their scores by some metrics.
pub(super) struct Scored<'a> {
    pub(super) items: &'a [Item],
    /// The scores of the first images; fewer than images after a failure.
    pub(super) scores: Vec<Scores>,
    pub(super) metrics: Vec<Metric>,
    /// Whether the images belong to several concepts.
    pub(super) with_concept: bool,
}

impl Scored<'_> {
    /// Writes one row per scored image.
    pub(super) fn write(&self, out: &Path) -> Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let failed = || out.display().to_string();
        let metrics = || self.metrics.iter().copied();
        let concept: &[&str] = if self.with_concept { &["concept"] } else { &[] };
        let header = ["image"].iter().chain(concept).copied();
        writer
            .write_record(header.chain(metrics().map(Metric::column)))
            .with_context(failed)?;
        for (item, scores) in self.items.iter().zip(&self.scores) {
            let number = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
            let mut record = vec![item.name.clone()];
            record.extend(self.with_concept.then(|| item.concept.clone()));
            record.extend(metrics().map(|metric| number(scores[metric])));
            writer.write_record(&record).with_context(failed)?;
        }
        let bytes = writer.into_inner().with_context(failed)?;
        Ok(write_atomically(out, &bytes)?)
    }

    /// The means over all images. With several concepts: the mean of each concept, the mean of these, and
    /// the pooled mean, which is over all images for metrics that compare with the text and over all pairs
    /// of image and photo for the others.
    pub(super) fn means(&self, photos: impl Fn(&str) -> usize) -> String {
        let rows = || self.items.iter().zip(&self.scores);
        let concepts: IndexSet<&str> = rows().map(|(item, _)| item.concept.as_str()).collect();
        let of_concept: Vec<Scores> = concepts
            .iter()
            .map(|concept| {
                self.each(|metric| {
                    let rows = rows().filter(|(item, _)| item.concept == *concept);
                    mean(rows.filter_map(|(_, scores)| scores[metric]))
                })
            })
            .collect();
        let all = self.each(|metric| mean(of_concept.iter().filter_map(|scores| scores[metric])));
        if !self.with_concept {
            return self.line("", &all);
        }
        let pooled = self.each(|metric| {
            let weight = |item: &Item| match metric.reads_photos() {
                true => photos(&item.concept) as f64,
                false => 1.0,
            };
            let values = rows().filter_map(|(item, scores)| Some((scores[metric]?, weight(item))));
            weighted_mean(values)
        });
        let mut lines: Vec<String> = concepts
            .iter()
            .zip(&of_concept)
            .map(|(concept, values)| self.line(&format!("{concept}: "), values))
            .collect();
        let count = concepts.len();
        lines.push(self.line(&format!("macro mean of {count} concepts: "), &all));
        let count = self.scores.len();
        lines.push(self.line(&format!("pooled mean of {count} images: "), &pooled));
        lines.join("\n")
    }

    fn each(&self, of: impl Fn(Metric) -> Option<f64>) -> Scores {
        let metrics = self.metrics.iter().copied();
        metrics.map(|metric| (metric, of(metric))).collect()
    }

    fn line(&self, name: &str, values: &Scores) -> String {
        let metrics = self.metrics.iter().copied();
        let figures: Vec<String> = metrics
            .map(|metric| {
                let value = values[metric].map_or("-".to_string(), |v| format!("{v:.6}"));
                format!("{} {value}", metric.column())
            })
            .collect();
        format!("{name}{}", figures.join(" "))
    }
}
