//! The figures that `core-eval score` finds: as CSV, as JSON, and their means.

use std::path::Path;

use anyhow::{Context, Result};
use core_model::files::write_atomically;
use indexmap::{IndexMap, IndexSet};
use serde_json::{Map, Value, json};

use super::items::Item;
use core_eval::checks::{CheckRow, NO_FACE, checks_of_faces};
use core_eval::judge::COLUMN;
use core_eval::metrics::{Metric, Scores};
use core_eval::protocol::Averaging;
use core_eval::statistics::{mean, weighted_mean};

/// Images with their figures, one for each column.
pub(super) struct Scored<'a> {
    pub(super) items: &'a [Item],
    /// The text that each image is compared with.
    pub(super) texts: &'a [String],
    /// The scores of the first images; fewer than images after a failure.
    pub(super) scores: Vec<ImageScores>,
    pub(super) metrics: Vec<Metric>,
    /// The answers of the judge command about the first images; `None` without one.
    pub(super) judged: Option<Vec<f64>>,
    /// Whether the images belong to several concepts.
    pub(super) with_concept: bool,
}

/// The scores of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct ImageScores {
    pub(super) scores: Scores,
    /// Whether it has no identity because no face was found in it.
    pub(super) lacks_face: bool,
}

/// One figure for each column; none where the protocol leaves an image out.
type Figures = Vec<Option<f64>>;

/// The means over all images.
struct Means<'a> {
    /// Of each concept.
    concepts: IndexMap<&'a str, Figures>,
    /// Of the means of concepts.
    over_concepts: Figures,
    /// Over all images for metrics that do not compare with photos and for the judge, and over all
    /// pairs of image and photo for the others.
    pooled: Figures,
}

