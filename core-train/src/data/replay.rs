//! `--replay`: the randomness of the first stage from a file, so that a run can be compared number
//! by number with another implementation.
//!
//! | key | shape | |
//! |---|---|---|
//! | `latents` | [steps, batch, channels, h, w] | scaled latents of the photos |
//! | `noise` | same | |
//! | `timesteps` | [steps, batch] | integers |
//! | `prior_latents`, `prior_noise`, `prior_timesteps` | the same | of the class images; only with prior preservation |
//! | `init.<key>` | as in the set's own file | start values of what a set of weights adds; optional |
//! | `truncation` | [steps, layers, batch] | hidden units of a mapper that are kept; only with nested dropout |
//! | `prompt_index` | [steps, batch] | integers into `prompts`; only with several, and then optional |
//! | `mask` | [steps, batch, 1, h, w] | 0 and 1; only with an augmentation that gives masks |
//! | `prompt_addition` | [steps, batch] | what such an augmentation says in front of the prompt, from 1 in the order of its words, 0 for nothing; optional |
//! | `template_index` | `[steps]` | integers into `regularization_prompts`; only where a term reads a template |

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use core_model::checkpoint::Checkpoint;

use super::batch::{Batch, Samples, with_words};
use super::nested_dropout::NestedDropout;
use crate::augmentations::Augmentation as _;
use crate::config::StageConfig;
use crate::error::{Error, Result};

/// A replay file in memory.
#[derive(Debug)]
pub struct Replay {
    photos: Recorded,
    prior: Option<Recorded>,
    /// One per sample; none where the program draws them.
    prompts: Vec<usize>,
    /// One per sample; none where nothing is said in front of prompts.
    words: Vec<usize>,
    /// The number of prompts to choose from.
    count: usize,
    templates: Vec<usize>,
    /// Of every step, as in [`Batch::truncation`].
    truncations: Option<Vec<Vec<usize>>>,
}

/// The samples of all steps.
#[derive(Debug)]
struct Recorded {
    latents: Vec<f32>,
    noise: Vec<f32>,
    /// [batch, channels, h, w].
    shape: [usize; 4],
    timesteps: Vec<usize>,
    /// [steps, batch, 1, h, w], where there are masks.
    mask: Option<Vec<f32>>,
}

impl Recorded {
    fn step(&self, index: usize, prompts: Vec<usize>, device: &Device) -> Samples {
        let size: usize = self.shape.iter().product();
        let part = |values: &[f32]| {
            let values = values[index * size..(index + 1) * size].to_vec();
            Tensor::from_data(TensorData::new(values, self.shape), device)
        };
        let [batch, _, height, width] = self.shape;
        let mask = self.mask.as_ref().map(|mask| {
            let size = batch * height * width;
            let values = mask[index * size..(index + 1) * size].to_vec();
            Tensor::from_data(TensorData::new(values, [batch, 1, height, width]), device)
        });
        Samples {
            latents: part(&self.latents),
            noise: part(&self.noise),
            timesteps: self.timesteps[index * batch..(index + 1) * batch].to_vec(),
            prompts,
            mask,
        }
    }
}

/// What a replay file must match.
#[derive(Debug, Clone, Copy)]
pub struct ReplayFit<'a> {
    /// The first stage.
    pub stage: &'a StageConfig,
    /// Channels of the latents.
    pub channels: usize,
    /// Timesteps of the noise schedule.
    pub num_train_timesteps: usize,
    /// The nested dropout of the stage.
    pub nested_dropout: Option<NestedDropout>,
}

struct Reader<'a> {
    path: PathBuf,
    file: Checkpoint,
    fit: ReplayFit<'a>,
}

