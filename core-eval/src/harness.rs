//! An experiment from its file to its tables: train, draw, score, report. What is already there is
//! reused, so that the command can be given again at any time.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use core_model::device::parse_device;
use core_model::files::write_atomically;
use core_model::folder::ModelFolder;
use core_model::photos::PhotoFolder;
use core_train::estimate::duration;
use core_train::interrupt::stop_on_ctrl_c;
use core_train::progress::Progress;
use core_train::run_dir::METRICS;
use image::{GrayImage, RgbImage};

use crate::checks::checks;
use crate::commands::experiment::ExperimentArgs;
use crate::commands::say;
use crate::curves::{self, CurveRow};
use crate::effects::{self, Evidence};
use crate::experiment::Experiment;
use crate::gallery::{Gallery, ImageFeatures};
use crate::images::{self, wanted};
use crate::masks::masked;
use crate::metrics::Metric;
use crate::pictures::load_images;
use crate::plan::{Cell, plan};
use crate::protocol::Protocol;
use crate::provenance::protocol_json;
use crate::report::{self, ScoreTable, Table, TokenRow, Weighting};
use crate::scoring::{self, ScoredImages};
use crate::tokens::Reader;
use crate::workers::Workers;
use crate::{dry_run, training};

/// Where results go when nothing else is said.
const RESULTS: &str = "results";

/// Runs, or with `--dry-run` only describes, an experiment.
///
/// # Errors
/// Everything that is wrong with the file and what it refers to, before any work; later failures
/// leave what was done, and the next call goes on from there.
pub fn run(args: &ExperimentArgs) -> Result<()> {
    let mut experiment = Experiment::load(&args.experiment)?;
    if let Some(device) = &args.device {
        experiment.device.clone_from(device);
    }
    if args.quick {
        experiment = experiment.quick();
    }
    let experiment = experiment.only(&args.variants)?;
    let results = args.results.clone().unwrap_or_else(|| RESULTS.into());
    let results = results.join(&experiment.name);
    if args.dry_run {
        return dry_run::run(&experiment, &results);
    }
    // Nothing is fetched for an experiment that lacks something else.
    if !dry_run::can_be_had(&experiment) {
        bail!(
            "{}; put the folders there (experiments/README.md says what they hold) or name others \
             in the file",
            dry_run::missing(&experiment).join("; ")
        );
    }
    let (experiment, model) = experiment.located()?;
    let harness = Harness::new(&experiment, model, results)?;
    harness.run()
}

/// An experiment with everything loaded and checked that does not come from training.
struct Harness<'a> {
    experiment: &'a Experiment,
    model: ModelFolder,
    results: PathBuf,
    protocols: Vec<&'static Protocol>,
    gallery: Gallery,
    /// The photos of every concept.
    photos: Vec<Option<Vec<ImageFeatures>>>,
    reader: Reader<'a>,
    cells: Vec<Cell>,
    workers: Workers,
    stop: Arc<AtomicBool>,
    /// Held while the program runs, so that no second one writes to the same folder.
    _lock: File,
}

impl<'a> Harness<'a> {
    fn new(experiment: &'a Experiment, model: ModelFolder, results: PathBuf) -> Result<Self> {
        let device = parse_device(&experiment.device)?;
        model.weights().precision.check(&experiment.device)?;
        let protocols = experiment.evaluation.protocols()?;
        for protocol in &protocols {
            for prompt in &experiment.prompts {
                let file = || experiment.sampling.prompts.display().to_string();
                protocol.check_kind(&prompt.kind).with_context(file)?;
            }
        }
        let evaluation = &experiment.evaluation;
        check_counts(experiment, &protocols)?;
        let gallery = Gallery::load(&evaluation.encoders, &device)?;
        let photos = scoring::photos(experiment, &protocols, &gallery)?;
        let reader = Reader::load(experiment, &model, &device)?;
        reader.check_prompts()?;
        let cells = plan(experiment, &model)?;
        let lock = lock(&results)?;
        let workers = Workers::for_model(model.path(), &experiment.device);
        Ok(Self {
            experiment,
            model,
            results,
            protocols,
            gallery,
            photos,
            reader,
            cells,
            workers,
            // Without the handler Ctrl-C ends the program at once, and the next call goes on all the same.
            stop: stop_on_ctrl_c().unwrap_or_default(),
            _lock: lock,
        })
    }

