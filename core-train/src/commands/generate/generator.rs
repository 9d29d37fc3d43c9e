//! A model that is ready to draw, with everything that the arguments put into it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use core_model::Network;
use core_model::custom_diffusion;
use core_model::learned_embedding::LearnedEmbedding;
use core_model::lora::{LayerNames, Lora};
use core_model::oft::Oft;
use core_model::pipeline::StableDiffusionPipeline;
use core_model::source::{ModelSource, embedding_file};

use super::GenerateArgs;
use core_train::base_model::BaseModel;
use core_train::optimize::TestTime;
use core_train::progress::Progress;
use core_train::run::Run;

/// A model, and how its concept is written, if it has one.
pub(super) struct Generator {
    pipeline: StableDiffusionPipeline,
    device: Device,
    /// The concept's token and the positions that it takes.
    token: Option<(String, usize)>,
    fitting: Option<Fitting>,
    changes: Changes,
}

/// What fits the concept of a run to a prompt.
struct Fitting {
    run: Run,
    base: BaseModel,
    test_time: TestTime,
    truncation: Option<usize>,
}

/// Changes of low rank with their strengths, and rotations, from files.
struct Changes {
    lora: Vec<(PathBuf, Lora, f64)>,
    oft: Option<(PathBuf, Oft)>,
}

impl Generator {
    /// Opens what `--model` or `--run` names.
    ///
    /// # Errors
    /// Unreadable models and concepts; changes of networks that do not fit the model.
    pub(super) fn open(args: &GenerateArgs) -> Result<Self> {
        let scales = lora_scales(args)?;
        let mut generator = match (&args.model, &args.run) {
            (Some(model), _) => Self::of_model(args, model)?,
            (None, Some(run)) => Self::of_run(args, run, scales.of_run)?,
            (None, None) => bail!("name a model with --model or a run with --run"),
        };
        let names = LayerNames::of_model(&generator.pipeline.model);
        for (path, scale) in args.lora.iter().zip(scales.of_files) {
            let lora = Lora::load(path, &names)?;
            generator.changes.lora.push((path.clone(), lora, scale));
        }
        if let Some(folder) = &args.oft {
            generator.changes.oft = Some((folder.clone(), Oft::load(folder)?));
        }
        // Test-time optimisation starts from what the run has trained alone.
        let changed = generator.changes.apply(generator.pipeline.clone())?;
        if generator.fitting.is_none() {
            generator.pipeline = changed;
        }
        Ok(generator)
    }

    /// A model, with a concept and other networks where they are named.
    fn of_model(args: &GenerateArgs, model: &Path) -> Result<Self> {
        let source = ModelSource {
            path: model.to_path_buf(),
            variant: args.variant.clone(),
            prediction_type: args.prediction_type,
            precision: args.precision.unwrap_or_default(),
        };
        source.precision.check(&args.device)?;
        let base = BaseModel::open(source.locate()?, &args.device)?;
        let mut pipeline = base.pipeline;
        if let Some(path) = &args.unet {
            pipeline = match custom_diffusion::find(path) {
                Some(file) => pipeline.with_custom_diffusion(&file)?,
                None => pipeline.with_unet_of(path, &base.folder)?,
            };
        }
        if let Some(folder) = &args.text_encoder {
            pipeline = pipeline.with_text_encoder_of(folder, &base.folder)?;
        }
        let mut token = None;
        if let Some(file) = &args.embedding {
            let width = pipeline.model.text_encoder().config().hidden_size;
            let embedding = LearnedEmbedding::load_for_width(&embedding_file(file)?, width)?;
            let name = args.placeholder_token.as_ref().unwrap_or(&embedding.token);
            pipeline.add_concept(&embedding, name)?;
            token = Some((name.clone(), embedding.num_vectors));
        }
        Ok(Self {
            pipeline,
            device: base.device,
            token,
            fitting: None,
            changes: Changes::none(),
        })
    }

    /// What a run trained, and its base model's own for the rest.
    fn of_run(args: &GenerateArgs, folder: &Path, lora_scale: f64) -> Result<Self> {
        let run = Run::open(folder)?;
        let base = run.base_model(&args.device)?;
        let device = base.device.clone();
        let mut pipeline = run.pipeline_at_scale(&base, lora_scale)?;
        if let (Some(kept), None) = (args.truncation, args.optimize_steps) {
            pipeline = pipeline.with_truncation(kept).context("--truncation")?;
        }
        let phrase = run.phrase();
        let vectors = pipeline.model.embedding().map(|e| e.vectors().dims()[0]);
        let fitting = args.optimize_steps.map(|steps| Fitting {
            run,
            base,
            test_time: TestTime {
                steps,
                learning_rate: args.optimize_learning_rate,
            },
            truncation: args.truncation,
        });
        let has_token = pipeline.model.stacked_id().is_none();
        let token = (phrase.token().to_string(), vectors.unwrap_or(1));
        Ok(Self {
            token: has_token.then_some(token),
            pipeline,
            device,
            fitting,
            changes: Changes::none(),
        })
    }

