//! An experiment from its file to its tables: train, draw, score, report. What is already there is
//! reused, so that the command can be given again at any time.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use core_model::device::parse_device;
use core_model::image_processor::load_image;
use core_train::data::concept::photo_files;
use core_train::environment::model_files;
use core_train::progress::Progress;
use core_train::run_dir::{METRICS, Unfinished};
use core_train::{RunOptions, estimate};

use crate::commands::experiment::ExperimentArgs;
use crate::curves::{self, CurveRow};
use crate::effects::{self, EffectRow, Evidence};
use crate::experiment::{Experiment, OneOrMore};
use crate::images::{self, is_trained, wanted};
use crate::metrics::{Judges, mean_cosine};
use crate::plan::{Cell, PlannedRun, describe, plan};
use crate::protocol::Protocol;
use crate::report::{self, ScoreRow, TokenRow};
use crate::{tokens, workers};

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
    let results = args
        .results
        .clone()
        .unwrap_or_else(|| PathBuf::from(RESULTS));
    let harness = Harness {
        results: results.join(&experiment.name),
        experiment,
    };
    if args.dry_run {
        harness.describe()
    } else {
        harness.run()
    }
}

struct Harness {
    experiment: Experiment,
    results: PathBuf,
}

impl Harness {
    /// Prints what would be done.
    fn describe(&self) -> Result<()> {
        let experiment = &self.experiment;
        say(&format!(
            "{}: {} variants x {} concepts x {} seeds, results in {}",
            experiment.name,
            experiment.variants.len(),
            experiment.concepts.len(),
            experiment.seeds.len(),
            self.results.display()
        ));
        if let Some(missing) = self.missing() {
            for variant in &experiment.variants {
                for concept in &experiment.concepts {
                    for seed in &experiment.seeds {
                        say(&format!("  {}", describe(variant, concept, *seed)));
                    }
                }
            }
            missing.iter().for_each(|line| say(line));
            return Ok(());
        }
        let cells = plan(experiment)?;
        let mut seconds = 0.0;
        let mut memory = None;
        let mut measured: Vec<(usize, f64)> = Vec::new();
        let todo = self.runs_to_do(&cells);
        for cell in &cells {
            let state = match &cell.run {
                None => "untuned".to_string(),
                Some(run) if is_trained(run, &self.results) => format!("{} done", run.address),
                Some(run) if todo.iter().any(|other| other.address == run.address) => {
                    format!("{} to train", run.address)
                }
                Some(run) => run.address.clone(),
            };
            let (variant, concept) = (
                &experiment.variants[cell.variant],
                &experiment.concepts[cell.concept],
            );
            say(&format!(
                "  {}: {state}",
                describe(variant, concept, cell.seed)
            ));
        }
        for run in &todo {
            let variant = cells
                .iter()
                .find(|cell| cell.run.as_ref().is_some_and(|r| r.address == run.address))
                .map_or(0, |cell| cell.variant);
            let known = measured
                .iter()
                .find(|(other, _)| *other == variant)
                .map(|(_, s)| *s);
            seconds += match known {
                Some(seconds) => seconds,
                None => {
                    let estimate = estimate::measure(&run.config, None)?;
                    memory = memory.max(estimate.peak_memory);
                    measured.push((variant, estimate.seconds));
                    estimate.seconds
                }
            };
        }
        let images: usize = cells
            .iter()
            .flat_map(|cell| wanted(experiment, cell))
            .filter(|image| !self.results.join(&image.file).exists())
            .count();
        say(&format!(
            "{} runs to train, about {:.0} minutes on one core each, {} workers; {images} images to draw",
            todo.len(),
            seconds / 60.0,
            workers::count()
        ));
        if let Some(memory) = memory {
            say(&format!(
                "peak memory of a run about {} MB",
                memory / 1_000_000
            ));
        }
        Ok(())
    }