impl Scored<'_> {
    /// Writes one row per scored image.
    pub(super) fn write(&self, out: &Path) -> Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let failed = || out.display().to_string();
        let concept: &[&str] = if self.with_concept { &["concept"] } else { &[] };
        let header = ["image"].iter().chain(concept).copied();
        writer
            .write_record(header.chain(self.columns()))
            .with_context(failed)?;
        for (item, figures) in self.rows() {
            let number = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
            let mut record = vec![item.name.clone()];
            record.extend(self.with_concept.then(|| item.concept.clone()));
            record.extend(figures.into_iter().map(number));
            writer.write_record(&record).with_context(failed)?;
        }
        let bytes = writer.into_inner().with_context(failed)?;
        Ok(write_atomically(out, &bytes)?)
    }

    /// The names of the columns of figures.
    fn columns(&self) -> Vec<&'static str> {
        let metrics = self.metrics.iter().map(|metric| metric.column());
        metrics.chain(self.judged.iter().map(|_| COLUMN)).collect()
    }

    /// The scored images with their figures.
    fn rows(&self) -> impl Iterator<Item = (&Item, Figures)> {
        let images = self.items.iter().zip(&self.scores).enumerate();
        images.map(|(index, (item, of_image))| {
            let scores = &of_image.scores;
            let metrics = self.metrics.iter().map(|metric| scores[*metric]);
            let judged = self.judged.iter().map(|all| all.get(index).copied());
            (item, metrics.chain(judged).collect())
        })
    }

    /// The means as they are printed. With several concepts: the mean of each concept, the mean of
    /// these, and the pooled mean.
    pub(super) fn means(&self, photos: impl Fn(&str) -> usize) -> String {
        let means = self.all_means(photos);
        let faces = self.faces(Averaging::Macro, "");
        let faces = faces.iter().map(|row| match row.measure.as_str() {
            NO_FACE => format!(
                "images without a face: {} of {}",
                row.value,
                self.scores.len()
            ),
            measure => format!("{measure} (those as 0) {:.6}", row.value),
        });
        let faces: Vec<String> = faces.collect();
        let faces = (!faces.is_empty()).then(|| faces.join("; "));
        if !self.with_concept {
            let line = self.line("", &means.over_concepts);
            return [line]
                .into_iter()
                .chain(faces)
                .collect::<Vec<_>>()
                .join("\n");
        }
        let mut lines: Vec<String> = means
            .concepts
            .iter()
            .map(|(concept, figures)| self.line(&format!("{concept}: "), figures))
            .collect();
        let count = means.concepts.len();
        let name = format!("macro mean of {count} concepts: ");
        lines.push(self.line(&name, &means.over_concepts));
        let name = format!("pooled mean of {} images: ", self.scores.len());
        lines.push(self.line(&name, &means.pooled));
        lines.extend(faces);
        lines.join("\n")
    }

    /// How many images show no face, and the mean score in which these count as 0.
    pub(super) fn faces(&self, averaging: Averaging, name: &str) -> Vec<CheckRow> {
        let images = self.items.iter().zip(&self.scores);
        let images = images.map(|(item, of)| (item.concept.as_str(), &of.scores, of.lacks_face));
        checks_of_faces(images, &self.metrics, averaging, name)
    }

    fn all_means(&self, photos: impl Fn(&str) -> usize) -> Means<'_> {
        let rows: Vec<(&Item, Figures)> = self.rows().collect();
        let names: IndexSet<&str> = rows.iter().map(|(item, _)| &*item.concept).collect();
        let each = |of: &dyn Fn(usize) -> Option<f64>| -> Figures {
            (0..self.columns().len()).map(of).collect()
        };
        let of_concept = |concept: &str| {
            each(&|column| {
                let rows = rows.iter().filter(|(item, _)| item.concept == concept);
                mean(rows.filter_map(|(_, figures)| figures[column]))
            })
        };
        let concepts: IndexMap<&str, Figures> = names
            .into_iter()
            .map(|concept| (concept, of_concept(concept)))
            .collect();
        let over_concepts = each(&|column| mean(concepts.values().filter_map(|of| of[column])));
        let pooled = each(&|column| {
            let of_photos = self.metrics.get(column).is_some_and(|m| m.reads_photos());
            let weight = |item: &Item| match of_photos {
                true => photos(&item.concept) as f64,
                false => 1.0,
            };
            let values = rows.iter();
            weighted_mean(values.filter_map(|(item, of)| Some((of[column]?, weight(item)))))
        });
        Means {
            concepts,
            over_concepts,
            pooled,
        }
    }

    fn line(&self, name: &str, values: &[Option<f64>]) -> String {
        let columns = self.columns().into_iter().zip(values);
        let figures: Vec<String> = columns
            .map(|(column, value)| {
                let value = value.map_or("-".to_string(), |v| format!("{v:.6}"));
                format!("{column} {value}")
            })
            .collect();
        format!("{name}{}", figures.join(" "))
    }

    /// Everything as JSON: the protocol, the images with the texts that they were compared with, and
    /// the means.
    pub(super) fn json(&self, protocol: &Value, photos: impl Fn(&str) -> usize) -> Value {
        let columns = self.columns();
        let object = |figures: &[Option<f64>]| -> Map<String, Value> {
            let columns = columns.iter().map(ToString::to_string);
            columns.zip(figures.iter().map(|v| json!(v))).collect()
        };
        let images = self.rows().zip(self.texts).map(|((item, figures), text)| {
            let mut image = Map::new();
            for (key, value) in [
                ("image", &item.name),
                ("concept", &item.concept),
                ("prompt", &item.prompt),
                ("text", text),
                ("kind", &item.kind),
            ] {
                image.insert(key.into(), json!(value));
            }
            image.extend(object(&figures));
            Value::Object(image)
        });
        let mut images: Vec<Value> = images.collect();
        if self.metrics.iter().any(|metric| metric.reads_faces()) {
            for (image, of) in images.iter_mut().zip(&self.scores) {
                image["no_face"] = json!(of.lacks_face);
            }
        }
        let means = self.all_means(photos);
        let concepts = means.concepts.iter();
        let concepts: Map<String, Value> = concepts
            .map(|(concept, figures)| (concept.to_string(), Value::Object(object(figures))))
            .collect();
        json!({
            "protocol": protocol,
            "columns": columns,
            "images": images,
            "means": {
                "concepts": concepts,
                "macro": object(&means.over_concepts),
                "pooled": object(&means.pooled),
            },
        })
    }
}
