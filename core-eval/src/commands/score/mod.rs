//! `core-eval score`: the scores of images of any origin.

mod concepts;
mod encoders;
mod input;
mod items;
mod layout;
mod results;
mod scoring;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use clap::{ArgGroup, Args};
use core_model::device::parse_device;
use core_model::files::write_atomically;
use core_model::folder::EncoderFolder;
use core_model::photos::PhotoFolder;
use core_model::source::EncoderSource;
use core_train::data::landmarks::{HOW, LandmarkFile};
use serde_json::{Map, Value};

use super::say;
use core_eval::gallery::Gallery;
use core_eval::judge::{JudgeCommand, Question};
use core_eval::metrics::{Compared, EncoderFolders, FaceInput, Metric};
use core_eval::protocol::Protocol;
use core_eval::provenance::protocol_json;

use concepts::{ConceptPhotos, Concepts, photos_of_concepts};
use encoders::EncoderArgs;
use input::Input;
use layout::Layout;
use results::Results;
use scoring::Scoring;
use table::Scored;

/// Arguments of `core-eval score`.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["generated", "images"])))]
#[command(group(ArgGroup::new("text").args(["prompt", "prompts"])))]
pub(crate) struct ScoreArgs {
    /// Folder of images, in the layout that --layout says
    #[arg(long, value_name = "DIR")]
    generated: Option<PathBuf>,
    /// How the folder of images is laid out
    #[arg(
        long,
        value_name = "NAME",
        default_value = "auto",
        conflicts_with = "images"
    )]
    layout: Layout,
    /// CSV with the columns image,concept,prompt,kind; paths are relative to it
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    images: Option<PathBuf>,
    /// Folder of photos; where images belong to several concepts, one folder of photos for each in it
    #[arg(long, value_name = "DIR")]
    references: Option<PathBuf>,
    /// The prompt of all images; {} stands for the concept that the photos' concept.toml names
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// CSV with the columns image,prompt
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    #[command(flatten)]
    encoders: EncoderArgs,
    #[arg(long, value_name = "NAME", default_value = "dreambooth", help = protocol_help())]
    protocol: String,
    /// Masks of the images: same names, png, white where the concept is
    #[arg(long, value_name = "DIR")]
    generated_masks: Option<PathBuf>,
    /// Masks of the photos: same names, png [default: masks/ beside them, else by --clipseg]
    #[arg(long, value_name = "DIR")]
    references_masks: Option<PathBuf>,
    /// Folder of a CLIPSeg model as transformers writes it, which makes the masks
    #[arg(long, value_name = "DIR", conflicts_with = "generated_masks")]
    clipseg: Option<PathBuf>,
    /// CSV with the columns image,x1,y1,.. of 5 or 68 points, for an identity encoder that reads aligned
    /// faces; images are named as in the output, those without a row show no face
    #[arg(long, value_name = "FILE")]
    landmarks: Option<PathBuf>,
    /// The base model's images on the same noise, with the same names; adds the column `drift`
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// The prompt of the base model's images; {} stands for the class word; adds `clip_direction`
    #[arg(long, value_name = "TEXT", requires = "base")]
    base_prompt: Option<String>,
    /// Program with arguments that gets a line of JSON per image and answers a number per line
    #[arg(long, value_name = "CMD")]
    judge_command: Option<String>,
    /// How many seconds the judge command's next answer may take
    #[arg(
        long,
        value_name = "N",
        default_value_t = 300,
        requires = "judge_command"
    )]
    judge_seconds: u64,
    /// cpu, wgpu[:i] or cuda[:i]
    #[arg(long, default_value = "cpu")]
    device: String,
    /// The CSV to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print scores, means and protocol as JSON
    #[arg(long)]
    json: bool,
    /// Also write a results folder as an experiment has it, with the report page
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
}

fn protocol_help() -> String {
    let names: Vec<&str> = Protocol::names().collect();
    format!("How scores are computed: {}", names.join(", "))
}