    fn run(&self) -> Result<()> {
        let start = Instant::now();
        training::train(
            &self.cells,
            &self.model,
            &self.results,
            self.workers,
            &self.stop,
        )?;
        self.draw()?;
        let tokens = self.tokens()?;
        let curves = self.curves()?;
        let mut written = vec!["tokens.csv".to_string(), "curves.csv".to_string()];
        report::write_rows(&self.file("tokens.csv"), &tokens)?;
        report::write_rows(&self.file("curves.csv"), &curves)?;
        let images = ScoredImages::new(
            self.experiment,
            &self.cells,
            &self.protocols,
            &self.results,
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
            written.extend(self.report(protocol, &suffix, &scores, weighting, &images)?);
            if index == 0 && self.effects(&scores, weighting, &tokens, &curves)? {
                written.push("effects.csv".to_string());
            }
        }
        for plot in report::plot::draw_all(&self.results)? {
            let name = plot.strip_prefix(&self.results).unwrap_or(&plot);
            written.push(name.display().to_string());
        }
        self.grid("grid.png", false)?;
        written.push("grid.png".to_string());
        if self.protocols.iter().any(|protocol| protocol.masked) {
            self.grid("foregrounds.png", true)?;
            written.push("foregrounds.png".to_string());
        }
        say(&format!(
            "\n{} in {}: {}",
            duration(start.elapsed().as_secs_f64()),
            self.results.display(),
            written.join(", ")
        ));
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
                results: &self.results,
                model: &self.model,
                stop: &self.stop,
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
            rows.extend(self.reader.rows(cell, &self.results)?);
        }
        Ok(rows)
    }

    fn curves(&self) -> Result<Vec<CurveRow>> {
        let mut rows = Vec::new();
        for cell in &self.cells {
            let Some(run) = &cell.run else { continue };
            let metrics = run.folder(&self.results).join(METRICS);
            let variant = &self.experiment.variants[cell.variant].name;
            let concept = self.experiment.concepts[cell.concept].name();
            rows.extend(curves::read(&metrics, variant, &concept, cell.seed)?);
        }
        Ok(rows)
    }

    /// Scores, summary, table and protocol; returns the names of the files.
    fn report(
        &self,
        protocol: &Protocol,
        suffix: &str,
        scores: &ScoreTable,
        weighting: Weighting<'_>,
        images: &ScoredImages<'_>,
    ) -> Result<Vec<String>> {
        let variants = self.experiment.variants.iter();
        let variants: Vec<String> = variants.map(|variant| variant.name.clone()).collect();
        let [
            scores_file,
            summary_file,
            checks_file,
            table_file,
            protocol_file,
        ] = [
            ("scores", "csv"),
            ("summary", "csv"),
            ("checks", "csv"),
            ("table", "md"),
            ("protocol", "json"),
        ]
        .map(|(stem, ending)| format!("{stem}{suffix}.{ending}"));
        scores.write(&self.file(&scores_file))?;
        let summary = report::summarize(scores, &variants, weighting);
        report::write_rows(&self.file(&summary_file), &summary)?;
        let checks = checks(images, protocol, scores);
        report::write_rows(&self.file(&checks_file), &checks)?;
        let table = report::table_markdown(&Table {
            metrics: &scores.metrics,
            summary: &summary,
            checks: &checks,
            variants: &variants,
            seeds: self.experiment.seeds.len(),
            averaging: protocol.averaging,
        });
        write_atomically(&self.file(&table_file), table.as_bytes())?;
        let concepts = self.experiment.concepts.iter();
        let concepts = concepts.filter_map(|concept| {
            let config = concept.config.as_ref()?;
            Some((config.name.as_str(), config.images.as_path()))
        });
        let encoders = &self.experiment.evaluation.encoders;
        let text = protocol_json(protocol, encoders, concepts)?;
        write_atomically(&self.file(&protocol_file), text.as_bytes())?;
        say(&format!(
            "\n{}, protocol {}\n",
            self.experiment.name, protocol.name
        ));
        say(table.trim_end());
        Ok(vec![
            scores_file,
            summary_file,
            checks_file,
            table_file,
            protocol_file,
        ])
    }

    /// Measures, prints and writes the claims, if there are any.
    fn effects(
        &self,
        scores: &ScoreTable,
        weighting: Weighting<'_>,
        tokens: &[TokenRow],
        curves: &[CurveRow],
    ) -> Result<bool> {
        let experiment = self.experiment;
        if experiment.effects.is_empty() {
            return Ok(false);
        }
        if experiment.concepts.len() * experiment.seeds.len() < 2 {
            say("\neffects: an interval needs two concepts or seeds; none measured");
            return Ok(false);
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
        let rows = effects::measure(&experiment.effects, evidence)?;
        report::write_rows(&self.file("effects.csv"), &rows)?;
        say("\nEffects, 95 % intervals:");
        for row in &rows {
            let verdict = if row.holds { "holds" } else { "does not hold" };
            say(&format!(
                "{verdict}: {}: {:.4} [{:.4}, {:.4}], n = {}",
                row.name, row.mean, row.low, row.high, row.n
            ));
        }
        Ok(true)
    }

    /// The first concept and the first seed: photos, then a row a prompt and a column a variant;
    /// only their foregrounds, as masked protocols see them, if wanted.
    fn grid(&self, name: &str, foregrounds: bool) -> Result<()> {
        let experiment = self.experiment;
        let first = |cell: &&Cell| cell.concept == 0 && cell.seed == experiment.seeds[0];
        let Some(concept) = &experiment.concepts[0].config else {
            return Ok(());
        };
        let word = concept.super_category.as_str();
        let apply = |pictures: Vec<RgbImage>, masks: Vec<GrayImage>| -> Vec<RgbImage> {
            let pairs = pictures.iter().zip(&masks);
            pairs.map(|(picture, mask)| masked(picture, mask)).collect()
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
            let mut pictures = load_images(files.iter().map(PathBuf::as_path))?;
            if foregrounds {
                let words = vec![word; pictures.len()];
                let masks = self.gallery.masks(&pictures, &words)?;
                pictures = apply(pictures, masks);
            }
            columns.push((experiment.variants[cell.variant].name.clone(), pictures));
        }
        let prompts = experiment.prompts_for(concept).into_iter();
        let rows: Vec<String> = prompts.map(|prompt| prompt.prompt).collect();
        report::grid::draw_grid(&self.file(name), &photos, &columns, &rows)
    }
}

/// Refuses protocols whose pairing the numbers of images and photos do not allow.
fn check_counts(experiment: &Experiment, protocols: &[&Protocol]) -> Result<()> {
    for concept in &experiment.concepts {
        let Some(config) = &concept.config else {
            continue;
        };
        let prompts = experiment.prompts_for(config).len();
        let images = prompts * experiment.sampling.images_per_prompt;
        let photos = PhotoFolder::read(&config.images)?.files.len();
        for protocol in protocols {
            protocol.check_counts(&format!("concept `{}`", concept.name()), images, photos)?;
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
