//! `core-train generate`: images from a model and, if wanted, a learned concept.

mod generator;
mod noise;
mod parameters;
mod plan;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::tensor::Tensor;
use clap::{ArgGroup, Args};
use core_model::Precision;
use core_model::device::parse_device;
use core_model::noise_scheduler::{PredictionType, SchedulerKind};
use core_model::params::to_vec;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_model::png_text::write_png_with_parameters;

use super::one_of;
use core_train::progress::Progress;
use generator::Generator;
use noise::LatentsFile;
use parameters::Parameters;
use plan::Plan;

/// Draws images for one prompt, or for each prompt of a file.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("source").required(true).args(["model", "run"])),
    group(ArgGroup::new("text").required(true).args(["prompt", "prompts"]))
)]
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
    /// Number format in which the weights are kept in memory, and in which GPUs compute products
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
    prompt: Option<String>,
    /// Text file with one prompt per line; empty lines and lines that start with # are ignored
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// What to steer away from
    #[arg(long, default_value = "")]
    negative_prompt: String,
    /// Number of images for each prompt and seed
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
    /// Seed of the initial noise; several are drawn one after the other
    #[arg(long, value_name = "N", default_values_t = [0])]
    seed: Vec<u64>,
    /// Width of the images in pixels [default: the model's]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(8..=8192))]
    width: Option<u32>,
    /// Height of the images in pixels [default: the model's]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(8..=8192))]
    height: Option<u32>,
    /// cpu, wgpu[:i] or cuda[:i]
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Steps of the paper's test-time optimisation on each prompt (it takes 10); needs --run
    #[arg(long, value_name = "N", conflicts_with = "model", value_parser = at_least_one)]
    optimize_steps: Option<usize>,
    /// Its learning rate
    #[arg(long, value_name = "LR", default_value_t = 5e-4, value_parser = finite)]
    optimize_learning_rate: f64,
    /// Hidden units that the mapper of a `neti` run keeps; fewer follow the prompt more
    #[arg(long, value_name = "N", conflicts_with = "model")]
    truncation: Option<usize>,
    /// Initial noise: key `latents`, [num-images, channels, height, width], unit variance
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "width", "height"])]
    init_latents: Option<PathBuf>,
    /// Where to write the final latents of all images, in the same form
    #[arg(long, value_name = "FILE")]
    save_latents: Option<PathBuf>,
    /// Folder for 00000.png and on, and for prompts.csv with --prompts; made when absent
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

/// Draws the images, or says why not before the long work begins.
///
/// # Errors
/// Unreadable models, concepts, prompts and latents; prompts that do not fit; devices that are not there.
pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    parse_device(&args.device)?;
    let plan = Plan::new(args)?;
    let earlier = plan.earlier_files(&args.out)?;
    let given = args.init_latents.as_deref();
    let given = given
        .map(|path| noise::read(path, args.num_images))
        .transpose()?;
    let generator = Generator::open(args)?;
    let sampler = generator
        .pipeline()
        .scheduler_config
        .sampler(args.scheduler, args.steps)?;
    let calls = sampler.timesteps().len();
    for prompt in plan.prompts() {
        generator.check_prompt(prompt)?;
    }
    generator.check_length(&args.negative_prompt)?;
    let noise = match given {
        Some(file) => noise::of_file(file, &generator)?,
        None => noise::of_seeds(&plan, [args.width, args.height], &generator)?,
    };
    let fitted = plan.prompts().map(|prompt| generator.fit(prompt));
    let fitted = fitted.collect::<Result<Vec<_>>>()?;
    let parameters = Parameters::new(args, generator.pipeline())?;
    fs::create_dir_all(&args.out)
        .with_context(|| format!("the folder {} cannot be made", args.out.display()))?;
    // An interrupted call leaves none of them among its own.
    for path in earlier {
        fs::remove_file(&path).with_context(|| path.display().to_string())?;
    }
    let drawing = Drawing {
        args,
        plan: &plan,
        parameters,
        noise,
    };
    let latents = drawing.draw(&generator, fitted, calls)?;
    plan.write_list(&args.out)?;
    latents.finish(args.save_latents.as_deref())?;
    eprintln!("{} image(s) in {}", plan.images(), args.out.display());
    Ok(())
}

/// What all images of a call share.
struct Drawing<'a> {
    args: &'a GenerateArgs,
    plan: &'a Plan,
    parameters: Parameters<'a>,
    /// The initial noise of one prompt's images, [images, channels, height, width].
    noise: Tensor<4>,
}

impl Drawing<'_> {
    /// Draws prompt after prompt; `fitted` holds a pipeline for each of them.
    fn draw(
        &self,
        generator: &Generator,
        fitted: Vec<StableDiffusionPipeline>,
        calls: usize,
    ) -> Result<LatentsFile> {
        let [per_prompt, ..] = self.noise.dims();
        let batches = self.plan.prompts().len() * per_prompt.div_ceil(self.batch());
        let mut progress = Progress::new("denoising", 0, (calls * batches) as u64);
        let mut latents = LatentsFile::default();
        for (number, (prompt, fitted)) in self.plan.prompts().zip(fitted).enumerate() {
            let pipeline = generator.complete(fitted)?;
            let first = number * per_prompt;
            self.draw_prompt(&pipeline, prompt, first, &mut progress, &mut latents)?;
        }
        progress.finish();
        Ok(latents)
    }

    fn batch(&self) -> usize {
        let [_, _, height, width] = self.noise.dims();
        StableDiffusionPipeline::images_per_batch(height, width)
    }

    /// Draws batch after batch and writes every image as soon as it is there, under the number `first`
    /// and on.
    fn draw_prompt(
        &self,
        pipeline: &StableDiffusionPipeline,
        prompt: &str,
        first: usize,
        progress: &mut Progress,
        finished: &mut LatentsFile,
    ) -> Result<()> {
        let cond = pipeline.prompt_states(&[prompt.to_string()])?;
        let uncond = pipeline.negative_states(std::slice::from_ref(&self.args.negative_prompt));
        let options = SamplingOptions {
            kind: self.args.scheduler,
            num_inference_steps: self.args.steps,
            guidance_scale: self.args.guidance_scale,
        };
        let ([count, ..], batch) = (self.noise.dims(), self.batch());
        for start in (0..count).step_by(batch) {
            let part = self
                .noise
                .clone()
                .narrow(0, start, batch.min(count - start));
            let mut on_step = |_| progress.advance("");
            let latents =
                pipeline.sample(cond.clone(), uncond.clone(), part, &options, &mut on_step)?;
            for (offset, image) in pipeline.decode(latents.clone()).iter().enumerate() {
                let of_prompt = start + offset;
                let (seed, number) = self.plan.seed_of(of_prompt);
                let text = self.parameters.of(prompt, seed, number, image.dimensions());
                let path = self.args.out.join(plan::file_name(first + of_prompt));
                write_png_with_parameters(&path, image, &text)?;
            }
            let shape = latents.dims();
            finished.add(shape, to_vec(latents));
        }
        Ok(())
    }
}
