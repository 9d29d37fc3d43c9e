//! `core-train export`: a run as a model folder for every program that reads diffusers' layout, or as
//! the files of the method that trained it.

mod card;
mod scores;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use core_model::Precision;
use core_model::custom_diffusion::{self, Held};
use core_model::export::export;
use core_model::lora::{LayerNames, Lora, LoraForm};
use core_model::pipeline::StableDiffusionPipeline;

use super::one_of;
use super::say;
use card::Usage;
use core_train::adapters::{EMBEDDING, LORA, UNET, learned_embedding};
use core_train::run::Run;
use core_train::tuning_free::why_no_export;
use scores::{Scores, results_of};

/// Arguments of `core-train export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Run folder of `core-train train`
    run: PathBuf,
    /// The folder to write; the file of a LoRA
    out: PathBuf,
    /// Number format of the weights
    #[arg(long, default_value = "float32", value_parser = one_of(Precision::ALL, Precision::name))]
    dtype: Precision,
    /// What to write
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Variant of an experiment whose scores the model card shows; the results folder is the one that the run
    /// lies in, or --scores
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Results folder of `core-eval` with summary.csv and protocol.json
    #[arg(long, value_name = "DIR", requires = "variant")]
    scores: Option<PathBuf>,
}

/// What a run can be written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A whole model folder
    #[default]
    Model,
    /// The files of diffusers' train_custom_diffusion.py
    CustomDiffusion,
    /// The LoRA in the form of diffusers, a file
    Lora,
    /// The LoRA in kohya's form, which AUTOMATIC1111 and ComfyUI read, a file
    Kohya,
}

impl Format {
    fn of_lora(self) -> Option<LoraForm> {
        match self {
            Self::Lora => Some(LoraForm::Diffusers),
            Self::Kohya => Some(LoraForm::Kohya),
            Self::Model | Self::CustomDiffusion => None,
        }
    }
}

/// Writes the folder.
///
/// # Errors
/// No run folder, an unreadable model, an existing or unwritable folder.
pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    let run = Run::open(&args.run)?;
    ensure!(
        run.config.neti().is_none(),
        "{}: trains `neti`, whose mapper gives the concept another embedding at every timestep and for \
         every layer; a folder of diffusers cannot hold that, so draw with `core-train generate --run`",
        args.run.display()
    );
    if let Some(reason) = why_no_export(&run.config)? {
        bail!(
            "{}: {reason}, so generate with `core-train generate --run`",
            args.run.display()
        );
    }
    let base = run.base_model(&run.config.device)?;
    if let Some(form) = args.format.of_lora() {
        let file = run.folder().join(LORA);
        ensure!(
            file.is_file(),
            "{}: trains no `lora`; leave --format out for a whole model",
            run.folder().display()
        );
        ensure!(
            !args.out.exists(),
            "{}: is there already; name another file",
            args.out.display()
        );
        ensure!(
            args.variant.is_none(),
            "--variant is for the model card of a folder; a file of a LoRA has none"
        );
        let lora = Lora::load(&file, &LayerNames::of_model(&base.pipeline.model))?;
        lora.save(&args.out, form, args.dtype)?;
        say(&format!(
            "{}: {} layers, {form}",
            args.out.display(),
            lora.layers.len()
        ));
        return Ok(());
    }
    let scores = scores(args, &run)?;
    let card = |usage| card::text(&run, usage, args.dtype, scores.as_ref());
    let pipeline = run.pipeline(&base)?;
    let embedding = learned_embedding(&run.phrase(), &run.config.model.path, &pipeline.model)?;
    if args.format == Format::CustomDiffusion {
        let held = cross_attention(&run, &pipeline)?;
        let unet = pipeline.model.unet();
        let card = card(Usage::CustomDiffusion);
        custom_diffusion::export(unet, embedding.as_ref(), held, args.dtype, &card, &args.out)?;
        say(&format!(
            "{}: as train_custom_diffusion.py of diffusers leaves it; `core-train generate --unet` \
             reads it too",
            args.out.display()
        ));
        return Ok(());
    }
    let concept = embedding.as_ref().map(|e| (e, e.token.as_str()));
    let card = card(Usage::Pipeline);
    export(
        &base.folder,
        &pipeline,
        concept,
        args.dtype,
        &card,
        &args.out,
    )?;
    say(&format!(
        "{}: a model folder; StableDiffusionPipeline.from_pretrained opens it{}",
        args.out.display(),
        concept.map_or(String::new(), |(_, token)| format!(
            ", and `{token}` is a word of its prompts"
        ))
    ));
    Ok(())
}

/// The scores that the arguments name.
///
/// # Errors
/// A variant without a results folder, no such scores in it.
fn scores(args: &ExportArgs, run: &Run) -> Result<Option<Scores>> {
    let Some(variant) = &args.variant else {
        return Ok(None);
    };
    let folder = args.scores.clone().or_else(|| results_of(&args.run));
    let folder = folder.with_context(|| {
        format!(
            "{}: lies in no results folder with a summary.csv; name the folder with --scores",
            args.run.display()
        )
    })?;
    Ok(Some(Scores::read(
        &folder,
        variant,
        &run.config.concept.name,
    )?))
}

/// Which weights a file of Custom Diffusion must hold for a run.
///
/// # Errors
/// A run that trained other weights than such a file can hold, or none of them.
fn cross_attention(run: &Run, pipeline: &StableDiffusionPipeline) -> Result<Held> {
    let mut held = None;
    for entry in run.config.stages.iter().flat_map(|stage| &stage.train) {
        let adapter = entry.adapter.adapter();
        let refuse = || {
            format!(
                "{}: trains `{}`, which a file of Custom Diffusion cannot hold; it holds the concept and \
                 weights of cross-attention (`cross_attention_kv`, `cross_attention`); leave --format \
                 out for a whole model",
                run.folder().display(),
                entry.adapter.kind()
            )
        };
        ensure!([EMBEDDING, UNET].contains(&adapter.file()), refuse());
        for name in pipeline
            .model
            .names()
            .keys()
            .filter(|name| adapter.moves(name))
        {
            let Some(key) = name.strip_prefix("unet.") else {
                continue;
            };
            let needed = Held::for_weight(key).with_context(refuse)?;
            held = match held {
                Some(Held::All) => held,
                _ => Some(needed),
            };
        }
    }
    held.with_context(|| {
        format!(
            "{}: trains no weight of cross-attention; its learned_embeds.safetensors is all that it has",
            run.folder().display()
        )
    })
}
