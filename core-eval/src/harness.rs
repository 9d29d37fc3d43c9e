//! An experiment from its file to its tables: train, draw, score, report. Finished work is reused, so
//! the same call can be repeated at any time.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, anyhow, ensure};
use core_model::device::parse_device;
use core_model::folder::ModelFolder;
use core_model::photos::PhotoFolder;
use core_train::progress::Progress;
use core_train::run::folder::METRICS;
use image::{GrayImage, RgbImage};

use crate::base::Base;
use crate::checks::checks;
use crate::curves::{self, CurveRow};
use crate::effects::{self, EffectRow, Evidence};
use crate::experiment::Experiment;
use crate::gallery::{Gallery, ImageFeatures};
use crate::images::{self, wanted};
use crate::masks::masked;
use crate::metrics::Metric;
use crate::pictures::load_images;
use crate::plan::{Cell, plan};
use crate::protocol::Protocol;
use crate::provenance::protocol_json;
use crate::report::{self, ScoreTable, Tables, TokenRow, Weighting};
use crate::scoring::{self, ScoredImages};
use crate::tokens::Reader;
use crate::training;
use crate::workers::Workers;

/// What an experiment came to.
#[derive(Debug)]
pub struct Outcome {
    /// The table of every protocol by the protocol's name, in Markdown.
    pub tables: Vec<(&'static str, String)>,
    /// The claims with their intervals; none where the experiment makes none, or has fewer than two
    /// concepts and seeds.
    pub effects: Vec<EffectRow>,
    /// The files that were written, relative to the folder of the results.
    pub files: Vec<String>,
}

/// Runs an experiment in the folder `results`; what lies there and still holds is not done again.
/// `stop` becomes true when the work is to be left as it is.
///
/// ```no_run
/// use std::path::Path;
/// use core_eval::experiment::Experiment;
///
/// let experiment = Experiment::load(Path::new("experiments/ablation.toml"))?;
/// let results = Path::new("results").join(&experiment.name);
/// let outcome = core_eval::harness::run(experiment, &results, &Default::default())?;
/// println!("{}", outcome.tables[0].1);
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// Everything that is wrong with the experiment and what it refers to, before any work; later
/// failures leave what was done, and the next call continues from there.
pub fn run(experiment: Experiment, results: &Path, stop: &AtomicBool) -> Result<Outcome> {
    // Nothing is fetched for an experiment that lacks something else.
    ensure!(
        experiment.is_obtainable(),
        "{}; put the folders there (experiments/README.md says what they hold) or name others in \
         the file",
        experiment.missing().join("; ")
    );
    let (experiment, model) = experiment.located()?;
    Harness::new(&experiment, model, results, stop)?.run()
}

/// An experiment with everything loaded and checked that does not come from training.
struct Harness<'a> {
    experiment: &'a Experiment,
    base: Base,
    results: &'a Path,
    protocols: Vec<&'static Protocol>,
    gallery: Gallery,
    /// The photos of every concept.
    photos: Vec<Vec<ImageFeatures>>,
    reader: Reader<'a>,
    cells: Vec<Cell>,
    workers: Workers,
    stop: &'a AtomicBool,
    /// Held while the program runs, so that no second one writes to the same folder.
    _lock: File,
}

impl<'a> Harness<'a> {
    fn new(
        experiment: &'a Experiment,
        model: ModelFolder,
        results: &'a Path,
        stop: &'a AtomicBool,
    ) -> Result<Self> {
        let device = parse_device(&experiment.device)?;
        model.weights().precision.check(&experiment.device)?;
        let protocols = experiment.evaluation.protocols()?;
        let evaluation = &experiment.evaluation;
        check_counts(experiment, &protocols)?;
        let gallery = Gallery::load(&evaluation.encoders, &device)?;
        let photos = scoring::photos(experiment, &protocols, &gallery)?;
        let reader = Reader::load(experiment, &model)?;
        let cells = plan(experiment, &model)?;
        reader.check_prompts(&cells)?;
        let lock = lock(results)?;
        let workers = Workers::for_model(model.path(), &experiment.device);
        Ok(Self {
            experiment,
            base: Base::new(model, &experiment.device),
            results,
            protocols,
            gallery,
            photos,
            reader,
            cells,
            workers,
            stop,
            _lock: lock,
        })
    }

    fn run(&self) -> Result<Outcome> {
        training::train(
            &self.cells,
            &self.base,
            self.results,
            self.workers,
            self.stop,
        )?;
        self.draw()?;
        let tokens = self.tokens()?;
        let curves = self.curves()?;
        report::write_rows(&self.file("tokens.csv"), &tokens)?;
        report::write_rows(&self.file("curves.csv"), &curves)?;
        let mut outcome = Outcome {
            tables: Vec::new(),
            effects: Vec::new(),
            files: vec!["tokens.csv".to_string(), "curves.csv".to_string()],
        };
        self.score(&mut outcome, &tokens, &curves)?;
        for plot in report::plot::draw_all(self.results)? {
            let name = plot.strip_prefix(self.results).unwrap_or(&plot);
            outcome.files.push(name.display().to_string());
        }
        self.grid("grid.png", false)?;
        outcome.files.push("grid.png".to_string());
        if self.protocols.iter().any(|protocol| protocol.masked) {
            self.grid("foregrounds.png", true)?;
            outcome.files.push("foregrounds.png".to_string());
        }
        Ok(outcome)
    }