    /// The model, before test-time optimisation.
    pub(super) fn pipeline(&self) -> &StableDiffusionPipeline {
        &self.pipeline
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Fails when the concept's token would be cut off; warns about what else is unlikely to be meant.
    ///
    /// # Errors
    /// A prompt that is too long for its token; one without the class word that photos stand for.
    pub(super) fn check_prompt(&self, prompt: &str) -> Result<()> {
        if let Some(person) = self.pipeline.model.stacked_id() {
            return Ok(person
                .class_word()
                .check(prompt, &self.pipeline.tokenizer)?);
        }
        self.check_length(prompt)?;
        if let Some((token, _)) = &self.token
            && self.pipeline.tokenizer.occurrences(prompt, token) == 0
        {
            eprintln!(
                "warning: the prompt {prompt:?} does not contain the concept's placeholder `{token}`"
            );
        }
        Ok(())
    }

    /// The same for a prompt that need not contain the concept.
    ///
    /// # Errors
    /// As [`check_prompt`](Self::check_prompt).
    pub(super) fn check_length(&self, prompt: &str) -> Result<()> {
        let token = self.token.as_ref();
        let token = token.map(|(token, num_vectors)| (token.as_str(), *num_vectors));
        if self.pipeline.check_prompt(prompt, token)? {
            let limit = self.pipeline.tokenizer.context_length();
            eprintln!("warning: only the first {limit} tokens of {prompt:?} are read");
        }
        Ok(())
    }

    /// The model for one prompt: its concept fitted to it by test-time optimisation, if that is wanted.
    ///
    /// # Errors
    /// A prompt or run for which that is not possible.
    pub(super) fn fit(&self, prompt: &str) -> Result<StableDiffusionPipeline> {
        let Some(fitting) = &self.fitting else {
            return Ok(self.pipeline.clone());
        };
        let Fitting {
            run,
            base,
            test_time,
            truncation,
        } = fitting;
        let mut progress = Progress::new("optimising", 0, test_time.steps as u64);
        let start = self.pipeline.clone();
        let pipeline = test_time.optimize(run, base, start, prompt, &mut |step| {
            progress.advance(&format!("loss {:.6}", step.row.loss));
        })?;
        progress.finish();
        match truncation {
            Some(kept) => Ok(pipeline.with_truncation(*kept).context("--truncation")?),
            None => Ok(pipeline),
        }
    }

    /// What [`fit`](Self::fit) gave, with the changes of `--lora` and `--oft`. They are added as late as
    /// possible, because each such model has networks of its own.
    ///
    /// # Errors
    /// Changes that do not fit the model.
    pub(super) fn complete(
        &self,
        fitted: StableDiffusionPipeline,
    ) -> Result<StableDiffusionPipeline> {
        match self.fitting {
            Some(_) => self.changes.apply(fitted),
            None => Ok(fitted),
        }
    }
}

impl Changes {
    fn none() -> Self {
        Self {
            lora: Vec::new(),
            oft: None,
        }
    }

    /// Puts the changes into the networks of a model.
    fn apply(&self, mut pipeline: StableDiffusionPipeline) -> Result<StableDiffusionPipeline> {
        for (path, lora, scale) in &self.lora {
            let model = lora.merge(pipeline.model, *scale);
            pipeline.model = model.with_context(|| path.display().to_string())?;
        }
        if let Some((path, oft)) = &self.oft {
            let model = oft.merge(pipeline.model);
            pipeline.model = model.with_context(|| path.display().to_string())?;
        }
        Ok(pipeline)
    }
}

/// How strong changes of low rank are.
struct LoraScales {
    of_run: f64,
    /// One for each `--lora`.
    of_files: Vec<f64>,
}

/// One scale for all, or one for each file; 1 where none is given.
fn lora_scales(args: &GenerateArgs) -> Result<LoraScales> {
    let files = args.lora.len();
    match args.lora_scale.as_slice() {
        [] => Ok(LoraScales {
            of_run: 1.0,
            of_files: vec![1.0; files],
        }),
        [one] => {
            ensure!(
                files > 0 || args.run.is_some(),
                "--lora-scale is the strength of a --lora or of the LoRA of a --run, and there is \
                 neither"
            );
            Ok(LoraScales {
                of_run: *one,
                of_files: vec![*one; files],
            })
        }
        several => {
            ensure!(
                several.len() == files,
                "--lora-scale is given {} times for {files} --lora; give one for all, or one for each",
                several.len()
            );
            Ok(LoraScales {
                of_run: 1.0,
                of_files: several.to_vec(),
            })
        }
    }
}
