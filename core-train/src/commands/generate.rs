//! `core-train generate`: images from a model and, if wanted, a learned concept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use clap::{ArgGroup, Args};
use core_model::Network;
use core_model::Precision;
use core_model::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use core_model::custom_diffusion;
use core_model::device::parse_device;
use core_model::files::write_png;
use core_model::learned_embedding::LearnedEmbedding;
use core_model::lora::{LayerNames, Lora};
use core_model::noise_scheduler::{PredictionType, SchedulerKind};
use core_model::oft::Oft;
use core_model::params::{Weights, to_vec};
use core_model::pipeline::{PromptStates, SamplingOptions, StableDiffusionPipeline};
use core_model::rng::randn;
use core_model::source::{ModelSource, embedding_file};

use super::one_of;
use core_train::base_model::BaseModel;
use core_train::optimize::TestTime;
use core_train::progress::Progress;
use core_train::run::Run;

/// The key of latents in `--init-latents` and `--save-latents` files.
const LATENTS: &str = "latents";

/// Draws images for one prompt.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["model", "run"])))]
pub(crate) struct GenerateArgs {
    /// Model folder as diffusers writes it, one-file checkpoint, or repository of the hub
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// What a one-file checkpoint of Stable Diffusion 2.x predicts
    #[arg(long, requires = "model", value_parser = one_of(PredictionType::ALL, PredictionType::name))]
    prediction_type: Option<PredictionType>,
    /// Which of the model's weights, as fp16 for model.fp16.safetensors
    #[arg(long, value_name = "NAME", requires = "model")]
    variant: Option<String>,
    /// Number format in which the weights are kept in memory; everything is computed in float32
    #[arg(long, requires = "model", value_parser = one_of(Precision::ALL, Precision::name))]
    precision: Option<Precision>,
    /// Run folder of `core-train train`: its model, concept and tuned U-Net are used
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Learned concept of any tool: safetensors, pt or bin
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    embedding: Option<PathBuf>,
    /// Name of the concept in the prompt, instead of the one in its file
    #[arg(
        long,
        value_name = "TOKEN",
        requires = "embedding",
        conflicts_with = "run"
    )]
    placeholder_token: Option<String>,
    /// Folder of a trained U-Net, instead of the model's own, or file of Custom Diffusion
    #[arg(long, value_name = "PATH", conflicts_with = "run")]
    unet: Option<PathBuf>,
    /// Folder of a trained text encoder, instead of the model's own
    #[arg(long, value_name = "DIR", conflicts_with = "run")]
    text_encoder: Option<PathBuf>,
    /// LoRA of any tool (safetensors, pt or bin); several are added one after the other
    #[arg(long, value_name = "FILE")]
    lora: Vec<PathBuf>,
    /// Strength of the LoRA, of that of --run too; one for all, or one for each --lora
    #[arg(long, value_name = "S", value_parser = finite)]
    lora_scale: Vec<f64>,
    /// OFT folder as PEFT writes it
    #[arg(long, value_name = "DIR")]
    oft: Option<PathBuf>,
    /// What to draw; a learned concept is written as its placeholder token
    #[arg(long)]
    prompt: String,
    /// What to steer away from
    #[arg(long, default_value = "")]
    negative_prompt: String,
    /// Number of images
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    num_images: usize,
    /// Number of denoising steps
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = at_least_one)]
    steps: usize,
    /// Strength of the prompt; at 1 and below the negative prompt is not used
    #[arg(long, value_name = "G", default_value_t = 7.5, value_parser = finite)]
    guidance_scale: f64,
    /// Sampler, instead of the model's own
    #[arg(long, value_parser = one_of(SchedulerKind::ALL, SchedulerKind::name))]
    scheduler: Option<SchedulerKind>,
    /// Seed of the initial noise
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// cpu, wgpu[:i] or cuda[:i]
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Steps of the paper's test-time optimisation on this prompt (it takes 10); needs --run
    #[arg(long, value_name = "N", conflicts_with = "model", value_parser = at_least_one)]
    optimize_steps: Option<usize>,
    /// Its learning rate
    #[arg(long, value_name = "LR", default_value_t = 5e-4, value_parser = finite)]
    optimize_learning_rate: f64,
    /// Hidden units that the mapper of a `neti` run keeps; fewer follow the prompt more
    #[arg(long, value_name = "N", conflicts_with = "model")]
    truncation: Option<usize>,
    /// Initial noise: key `latents`, [num-images, channels, height, width], unit variance
    #[arg(long, value_name = "FILE")]
    init_latents: Option<PathBuf>,
    /// Where to write the final latents, in the same form
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// Folder for 00000.png and on; made when absent
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(_) => Err("must be a whole number".into()),
    }
}