    /// Scores all images under every protocol, writes the tables and measures the claims.
    fn score(&self, outcome: &mut Outcome, tokens: &[TokenRow], curves: &[CurveRow]) -> Result<()> {
        let images = ScoredImages::new(
            self.experiment,
            &self.cells,
            &self.protocols,
            self.results,
            &self.gallery,
            &self.photos,
        )?;
        let photos = images.photo_counts();
        for (index, protocol) in self.protocols.iter().enumerate() {
            let suffix = match index {
                0 => String::new(),
                _ => format!("-{}", protocol.name),
            };
            let scores = images.scores(protocol)?;
            let weighting = Weighting {
                averaging: protocol.averaging,
                photos: &photos,
            };
            let concepts = self.experiment.concepts.iter();
            let concepts = concepts.map(|c| (c.name.as_str(), c.images.as_path()));
            let encoders = &self.experiment.evaluation.encoders;
            let tables = Tables {
                scores: &scores,
                checks: &checks(&images, protocol, &scores),
                weighting,
                protocol: &protocol_json(protocol, encoders, concepts)?,
            };
            let written = tables.write(self.results, &suffix)?;
            outcome.files.extend(written.files);
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

    fn file(&self, name: &str) -> PathBuf {
        self.results.join(name)
    }

    fn draw(&self) -> Result<()> {
        let experiment = self.experiment;
        let total: usize = self
            .cells
            .iter()
            .map(|cell| wanted(experiment, cell).len())
            .sum();
        let progress = Mutex::new(Progress::new("images", 0, total as u64));
        let on_image = || {
            if let Ok(mut progress) = progress.lock() {
                progress.advance("");
            }
        };
        self.workers.for_each(&self.cells, |cell| {
            let painting = images::Painting {
                experiment,
                cell,
                results: self.results,
                base: &self.base,
                stop: self.stop,
            };
            painting.draw(&on_image)
        })?;
        if let Ok(progress) = progress.lock() {
            progress.finish();
        }
        Ok(())
    }

    fn tokens(&self) -> Result<Vec<TokenRow>> {
        let mut rows = Vec::new();
        for cell in &self.cells {
            rows.extend(self.reader.rows(cell, &self.base, self.results)?);
        }
        Ok(rows)
    }

    fn curves(&self) -> Result<Vec<CurveRow>> {
        let mut rows = Vec::new();
        for cell in &self.cells {
            let Some(run) = &cell.run else { continue };
            let metrics = run.folder(self.results).join(METRICS);
            let variant = &self.experiment.variants[cell.variant].name;
            let concept = &self.experiment.concepts[cell.concept].name;
            rows.extend(curves::read(&metrics, variant, concept, cell.seed)?);
        }
        Ok(rows)
    }

    /// Measures the claims, if there are any and enough concepts or seeds for an interval.
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

    /// The first concept and the first seed: photos, then one row per prompt and one column per
    /// variant; only their foregrounds, as masked protocols compare them, if wanted.
    fn grid(&self, name: &str, foregrounds: bool) -> Result<()> {
        let experiment = self.experiment;
        let first = |cell: &&Cell| cell.concept == 0 && cell.seed == experiment.seeds[0];
        let concept = &experiment.concepts[0];
        let word = concept.super_category.as_str();
        let apply = |images: Vec<RgbImage>, masks: Vec<GrayImage>| -> Vec<RgbImage> {
            let pairs = images.iter().zip(&masks);
            pairs.map(|(image, mask)| masked(image, mask)).collect()
        };
        let files = PhotoFolder::read(&concept.images)?.files;
        let mut photos = load_images(files.iter().map(PathBuf::as_path))?;
        if foregrounds {
            let folder = &concept.images;
            let gallery = &self.gallery;
            let masks = gallery.photo_masks(folder, &files, &photos, None, Some(word))?;
            photos = apply(photos, masks);
        }
        let mut columns = Vec::new();
        for cell in self.cells.iter().filter(first) {
            let images = wanted(experiment, cell).into_iter();
            let images = images.filter(|image| image.image == 0);
            let files: Vec<PathBuf> = images.map(|i| self.results.join(i.file)).collect();
            let mut images = load_images(files.iter().map(PathBuf::as_path))?;
            if foregrounds {
                let masks = self.gallery.masks(&images, &vec![word; images.len()])?;
                images = apply(images, masks);
            }
            columns.push((experiment.variants[cell.variant].name.clone(), images));
        }
        let prompts = experiment.prompts_for(concept).into_iter();
        let rows: Vec<String> = prompts.map(|prompt| prompt.prompt).collect();
        report::grid::draw_grid(&self.file(name), &photos, &columns, &rows)
    }
}

/// Refuses protocols whose pairing the numbers of images and photos do not allow.
fn check_counts(experiment: &Experiment, protocols: &[&Protocol]) -> Result<()> {
    for concept in &experiment.concepts {
        let prompts = experiment.prompts_for(concept).len();
        let images = prompts * experiment.sampling.images_per_prompt;
        let photos = PhotoFolder::read(&concept.images)?.files.len();
        for protocol in protocols {
            protocol.check_counts(&format!("concept `{}`", concept.name), images, photos)?;
        }
    }
    Ok(())
}

/// Makes the folder of results and keeps others out of it.
fn lock(results: &Path) -> Result<File> {
    let runs = results.join("runs");
    let unwritable = || {
        format!(
            "{}: results cannot be written here; name another folder with --results",
            results.display()
        )
    };
    std::fs::create_dir_all(&runs).with_context(unwritable)?;
    let file = File::create(runs.join(".lock")).with_context(unwritable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(anyhow!(
            "{}: another core-eval is at work here; wait for it, or name another folder with \
             --results",
            results.display()
        )),
        Err(TryLockError::Error(error)) => Err(error).with_context(unwritable),
    }
}