/// Scores the images, writes the CSV and the protocol, and prints the means.
///
/// # Errors
/// Absent folders and files, images without prompts, models that cannot be used, absent masks: all are
/// found before the first image is scored. A damaged image is found when it is read, and a judge command
/// fails when it is asked; what was scored before is written beside the CSV.
pub(crate) fn run(args: &ScoreArgs) -> Result<()> {
    let device = parse_device(&args.device)?;
    let judge = args.judge()?;
    let args = &args.located()?;
    let protocol = Protocol::named(&args.protocol)?;
    check_writable(&args.out)?;
    let input = Input::read(args, protocol)?;
    let folders = args.folders();
    let mut gallery = Gallery::new(&folders, &device, None)?;
    let faces = gallery.face_input();
    let masks = args.generated_masks.is_some() || args.clipseg.is_some();
    protocol.check_masks(masks, faces == Some(FaceInput::WholeImage))?;
    let landmarks = args.landmarks(faces, &input)?;
    let concepts = Concepts::read(args, &input)?;
    let texts = concepts.texts(&input.items, protocol)?;
    for item in &input.items {
        concepts.base_text(
            args.base_prompt.as_deref().unwrap_or_default(),
            &item.concept,
        )?;
    }
    let metrics = args.metrics(&folders);
    let photos = photos_of_concepts(args, &input, &mut gallery, protocol, &concepts)?;
    let mut scored = Scored {
        items: &input.items,
        texts: &texts,
        scores: Vec::with_capacity(input.items.len()),
        metrics: metrics.clone(),
        judged: None,
        with_concept: input.by_concept,
    };
    let outcome = Scoring {
        gallery: &mut gallery,
        metrics: &metrics,
        protocol,
        concepts: &concepts,
        photos: &photos,
        landmarks: landmarks.as_ref(),
        base_prompt: args.base_prompt.as_deref(),
    }
    .score(&input.items, &texts, &mut scored.scores);
    outcome.map_err(|failure| keep(&scored, &args.out, failure))?;
    if let Some(judge) = &judge {
        let outcome = ask(judge, &input, &mut scored);
        outcome.map_err(|failure| keep(&scored, &args.out, failure))?;
    }
    scored.write(&args.out)?;
    let protocol_text = args.protocol_text(protocol, &folders, &input, &photos, judge.as_ref())?;
    let beside = args.out.with_extension("protocol.json");
    write_atomically(&beside, protocol_text.as_bytes())?;
    if let Some(folder) = &args.results {
        let results = Results {
            input: &input,
            scored: &scored,
            photos: &photos,
            protocol,
            protocol_text: &protocol_text,
            name: args.name(),
        };
        results.write(folder)?;
    }
    let count = |concept: &str| photos.get(concept).map_or(1, |of| of.compared.len());
    if args.json {
        let protocol: Value = serde_json::from_str(&protocol_text)?;
        say(&serde_json::to_string_pretty(
            &scored.json(&protocol, count),
        )?);
    } else {
        say(&scored.means(count));
    }
    Ok(())
}

/// Asks the judge command about all images; its answers are kept whatever happens.
fn ask(judge: &JudgeCommand, input: &Input, scored: &mut Scored<'_>) -> Result<()> {
    let mut photos: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
    for item in scored.items {
        if !photos.contains_key(item.concept.as_str()) {
            let files = PhotoFolder::read(&input.reference_photos(&item.concept)?)?.files;
            photos.insert(&item.concept, files);
        }
    }
    let items = scored.items.iter().zip(scored.texts);
    let questions = items.map(|(item, text)| Question {
        image: &item.path,
        concept: &item.concept,
        text,
        photos: &photos[item.concept.as_str()],
    });
    let (answers, outcome) = judge.ask(&questions.collect::<Vec<_>>());
    scored.judged = Some(answers);
    outcome
}

/// Writes what was scored before a failure beside the CSV, and says so.
fn keep(scored: &Scored<'_>, out: &Path, failure: Error) -> Error {
    let kept = out.with_extension("partial.csv");
    let (count, all) = (scored.scores.len(), scored.items.len());
    if count == 0 {
        return failure;
    }
    if let Err(error) = scored.write(&kept) {
        return failure.context(format!("the scores before the failure are lost: {error:#}"));
    }
    failure.context(format!(
        "stopped after {count} of {all} images; their scores are in {}",
        kept.display()
    ))
}

