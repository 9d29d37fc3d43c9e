//! The TOML file of `core-train pretrain`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::clip::ClipTask;
use super::clipseg::ClipSegTask;
use super::dino::DinoTask;
use super::face2diffusion::Face2DiffusionTask;
use super::identity::IdentityTask;
use super::pattern::PatternTask;
use super::photomaker::PhotoMakerTask;
use super::session::Schedule;
use super::tokenizer::TokenizerTask;
use super::unet::UnetTask;
use super::vae::VaeTask;

/// The network that a file trains.
#[derive(Debug, Clone)]
pub enum Task {
    /// `[tokenizer]`: the vocabulary of the captions.
    Tokenizer(TokenizerTask),
    /// `[vae]`: the autoencoder.
    Vae(VaeTask),
    /// `[clip]`: a text and an image encoder.
    Clip(ClipTask),
    /// `[clipseg]`: the decoder that makes foreground masks.
    ClipSeg(ClipSegTask),
    /// `[dino]`: the instance encoder.
    Dino(DinoTask),
    /// `[identity]`: the identity encoder of people.
    Identity(IdentityTask),
    /// `[pattern]`: the classifier of markings.
    Pattern(PatternTask),
    /// `[photomaker]`: PhotoMaker, which draws people from photos.
    PhotoMaker(PhotoMakerTask),
    /// `[face2diffusion]`: the mapping of Face2Diffusion, which does the same.
    Face2Diffusion(Face2DiffusionTask),
    /// `[unet]`: the U-Net, which predicts the noise.
    Unet(UnetTask),
}

/// A pretraining file, with paths relative to the working folder.
#[derive(Debug, Clone)]
pub struct PretrainConfig {
    /// Seed of weights, scenes and noise.
    pub seed: u64,
    /// Folder of the state from which training resumes.
    pub state: PathBuf,
    /// The CSV file of the learning curve; a tokenizer has none.
    pub curve: Option<PathBuf>,
    /// Length and learning rate; a tokenizer has none.
    pub schedule: Option<Schedule>,
    /// The network.
    pub task: Task,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    seed: u64,
    state: PathBuf,
    curve: Option<PathBuf>,
    schedule: Option<Schedule>,
    tokenizer: Option<TokenizerTask>,
    vae: Option<VaeTask>,
    clip: Option<ClipTask>,
    clipseg: Option<ClipSegTask>,
    dino: Option<DinoTask>,
    identity: Option<IdentityTask>,
    pattern: Option<PatternTask>,
    photomaker: Option<PhotoMakerTask>,
    face2diffusion: Option<Face2DiffusionTask>,
    unet: Option<UnetTask>,
}

impl PretrainConfig {
    /// Reads a file; paths in it are relative to it.
    ///
    /// # Errors
    /// An unreadable file, unknown keys, or not exactly one network.
    pub fn load(path: &Path) -> Result<Self> {
        let text = core_model::files::read_to_string(path)?;
        let file: File = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let base = path.parent().unwrap_or(Path::new(""));
        let tasks: Vec<Task> = [
            file.tokenizer.map(Task::Tokenizer),
            file.vae.map(Task::Vae),
            file.clip.map(Task::Clip),
            file.clipseg.map(Task::ClipSeg),
            file.dino.map(Task::Dino),
            file.identity.map(Task::Identity),
            file.pattern.map(Task::Pattern),
            file.photomaker.map(Task::PhotoMaker),
            file.face2diffusion.map(Task::Face2Diffusion),
            file.unet.map(Task::Unet),
        ]
        .into_iter()
        .flatten()
        .collect();
        let [mut task] = <[Task; 1]>::try_from(tasks).or_else(|tasks| {
            bail!(
                "{}: describes {} networks; give exactly one of [tokenizer], [vae], [clip], \
                 [clipseg], [dino], [identity], [pattern], [photomaker], [face2diffusion], [unet]",
                path.display(),
                tasks.len()
            )
        })?;
        for folder in task.paths() {
            *folder = base.join(&folder);
        }
        let absent = [
            ("[schedule]", file.schedule.is_none()),
            ("curve", file.curve.is_none()),
        ];
        for (key, absent) in absent {
            let without = matches!(task, Task::Tokenizer(_));
            if absent && !without {
                bail!("{}: {key} is missing", path.display());
            }
            if !absent && without {
                bail!("{}: a tokenizer has no {key}; remove it", path.display());
            }
        }
        if let Some(schedule) = &file.schedule {
            schedule
                .check()
                .with_context(|| path.display().to_string())?;
        }
        Ok(Self {
            seed: file.seed,
            state: base.join(file.state),
            curve: file.curve.map(|curve| base.join(curve)),
            schedule: file.schedule,
            task,
        })
    }
}

impl Task {
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Tokenizer(task) => task.outputs.iter_mut().collect(),
            Self::Vae(task) => vec![&mut task.output],
            Self::Clip(task) => task
                .output
                .iter_mut()
                .chain(&mut task.text_encoder_output)
                .chain([&mut task.tokenizer])
                .collect(),
            Self::ClipSeg(task) => vec![&mut task.output, &mut task.clip],
            Self::Dino(task) => vec![&mut task.output],
            Self::Identity(task) => vec![&mut task.output, &mut task.vae],
            Self::Pattern(task) => vec![&mut task.output],
            Self::PhotoMaker(task) => [&mut task.output, &mut task.model, &mut task.vision]
                .into_iter()
                .chain(&mut task.contact_sheet)
                .collect(),
            Self::Face2Diffusion(task) => [&mut task.output, &mut task.model]
                .into_iter()
                .chain(&mut task.contact_sheet)
                .collect(),
            Self::Unet(task) => [&mut task.model, &mut task.evaluation_clip]
                .into_iter()
                .chain(&mut task.contact_sheet)
                .collect(),
        }
    }
}
