//! The second half of an experiment: scores, and everything that is made of images and scores.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::Result;
use core_train::data::landmarks::LANDMARKS;
use core_train::phrase::SLOT;
use core_train::run::folder::METRICS;

use super::{Harness, KEPT, Outcome};
use crate::attention_file::ATTENTION;
use crate::checks::checks;
use crate::curves::{self, CurveRow};
use crate::decoded::decoded_references;
use crate::effects::{self, EffectRow, Evidence};
use crate::experiment::{EvaluationPrompt, Keep};
use crate::gallery::{ImageFile, MaskSource, Needs, load_images};
use crate::image_rows::image_rows;
use crate::images::wanted;
use crate::kept_tokens::KeptTokens;
use crate::lock;
use crate::machines::mixture;
use crate::metrics::Metric;
use crate::own_encoder::{OwnEncoder, own_encoders};
use crate::page::{self, Source};
use crate::photo_files::photo_files;
use crate::plan::Cell;
use crate::provenance::protocol_json;
use crate::reference::{compare, reference_of};
use crate::report::figures::{
    FigureOptions, Foreground, draw_all, draw_foregrounds, update_attention,
};
use crate::report::{self, ScoreTable, Tables, TokenRow, Weighting};
use crate::scoring::ScoredImages;
use crate::settings::{SETTINGS, settings};
use crate::tokens::related;
use crate::usage::Usage;
use crate::validation_scores;
use crate::work::Done;

/// The scores of validation images, of all runs.
const VALIDATION_SCORES: &str = "validation.csv";