impl Replay {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Error::Replay`] naming the key and what it should hold.
    pub fn open(path: &Path, fit: ReplayFit<'_>) -> Result<Self> {
        let file = Checkpoint::open(path, |key| Some(key.to_string()))?;
        let reader = Reader {
            path: path.to_path_buf(),
            file,
            fit,
        };
        reader.read()
    }

    /// The batch of forward pass `index`; the prompts that the file does not have are given.
    pub(crate) fn batch(
        &self,
        index: usize,
        mut prompts: Vec<usize>,
        class_prompts: Vec<usize>,
        device: &Device,
    ) -> Batch {
        let prior = self.prior.as_ref();
        let batch = prompts.len();
        if let Some(recorded) = self.prompts.get(index * batch..(index + 1) * batch) {
            prompts = recorded.to_vec();
        }
        if let Some(words) = self.words.get(index * batch..(index + 1) * batch) {
            prompts = with_words(prompts, words, self.count);
        }
        Batch {
            photos: self.photos.step(index, prompts, device),
            prior: prior.map(|prior| prior.step(index, class_prompts, device)),
            template: self.templates.get(index).copied().unwrap_or(0),
            truncation: self.truncations.as_ref().map(|steps| steps[index].clone()),
        }
    }
}

impl Reader<'_> {
    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Replay {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    fn missing(&self, key: &str, what: &str) -> Error {
        self.refuse(format!("tensor `{key}` {what} is missing"))
    }

    fn read(&self) -> Result<Replay> {
        let ReplayFit { stage, .. } = self.fit;
        let steps = stage.steps;
        if stage.gradient_accumulation_steps != 1 {
            return Err(self.refuse(
                "a replay holds one forward pass per step; set gradient_accumulation_steps to 1",
            ));
        }
        let mut photos = self.recorded("")?;
        photos.mask = self.mask(photos.shape)?;
        let prior = stage.prior().map(|_| self.recorded("prior_"));
        let templates = match (&stage.regularization_prompts, stage.reads_templates()) {
            (Some(source), true) => {
                let count = source.templates().len();
                self.numbers("template_index", &[steps], count, "regularization_prompts'")?
            }
            _ => Vec::new(),
        };
        Ok(Replay {
            photos,
            prior: prior.transpose()?,
            prompts: self.prompts()?,
            words: self.words()?,
            count: stage.prompts.templates().len(),
            templates,
            truncations: self.truncations()?,
        })
    }

    /// The prompt of each sample, where there are several to choose from and the file chooses.
    fn prompts(&self) -> Result<Vec<usize>> {
        const KEY: &str = "prompt_index";
        let stage = self.fit.stage;
        let count = stage.prompts.templates().len();
        if count == 1 || self.file.info(KEY).is_none() {
            return Ok(Vec::new());
        }
        self.numbers(KEY, &[stage.steps, stage.batch_size], count, "prompts'")
    }

    fn truncations(&self) -> Result<Option<Vec<Vec<usize>>>> {
        let ReplayFit {
            stage,
            nested_dropout,
            ..
        } = self.fit;
        let Some(NestedDropout { layers, hidden, .. }) = nested_dropout else {
            return Ok(None);
        };
        let shape = [stage.steps, layers, stage.batch_size];
        let kept = self.numbers("truncation", &shape, hidden + 1, "the hidden units'")?;
        let steps = kept.chunks(layers * stage.batch_size);
        Ok(Some(steps.map(<[usize]>::to_vec).collect()))
    }

    /// Latents, noise and timesteps whose keys begin like this.
    fn recorded(&self, prefix: &str) -> Result<Recorded> {
        let key = |name: &str| format!("{prefix}{name}");
        let (latents, shape) = self.images(&key("latents"))?;
        let (noise, noise_shape) = self.images(&key("noise"))?;
        if shape != noise_shape {
            return Err(self.refuse(format!(
                "`{}` has shape {shape:?} but `{}` {noise_shape:?}",
                key("latents"),
                key("noise")
            )));
        }
        let (steps, batch) = (self.fit.stage.steps, self.fit.stage.batch_size);
        let limit = self.fit.num_train_timesteps;
        let timesteps = self.numbers(
            &key("timesteps"),
            &[steps, batch],
            limit,
            "the noise schedule's",
        )?;
        Ok(Recorded {
            latents,
            noise,
            shape,
            timesteps,
            mask: None,
        })
    }

    /// Where the loss looks, with an augmentation that gives masks.
    fn mask(&self, [batch, _, height, width]: [usize; 4]) -> Result<Option<Vec<f32>>> {
        const KEY: &str = "mask";
        let stage = self.fit.stage;
        if !stage.augmentation.is_some_and(|a| a.has_mask()) {
            return Ok(None);
        }
        let expected = [stage.steps, batch, 1, height, width];
        let Some((values, shape)) = self.file.read_f32(KEY)? else {
            return Err(self.missing(KEY, &format!("{expected:?} of 0 and 1")));
        };
        if shape != expected {
            return Err(self.refuse(format!(
                "`{KEY}` has shape {shape:?}, expected {expected:?}"
            )));
        }
        if let Some(other) = values.iter().find(|value| ![0.0, 1.0].contains(*value)) {
            return Err(self.refuse(format!("`{KEY}` holds {other}, expected 0 and 1")));
        }
        if values
            .chunks(height * width)
            .any(|mask| !mask.contains(&1.0))
        {
            let reason =
                format!("`{KEY}` holds no 1 for one of the samples, which has no loss then");
            return Err(self.refuse(reason));
        }
        Ok(Some(values))
    }

    /// What is said in front of each sample's prompt.
    fn words(&self) -> Result<Vec<usize>> {
        const KEY: &str = "prompt_addition";
        let stage = self.fit.stage;
        let words = stage.augmentation.map_or(0, |a| a.words().len());
        if words == 0 || self.file.info(KEY).is_none() {
            return Ok(Vec::new());
        }
        let shape = [stage.steps, stage.batch_size];
        self.numbers(KEY, &shape, words + 1, "the augmentation's")
    }

    fn images(&self, key: &str) -> Result<(Vec<f32>, [usize; 4])> {
        let ReplayFit {
            stage, channels, ..
        } = self.fit;
        let (steps, batch) = (stage.steps, stage.batch_size);
        let expected =
            format!("[{steps}, {batch}, {channels}, h, w] (steps, batch_size, channels, sides)");
        let Some((values, shape)) = self.file.read_f32(key)? else {
            return Err(self.missing(key, &expected));
        };
        match shape.as_slice() {
            &[s, b, c, h, w] if [s, b, c] == [steps, batch, channels] && h > 0 && w > 0 => {
                Ok((values, [b, c, h, w]))
            }
            _ => Err(self.refuse(format!("`{key}` has shape {shape:?}, expected {expected}"))),
        }
    }

    fn numbers(&self, key: &str, shape: &[usize], limit: usize, of: &str) -> Result<Vec<usize>> {
        let Some((values, found)) = self.file.read_i64(key)? else {
            return Err(self.missing(key, &format!("{shape:?}")));
        };
        if found != shape {
            return Err(self.refuse(format!("`{key}` has shape {found:?}, expected {shape:?}")));
        }
        let number = |value: i64| {
            usize::try_from(value)
                .ok()
                .filter(|number| *number < limit)
                .ok_or_else(|| {
                    self.refuse(format!(
                        "`{key}` holds {value}, but {of} numbers end at {}",
                        limit - 1
                    ))
                })
        };
        values.into_iter().map(number).collect()
    }
}