    /// What is absent, in words; `None` when everything is there.
    fn missing(&self) -> Option<Vec<String>> {
        let experiment = &self.experiment;
        let mut missing = Vec::new();
        if !experiment.model.path.join("model_index.json").exists() {
            missing.push(format!(
                "no estimate: model not present ({})",
                experiment.model.path.display()
            ));
        }
        for concept in experiment
            .concepts
            .iter()
            .filter(|concept| concept.config.is_none())
        {
            missing.push(format!(
                "concept folder not present: {}",
                concept.folder.display()
            ));
        }
        for folder in [&experiment.evaluation.clip, &experiment.evaluation.dino] {
            if !folder.join("config.json").exists() {
                missing.push(format!(
                    "evaluation model not present: {}",
                    folder.display()
                ));
            }
        }
        (!missing.is_empty()).then_some(missing)
    }

    fn run(&self) -> Result<()> {
        let start = Instant::now();
        let experiment = &self.experiment;
        let device = parse_device(&experiment.device)?;
        let protocols = protocols(&experiment.evaluation.protocol)?;
        if let Some(missing) = self.missing() {
            bail!(
                "{}; put the folders there (see experiments/README.md) or name others in the file",
                missing.join("; ")
            );
        }
        std::fs::create_dir_all(&self.results)
            .with_context(|| format!("{}: cannot write results here", self.results.display()))?;
        let cells = plan(experiment)?;
        self.train(&cells)?;
        self.draw(&cells)?;
        let tokens = self.tokens(&cells)?;
        report::write_rows(&self.results.join("tokens.csv"), &tokens)?;
        let curves = self.curves(&cells)?;
        report::write_rows(&self.results.join("curves.csv"), &curves)?;
        let names: Vec<String> = experiment.variants.iter().map(|v| v.name.clone()).collect();
        let measured = self.features(&cells, &device)?;
        for (index, protocol) in protocols.iter().enumerate() {
            let suffix = if index == 0 {
                String::new()
            } else {
                format!("-{}", protocol.name())
            };
            let scores = self.score(&cells, &measured, protocol)?;
            let file =
                |stem: &str, ending: &str| self.results.join(format!("{stem}{suffix}.{ending}"));
            report::write_rows(&file("scores", "csv"), &scores)?;
            let summary = report::summarize(&scores, &names);
            report::write_rows(&file("summary", "csv"), &summary)?;
            let table = report::table_markdown(&summary, &names);
            core_model::files::write_atomically(&file("table", "md"), table.as_bytes())?;
            let evaluation = &experiment.evaluation;
            let text = protocol.to_json(&evaluation.clip, &evaluation.dino)?;
            core_model::files::write_atomically(&file("protocol", "json"), text.as_bytes())?;
            say(&format!("\n{table}"));
            if index == 0 {
                self.effects(&scores, &tokens, &curves)?;
            }
        }
        report::plot::draw_all(&self.results)?;
        self.grid(&cells)?;
        say(&format!(
            "done in {:.1} minutes; scores, tables, plots/ and grid.png are in {}",
            start.elapsed().as_secs_f64() / 60.0,
            self.results.display()
        ));
        Ok(())
    }