fn finite(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number
        .filter(|n| n.is_finite())
        .ok_or_else(|| "must be a finite number".into())
}

/// A model that is ready to draw, and how its concept is written, if it has one.
struct Generator {
    pipeline: StableDiffusionPipeline,
    device: Device,
    /// The concept's token and the positions that it takes.
    token: Option<(String, usize)>,
}

/// Draws the images, or says why not before the long work begins.
///
/// # Errors
/// Unreadable models, concepts and latents; prompts that do not fit; devices that are not there.
pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    parse_device(&args.device)?;
    let earlier = earlier_images(args)?;
    let given = args
        .init_latents
        .as_deref()
        .map(|path| read_latents(path, args))
        .transpose()?;
    let scales = lora_scales(args)?;
    let mut generator = match (&args.model, &args.run) {
        (Some(model), _) => Generator::of_model(args, model)?,
        (None, Some(run)) => Generator::of_run(args, run, scales.of_run)?,
        (None, None) => bail!("name a model with --model or a run with --run"),
    };
    generator.add(args, &scales.of_files)?;
    let Generator {
        pipeline,
        device,
        token,
    } = &generator;
    let sampler = pipeline
        .scheduler_config
        .sampler(args.scheduler, args.steps)?;
    let calls = sampler.timesteps().len();
    check_prompts(args, pipeline, token.as_ref())?;
    let noise = match given {
        Some((values, shape)) => from_file(values, shape, pipeline, device)?,
        None => initial_noise(args, pipeline, device)?,
    };
    let encode = |prompt: &str| pipeline.prompt_states(&[prompt.to_string()]);
    let states = [encode(&args.prompt), encode(&args.negative_prompt)];
    // An interrupted call leaves none of them among its own.
    for path in earlier {
        fs::remove_file(&path).with_context(|| path.display().to_string())?;
    }
    draw(args, pipeline, states, noise, calls)
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

impl Generator {
    /// Puts changes of low rank and rotations from files into the model.
    fn add(&mut self, args: &GenerateArgs, scales: &[f64]) -> Result<()> {
        let name = |path: &Path| path.display().to_string();
        let names = LayerNames::of_model(&self.pipeline.model);
        for (path, scale) in args.lora.iter().zip(scales) {
            let model = self.pipeline.model.clone();
            let lora = Lora::load(path, &names)?;
            self.pipeline.model = lora.merge(model, *scale).with_context(|| name(path))?;
        }
        if let Some(folder) = &args.oft {
            let model = self.pipeline.model.clone();
            let oft = Oft::load(folder)?;
            self.pipeline.model = oft.merge(model).with_context(|| name(folder))?;
        }
        Ok(())
    }