impl Harness<'_> {
    /// Scores, and writes everything that is made of the images.
    pub(super) fn tables(mut self, done: Done) -> Result<Outcome> {
        let mut outcome = Outcome {
            tables: Vec::new(),
            effects: Vec::new(),
            files: vec!["tokens.csv".to_string(), "curves.csv".to_string()],
            usage: Usage::default(),
            deviation: None,
        };
        outcome.usage.count("runs trained", done.runs as u64);
        outcome.usage.count("images generated", done.images as u64);
        outcome.usage.count("optimiser steps", done.steps as u64);
        let _lock = lock::lock(self.results, self.stop)?;
        self.claims.sweep()?;
        let tokens = self.tokens(&mut outcome.usage)?;
        if self.experiment.keep == Keep::Images {
            self.removal().after_prompts()?;
        }
        let curves = self.curves()?;
        report::write_rows(&self.file("tokens.csv"), &tokens)?;
        report::write_rows(&self.file("curves.csv"), &curves)?;
        let settings = settings(self.experiment)?;
        if !settings.is_empty() {
            report::write_rows(&self.file(SETTINGS), &settings)?;
            outcome.files.push(SETTINGS.to_string());
        }
        self.validation_scores(&mut outcome)?;
        self.score(&mut outcome, &tokens, &curves)?;
        let mut figures = draw_all(self.results, &FigureOptions::default())?.files;
        if self.protocols.iter().any(|protocol| protocol.masked) {
            figures.extend(self.foregrounds()?);
        }
        for figure in figures {
            let name = figure.strip_prefix(self.results).unwrap_or(&figure);
            outcome.files.push(name.display().to_string());
        }
        outcome.usage.add(self.gallery.usage());
        self.attention(&mut outcome)?;
        self.report(&mut outcome);
        if let Some(reference) = reference_of(self.results) {
            outcome.deviation = Some(compare(self.results, &reference)?);
        }
        Ok(outcome)
    }

    /// Scores all images under every protocol, writes the tables and measures the claims.
    fn score(
        &mut self,
        outcome: &mut Outcome,
        tokens: &[TokenRow],
        curves: &[CurveRow],
    ) -> Result<()> {
        let decoded = self.decoded()?;
        let gallery = &mut self.gallery;
        let (experiment, cells) = (self.experiment, &self.cells);
        let images = ScoredImages::new(
            experiment,
            cells,
            self.results,
            gallery,
            &decoded,
            self.stop,
        );
        gallery.save()?;
        gallery.release();
        let images = images?;
        let photos = images.photo_counts();
        let own_encoders = own_encoders(experiment)?;
        for (index, protocol) in self.protocols.iter().enumerate() {
            let suffix = match index {
                0 => String::new(),
                _ => format!("-{}", protocol.name),
            };
            let scores = images.scores(protocol)?;
            let mut checks = checks(&images, protocol, &scores);
            checks.extend(own_encoders.iter().map(OwnEncoder::check));
            let weighting = Weighting {
                averaging: protocol.averaging,
                photos: &photos,
            };
            let concepts = experiment.concepts.iter();
            let concepts = concepts.map(|c| (c.name.as_str(), c.reference_photos()));
            let encoders = &experiment.evaluation.encoders;
            let base_prompt = experiment.evaluation.base_prompt.as_deref();
            let landmarks = self.results.join(LANDMARKS);
            let tables = Tables {
                scores: &scores,
                checks: &checks,
                weighting,
                protocol: &protocol_json(
                    protocol,
                    encoders,
                    base_prompt,
                    Some(&landmarks),
                    concepts,
                )?,
            };
            let written = tables.write(self.results, &suffix)?;
            outcome.files.extend(written.files);
            let rows = format!("images{suffix}.csv");
            report::write_rows(&self.results.join(&rows), &image_rows(&images, protocol))?;
            outcome.files.push(rows);
            outcome.tables.push((protocol.name, written.markdown));
            if index == 0 {
                outcome.effects = self.effects(&scores, weighting, tokens, curves)?;
            }
        }
        if !outcome.effects.is_empty() {
            report::write_rows(&self.file("effects.csv"), &outcome.effects)?;
            outcome.files.push("effects.csv".to_string());
        }
        Ok(())
    }

    /// The references of every concept after the autoencoder; none of concepts without references.
    fn decoded(&self) -> Result<Vec<Vec<ImageFile>>> {
        let folder = self.file(KEPT).join("decoded");
        let faces = self.gallery.face_input();
        let concepts = self.experiment.concepts.iter();
        concepts
            .map(|concept| decoded_references(&self.base, concept, faces, &folder))
            .collect()
    }

    /// Keeps the attention maps of the longest prompt of the first concept for the report page. Where they
    /// cannot be computed, which all other results can do without, that is said. Runs whose weights were removed
    /// (`keep = "images"`) have none, which the page says.
    fn attention(&self, outcome: &mut Outcome) -> Result<()> {
        let concept = &self.experiment.concepts[0];
        let prompts = related(self.experiment, concept);
        let words = |prompt: &EvaluationPrompt| prompt.prompt.split_whitespace().count();
        let Some(longest) = prompts.max_by_key(words) else {
            return Ok(());
        };
        let choice = (longest.prompt.as_str(), concept.name.as_str());
        match update_attention(self.results, choice, &self.base, self.stop) {
            Ok(images) => outcome.usage.count("sets of attention maps", images as u64),
            Err(error) if self.stop.load(Ordering::Relaxed) => return Err(error),
            Err(error) => tracing::warn!(
                "no attention maps for the report, all other results are there: {error:#}; \
                 `core-eval figures {} --prompt \"{}\"` tries again",
                self.results.display(),
                longest.prompt
            ),
        }
        if self.file(ATTENTION).is_file() {
            outcome.files.push(ATTENTION.to_string());
        }
        Ok(())
    }

    /// Writes the report page. All results are written by now, so a page that cannot be written is
    /// said and is no failure.
    fn report(&self, outcome: &mut Outcome) {
        let folders = [self.results.to_path_buf()];
        let written = Source::read(&folders).and_then(|source| {
            let environments = source.runs.iter();
            let environments = environments.filter_map(|run| run.environment.as_ref());
            if let Some(warning) = mixture(environments) {
                tracing::warn!("{warning}");
            }
            let options = page::Options::default();
            page::write(&source, self.results, &options)
        });
        match written {
            Ok(written) => outcome.files.extend(written.files),
            Err(error) => tracing::warn!(
                "no report.html was written, all other results are there: {error:#}; \
                 `core-eval report {}` tries again",
                self.results.display()
            ),
        }
    }

    /// The rows of `tokens.csv`; those of a run that was probed before are reused.
    fn tokens(&self, usage: &mut Usage) -> Result<Vec<TokenRow>> {
        let file = self.file(KEPT).join("tokens.bin");
        let (experiment, probe) = (self.experiment, &self.probe);
        let mut kept = KeptTokens::open(experiment, probe, &self.base, self.results, &file)?;
        let mut rows = Vec::new();
        for cell in self.trained_cells() {
            rows.extend(kept.rows(cell)?);
        }
        kept.save()?;
        usage.count("prompts read by the text encoder", kept.prompts);
        Ok(rows)
    }

    /// The cells that are described by what a run has trained: a variant with test-time
    /// optimisation has another embedding for every prompt, and a tuning-free one has learned none.
    fn trained_cells(&self) -> impl Iterator<Item = &Cell> {
        let variants = &self.experiment.variants;
        let cells = self.cells.iter();
        cells.filter(|cell| {
            let variant = &variants[cell.variant];
            variant.test_time.is_none() && !variant.is_tuning_free()
        })
    }

    fn curves(&self) -> Result<Vec<CurveRow>> {
        self.of_metrics(curves::read)
    }

    /// Writes `validation.csv` where the experiment scores validation images.
    fn validation_scores(&self, outcome: &mut Outcome) -> Result<()> {
        let validation = self.experiment.validation.as_ref();
        if validation.is_some_and(|validation| validation.scores) {
            let rows = self.of_metrics(validation_scores::read)?;
            report::write_rows(&self.file(VALIDATION_SCORES), &rows)?;
            outcome.files.push(VALIDATION_SCORES.to_string());
        }
        Ok(())
    }

    /// What `read` finds in the `metrics.csv` files of all runs. Its other arguments are the variant, the
    /// concept and the seed.
    fn of_metrics<T>(
        &self,
        read: impl Fn(&Path, &str, &str, u64) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        for cell in self.trained_cells() {
            let Some(run) = &cell.run else { continue };
            let metrics = run.folder(self.results).join(METRICS);
            let variant = &self.experiment.variants[cell.variant].name;
            let concept = &self.experiment.concepts[cell.concept].name;
            rows.extend(read(&metrics, variant, concept, cell.seed)?);
        }
        Ok(rows)
    }

    /// Measures the claims, if there are enough concepts or seeds for an interval.
    fn effects(
        &self,
        scores: &ScoreTable,
        weighting: Weighting<'_>,
        tokens: &[TokenRow],
        curves: &[CurveRow],
    ) -> Result<Vec<EffectRow>> {
        let experiment = self.experiment;
        if experiment.concepts.len() * experiment.seeds.len() < 2 {
            return Ok(Vec::new());
        }
        let difference = |metric: Metric, variant: &str, baseline: &str| {
            let names = [baseline.to_string(), variant.to_string()];
            let summary = report::summarize(scores, &names, weighting);
            summary.into_iter().find(|row| {
                row.variant == variant
                    && row.metric == metric
                    && row.concept == report::ALL_CONCEPTS
            })
        };
        let evidence = Evidence {
            difference: &difference,
            tokens,
            curves,
        };
        effects::measure(&experiment.effects, evidence)
    }

    /// What masked protocols compare of the first concept and the first seed: reference photos, then one
    /// row per prompt and one column per variant.
    fn foregrounds(&mut self) -> Result<Vec<PathBuf>> {
        let experiment = self.experiment;
        let concept = &experiment.concepts[0];
        let first = |cell: &&Cell| cell.concept == 0 && cell.seed == experiment.seeds[0];
        let gallery = &mut self.gallery;
        let mut shown = |files: &[ImageFile]| -> Result<Vec<Foreground>> {
            let masks = gallery.masks(files)?;
            let images = load_images(files.iter().map(|file| file.path.as_path()))?;
            let pairs = images.into_iter().zip(masks);
            Ok(pairs
                .map(|(image, mask)| Foreground { image, mask })
                .collect())
        };
        let needs = Needs::of_photos(&experiment.metrics(), &self.protocols);
        let photos = shown(&photo_files(concept, &needs)?)?;
        let mut columns = Vec::new();
        for cell in self.cells.iter().filter(first) {
            let images = wanted(experiment, cell).into_iter();
            let images = images.filter(|image| image.image == 0);
            let images = images.map(|image| ImageFile {
                mask: Some(MaskSource::Word(concept.super_category.clone())),
                ..ImageFile::from(self.results.join(image.file))
            });
            let images = shown(&images.collect::<Vec<_>>())?;
            columns.push((experiment.variants[cell.variant].name.clone(), images));
        }
        let prompts = experiment.prompts_for(concept).into_iter();
        let word = &concept.super_category;
        let rows: Vec<String> = prompts
            .map(|prompt| prompt.prompt.replace(SLOT, word))
            .collect();
        draw_foregrounds(self.results, &concept.name, &photos, &columns, &rows)
    }
}