/// Checks before any work that the results can be written.
fn check_writable(out: &Path) -> Result<()> {
    ensure!(
        !out.is_dir(),
        "--out {}: is a folder; name a CSV file in it",
        out.display()
    );
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    ensure!(
        folder.is_dir(),
        "--out {}: there is no folder {}; make it first",
        out.display(),
        folder.display()
    );
    tempfile::tempfile_in(folder).with_context(|| {
        format!(
            "--out {}: nothing can be written to {}; name a file in another folder",
            out.display(),
            folder.display()
        )
    })?;
    Ok(())
}

impl ScoreArgs {
    /// The same arguments with folders in place of hub repositories, which are downloaded.
    fn located(&self) -> Result<Self> {
        let mut args = self.clone();
        args.encoders.0.locate()?;
        if let Some(clipseg) = &self.clipseg {
            let folder = EncoderSource::from(clipseg.as_path()).locate()?;
            args.clipseg = Some(folder.path().to_path_buf());
        }
        Ok(args)
    }

    /// Where the faces of the images are, where a metric reads them aligned.
    fn landmarks(&self, faces: Option<FaceInput>, input: &Input) -> Result<Option<LandmarkFile>> {
        match (faces, &self.landmarks) {
            (Some(FaceInput::Aligned), Some(path)) => {
                let file = LandmarkFile::read(path).context("--landmarks")?;
                file.check_names(input.items.iter().map(|item| item.name.as_str()))?;
                Ok(Some(file))
            }
            (Some(FaceInput::Aligned), None) => bail!("name a file with --landmarks. {HOW}"),
            (_, Some(path)) => bail!(
                "--landmarks {}: has no effect, since no identity encoder reads aligned faces; drop it, or \
                 name an iResNet with --identity",
                path.display()
            ),
            (_, None) => Ok(None),
        }
    }

    fn folders(&self) -> EncoderFolders {
        let mut folders = self.encoders.0.clone();
        folders.clipseg = self.clipseg.as_ref().map(EncoderFolder::new);
        folders
    }

    /// The metrics that run: those that compare with base images only where there are some.
    fn metrics(&self, folders: &EncoderFolders) -> Vec<Metric> {
        folders.metrics_where(|metric| match metric.compared_with() {
            Compared::Text | Compared::Photos => true,
            Compared::BaseImage => self.base.is_some(),
            Compared::Direction => self.base_prompt.is_some(),
        })
    }

    fn judge(&self) -> Result<Option<JudgeCommand>> {
        let wait = Duration::from_secs(self.judge_seconds);
        let command = self.judge_command.as_ref();
        let judge = command.map(|text| JudgeCommand::new(text, wait));
        judge.transpose().context("--judge-command")
    }

    /// The name of what is scored: that of its folder or list.
    fn name(&self) -> String {
        let list = self.images.as_deref().and_then(Path::file_stem);
        let folder = self.generated.as_deref().and_then(Path::file_name);
        let name = list.or(folder).unwrap_or("images".as_ref());
        name.to_string_lossy().into_owned()
    }

    /// The text of `protocol.json`, with what only this command has.
    fn protocol_text(
        &self,
        protocol: &Protocol,
        folders: &EncoderFolders,
        input: &Input,
        photos: &BTreeMap<String, ConceptPhotos>,
        judge: Option<&JudgeCommand>,
    ) -> Result<String> {
        let concepts = photos
            .keys()
            .map(|name| Ok((name.as_str(), input.reference_photos(name)?)));
        let concepts: Vec<(&str, PathBuf)> = concepts.collect::<Result<_>>()?;
        let concepts = concepts.iter().map(|(name, path)| (*name, path.as_path()));
        let text = protocol_json(
            protocol,
            folders,
            self.base_prompt.as_deref(),
            self.landmarks.as_deref(),
            concepts,
        )?;
        let mut object: Map<String, Value> = serde_json::from_str(&text)?;
        if let Some(judge) = judge {
            object.insert("judge".into(), judge.provenance()?);
        }
        Ok(serde_json::to_string_pretty(&object)? + "\n")
    }
}