    /// A model, with a concept and other networks where they are named.
    fn of_model(args: &GenerateArgs, model: &Path) -> Result<Self> {
        let source = ModelSource {
            path: model.to_path_buf(),
            variant: args.variant.clone(),
            prediction_type: args.prediction_type,
            precision: args.precision.unwrap_or_default(),
        };
        let plain = Weights {
            variant: None,
            precision: source.precision,
        };
        source.precision.check(&args.device)?;
        let base = BaseModel::open(source.locate()?, &args.device)?;
        let mut pipeline = base.pipeline;
        if let Some(path) = &args.unet {
            pipeline = match custom_diffusion::find(path) {
                Some(file) => pipeline.with_custom_diffusion(&file)?,
                None => pipeline.with_unet_of(path, plain)?,
            };
        }
        if let Some(folder) = &args.text_encoder {
            pipeline = pipeline.with_text_encoder_of(folder, plain)?;
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
        })
    }

    /// What a run trained, and its base model's own for the rest.
    fn of_run(args: &GenerateArgs, folder: &Path, lora_scale: f64) -> Result<Self> {
        let run = Run::open(folder)?;
        let base = run.base_model(&args.device)?;
        let pipeline = match args.optimize_steps {
            Some(steps) => {
                let test_time = TestTime {
                    steps,
                    learning_rate: args.optimize_learning_rate,
                };
                optimized(&run, &base, &args.prompt, test_time)?
            }
            None => run.pipeline_at_scale(&base, lora_scale)?,
        };
        let pipeline = match args.truncation {
            Some(kept) => pipeline.with_truncation(kept).context("--truncation")?,
            None => pipeline,
        };
        let phrase = run.phrase();
        let vectors = pipeline.model.embedding().map(|e| e.vectors().dims()[0]);
        Ok(Self {
            token: Some((phrase.token().to_string(), vectors.unwrap_or(1))),
            pipeline,
            device: base.device,
        })
    }
}

/// The run's pipeline after test-time optimisation for the prompt.
fn optimized(
    run: &Run,
    base: &BaseModel,
    prompt: &str,
    test_time: TestTime,
) -> Result<StableDiffusionPipeline> {
    let mut progress = Progress::new("optimising", 0, test_time.steps as u64);
    let pipeline = test_time.optimize(run, base, run.pipeline(base)?, prompt, &mut |step| {
        progress.advance(&format!("loss {:.6}", step.row.loss));
    })?;
    progress.finish();
    Ok(pipeline)
}

/// Fails when the placeholder would be cut off; warns about what else is unlikely to be meant.
fn check_prompts(
    args: &GenerateArgs,
    pipeline: &StableDiffusionPipeline,
    token: Option<&(String, usize)>,
) -> Result<()> {
    let token = token.map(|(token, num_vectors)| (token.as_str(), *num_vectors));
    for prompt in [&args.prompt, &args.negative_prompt] {
        if pipeline.check_prompt(prompt, token)? {
            let limit = pipeline.tokenizer.context_length();
            eprintln!("warning: only the first {limit} tokens of {prompt:?} are read");
        }
    }
    if let Some((token, _)) = token
        && pipeline.tokenizer.occurrences(&args.prompt, token) == 0
    {
        eprintln!("warning: the prompt does not contain the concept's placeholder `{token}`");
    }
    Ok(())
}

/// The tensor `latents` of a file as values and shape, one per wanted image.
fn read_latents(path: &Path, args: &GenerateArgs) -> Result<(Vec<f32>, [usize; 4])> {
    let file = Checkpoint::open(path, |key| Some(key.to_string()))?;
    let (values, shape) = file.read_f32(LATENTS)?.with_context(|| {
        let keys: Vec<&str> = file.keys().take(5).collect();
        format!(
            "{}: no tensor `{LATENTS}`; there are {keys:?}",
            path.display()
        )
    })?;
    let shape: [usize; 4] = shape.as_slice().try_into().with_context(|| {
        let expected = "[images, channels, height, width]";
        format!(
            "{}: `{LATENTS}` has shape {shape:?}, expected {expected}",
            path.display()
        )
    })?;
    ensure!(
        shape[0] == args.num_images,
        "{}: `{LATENTS}` holds noise for {} images but --num-images is {}",
        path.display(),
        shape[0],
        args.num_images
    );
    ensure!(
        !values.is_empty() && values.iter().all(|value| value.is_finite()),
        "{}: `{LATENTS}` is empty or holds values that are not finite",
        path.display()
    );
    Ok((values, shape))
}