    /// The runs that are not there yet, each once.
    fn runs_to_do<'a>(&self, cells: &'a [Cell]) -> Vec<&'a PlannedRun> {
        let mut runs: Vec<&PlannedRun> = Vec::new();
        for run in cells.iter().filter_map(|cell| cell.run.as_ref()) {
            let is_new = runs.iter().all(|other| other.address != run.address);
            if is_new && !is_trained(run, &self.results) {
                runs.push(run);
            }
        }
        runs
    }

    fn train(&self, cells: &[Cell]) -> Result<()> {
        let runs = self.runs_to_do(cells);
        if runs.is_empty() {
            return Ok(());
        }
        let folder = self.results.join("runs");
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let steps = |run: &PlannedRun| run.config.stages.iter().map(|s| s.steps as u64).sum();
        let total: u64 = runs.iter().map(|run| steps(run)).sum::<u64>();
        // Long runs first, so that no worker is left with one at the end.
        let mut runs = runs;
        runs.sort_by_key(|run| std::cmp::Reverse(cost(run)));
        let progress = Mutex::new(Progress::new("training steps", 0, total));
        let stop = AtomicBool::new(false);
        workers::for_each(&runs, |run| {
            let options = RunOptions {
                output: &run.folder(&self.results),
                unfinished: Unfinished::Resume,
                replay: None,
                stop: &stop,
                show_progress: false,
            };
            core_train::run(&run.config, &options)?;
            if let Ok(mut progress) = progress.lock() {
                for _ in 0..steps(run) {
                    progress.advance(&run.config.concept.name);
                }
            }
            Ok(())
        })?;
        if let Ok(progress) = progress.lock() {
            progress.finish();
        }
        Ok(())
    }

    fn draw(&self, cells: &[Cell]) -> Result<()> {
        let experiment = &self.experiment;
        let model = format!("{:?}", model_files(&experiment.model.path)?);
        let total: usize = cells
            .iter()
            .map(|cell| wanted(experiment, cell).len())
            .sum();
        let progress = Mutex::new(Progress::new("images", 0, total as u64));
        let on_image = || {
            if let Ok(mut progress) = progress.lock() {
                progress.advance("");
            }
        };
        workers::for_each(cells, |cell| {
            images::draw(experiment, cell, &self.results, &model, &on_image)
        })?;
        if let Ok(progress) = progress.lock() {
            progress.finish();
        }
        Ok(())
    }

    fn tokens(&self, cells: &[Cell]) -> Result<Vec<TokenRow>> {
        let mut rows = Vec::new();
        for cell in cells {
            rows.extend(tokens::rows(&self.experiment, cell, &self.results)?);
        }
        Ok(rows)
    }

    fn curves(&self, cells: &[Cell]) -> Result<Vec<CurveRow>> {
        let mut rows = Vec::new();
        for cell in cells {
            let Some(run) = &cell.run else { continue };
            let metrics = run.folder(&self.results).join(METRICS);
            let variant = &self.experiment.variants[cell.variant].name;
            let concept = self.experiment.concepts[cell.concept].name();
            rows.extend(curves::read(&metrics, variant, &concept, cell.seed)?);
        }
        Ok(rows)
    }

    /// Features of photos and images, once for all protocols.
    fn features(&self, cells: &[Cell], device: &Device) -> Result<Measured> {
        let evaluation = &self.experiment.evaluation;
        let judges = Judges::load(&evaluation.clip, &evaluation.dino, device)?;
        let mut references = Vec::new();
        for concept in &self.experiment.concepts {
            let Some(config) = &concept.config else {
                continue;
            };
            let files = photo_files(&config.images)?;
            let photos = files
                .iter()
                .map(|f| load_image(f))
                .collect::<core_model::Result<Vec<_>>>()?;
            references.push([
                judges.clip_image_features(&photos)?,
                judges.dino_features(&photos)?,
            ]);
        }
        let total: usize = cells
            .iter()
            .map(|cell| wanted(&self.experiment, cell).len())
            .sum();
        let mut progress = Progress::new("scores", 0, total as u64);
        let mut images = Vec::new();
        for cell in cells {
            let Some(concept) = &self.experiment.concepts[cell.concept].config else {
                continue;
            };
            let wanted = wanted(&self.experiment, cell);
            let pictures = wanted
                .iter()
                .map(|image| load_image(&self.results.join(&image.file)))
                .collect::<core_model::Result<Vec<_>>>()?;
            let prompts: Vec<String> = wanted
                .iter()
                .map(|image| {
                    core_train::data::prompts::fill(&image.prompt.prompt, &concept.super_category)
                })
                .collect();
            images.push([
                judges.clip_image_features(&pictures)?,
                judges.dino_features(&pictures)?,
                judges.text_features(&prompts)?,
            ]);
            wanted.iter().for_each(|_| progress.advance(""));
        }
        progress.finish();
        Ok(Measured { references, images })
    }

    fn score(
        &self,
        cells: &[Cell],
        measured: &Measured,
        protocol: &Protocol,
    ) -> Result<Vec<ScoreRow>> {
        protocol.check_masks(false)?;
        let mut rows = Vec::new();
        for (cell, [clip, dino, text]) in cells.iter().zip(&measured.images) {
            let Some(concept) = &self.experiment.concepts[cell.concept].config else {
                continue;
            };
            let [clip_references, dino_references] = &measured.references[cell.concept];
            for (index, image) in wanted(&self.experiment, cell).into_iter().enumerate() {
                let counts = protocol.scores_identity(&image.prompt.kind);
                let identity = |features: &[f32], references: &[Vec<f32>]| {
                    counts.then(|| mean_cosine(features, references))
                };
                rows.push(ScoreRow {
                    variant: self.experiment.variants[cell.variant].name.clone(),
                    concept: concept.name.clone(),
                    seed: cell.seed,
                    group: image.prompt.group.name().to_string(),
                    kind: image.prompt.kind.clone(),
                    prompt: image.prompt.prompt.clone(),
                    image: image.file.to_string_lossy().replace('\\', "/"),
                    clip_t: crate::metrics::cosine(&clip[index], &text[index]),
                    clip_i: identity(&clip[index], clip_references),
                    dino: identity(&dino[index], dino_references),
                });
            }
        }
        Ok(rows)
    }

    fn effects(&self, scores: &[ScoreRow], tokens: &[TokenRow], curves: &[CurveRow]) -> Result<()> {
        if self.experiment.effects.is_empty() {
            return Ok(());
        }
        if self.experiment.concepts.len() * self.experiment.seeds.len() < 2 {
            say("effects: an interval needs two concepts or seeds; none measured");
            return Ok(());
        }
        let difference = |metric: &str, variant: &str, baseline: &str| {
            let names = [baseline.to_string(), variant.to_string()];
            let chosen: Vec<ScoreRow> = scores
                .iter()
                .filter(|row| names.contains(&row.variant))
                .cloned()
                .collect();
            report::summarize(&chosen, &names).into_iter().find(|row| {
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
        let rows = effects::measure(&self.experiment.effects, evidence)?;
        report::write_rows(&self.results.join("effects.csv"), &rows)?;
        for EffectRow {
            name,
            mean,
            low,
            high,
            n,
            holds,
            ..
        } in &rows
        {
            let verdict = if *holds { "holds" } else { "does not hold" };
            say(&format!(
                "{verdict}: {name}: {mean:.4} [{low:.4}, {high:.4}], n = {n}"
            ));
        }
        Ok(())
    }

    /// The first concept and the first seed: photos, then a row a prompt and a column a variant.
    fn grid(&self, cells: &[Cell]) -> Result<()> {
        let experiment = &self.experiment;
        let first = |cell: &&Cell| cell.concept == 0 && cell.seed == experiment.seeds[0];
        let Some(concept) = &experiment.concepts[0].config else {
            return Ok(());
        };
        let files = photo_files(&concept.images)?;
        let photos = files
            .iter()
            .map(|f| load_image(f))
            .collect::<core_model::Result<Vec<_>>>()?;
        let mut columns = Vec::new();
        for cell in cells.iter().filter(first) {
            let pictures = wanted(experiment, cell)
                .iter()
                .filter(|image| image.image == 0)
                .map(|image| load_image(&self.results.join(&image.file)))
                .collect::<core_model::Result<Vec<_>>>()?;
            columns.push((experiment.variants[cell.variant].name.clone(), pictures));
        }
        let rows: Vec<String> = experiment
            .prompts_for(concept)
            .into_iter()
            .map(|prompt| prompt.prompt)
            .collect();
        report::grid::draw_grid(&self.results.join("grid.png"), &photos, &columns, &rows)
    }
}

/// The features of photos by concept, [CLIP, DINO], and of images by cell, [CLIP, DINO, text].
struct Measured {
    references: Vec<[Vec<Vec<f32>>; 2]>,
    images: Vec<[Vec<Vec<f32>>; 3]>,
}

/// A guess at how long a run takes, good enough to put the long ones first: regularised steps cost
/// three times as much.
fn cost(run: &PlannedRun) -> usize {
    let of = |stage: &core_train::config::StageConfig| {
        stage.steps * stage.batch_size * if stage.regularizers.is_empty() { 1 } else { 3 }
    };
    run.config.stages.iter().map(of).sum()
}

fn protocols(names: &OneOrMore) -> Result<Vec<Protocol>> {
    names.names().into_iter().map(Protocol::named).collect()
}

fn say(line: &str) {
    #[expect(clippy::print_stdout, reason = "the report is what the command is for")]
    {
        println!("{line}");
    }
}