fn from_file(
    values: Vec<f32>,
    shape: [usize; 4],
    pipeline: &StableDiffusionPipeline,
    device: &Device,
) -> Result<Tensor<4>> {
    pipeline
        .check_latents([shape[1], shape[2], shape[3]])
        .context("--init-latents")?;
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}

/// Noise of unit variance that depends on the seed and the number of the image only.
fn initial_noise(
    args: &GenerateArgs,
    pipeline: &StableDiffusionPipeline,
    device: &Device,
) -> Result<Tensor<4>> {
    let [channels, height, width] = pipeline.latent_shape()?;
    let one = |image: usize| {
        randn(
            [1, channels, height, width],
            args.seed,
            "initial latents",
            image as u64,
            device,
        )
    };
    Ok(Tensor::cat((0..args.num_images).map(one).collect(), 0))
}

/// The images of an earlier call in the folder, all of which this one replaces.
///
/// # Errors
/// One that it would leave, so that it would stand among the new ones.
fn earlier_images(args: &GenerateArgs) -> Result<Vec<PathBuf>> {
    let mut earlier = Vec::new();
    let Ok(entries) = fs::read_dir(&args.out) else {
        return Ok(earlier);
    };
    for entry in entries {
        let path = entry
            .with_context(|| args.out.display().to_string())?
            .path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = name
            .strip_suffix(".png")
            .filter(|digits| digits.len() >= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(number) = number.and_then(|digits| digits.parse::<usize>().ok()) else {
            continue;
        };
        ensure!(
            number < args.num_images,
            "{}: is an image of an earlier call, which would stand among the {} new ones; name \
             another folder with --out, or remove it",
            path.display(),
            args.num_images
        );
        earlier.push(path);
    }
    Ok(earlier)
}

/// Draws batch after batch and writes every image as soon as it is there.
fn draw(
    args: &GenerateArgs,
    pipeline: &StableDiffusionPipeline,
    [cond, uncond]: [PromptStates<'_>; 2],
    noise: Tensor<4>,
    calls: usize,
) -> Result<()> {
    fs::create_dir_all(&args.out)
        .with_context(|| format!("the folder {} cannot be made", args.out.display()))?;
    let options = SamplingOptions {
        kind: args.scheduler,
        num_inference_steps: args.steps,
        guidance_scale: args.guidance_scale,
    };
    let [count, _, height, width] = noise.dims();
    let batch = StableDiffusionPipeline::images_per_batch(height, width);
    let mut progress = Progress::new("denoising", 0, (calls * count.div_ceil(batch)) as u64);
    let mut finished = Vec::new();
    for start in (0..count).step_by(batch) {
        let part = noise.clone().narrow(0, start, batch.min(count - start));
        let mut on_step = |_| progress.advance("");
        let latents =
            pipeline.sample(cond.clone(), uncond.clone(), part, &options, &mut on_step)?;
        for (offset, image) in pipeline.decode(latents.clone()).iter().enumerate() {
            write_png(&args.out.join(format!("{:05}.png", start + offset)), image)?;
        }
        finished.push(latents);
    }
    progress.finish();
    let latents = Tensor::cat(finished, 0);
    let shape = latents.dims().to_vec();
    let values = to_vec(latents);
    if let Some(path) = &args.save_latents {
        let tensor = TensorToWrite {
            name: LATENTS.to_string(),
            shape,
            values: values.clone(),
        };
        save_tensors(path, vec![tensor], Precision::Float32, &[])?;
    }
    ensure!(
        values.iter().all(|value| value.is_finite()),
        "the latents are not finite, so the images are worthless; lower --guidance-scale or check \
         the learned concept"
    );
    eprintln!("{count} image(s) in {}", args.out.display());
    Ok(())
}
