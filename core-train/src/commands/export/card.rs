//! The model card of an exported folder: `README.md` with the keys that the Hugging Face hub reads.

use std::fmt::Write;
use std::path::Path;

use core_losses::Term;
use core_model::Precision;
use core_model::source::is_repository;

use super::scores::Scores;
use core_train::config::StageConfig;
use core_train::run::Run;

/// Tags of every text-to-image model of this family on the hub.
const TAGS: [&str; 5] = [
    "text-to-image",
    "diffusers",
    "diffusers-training",
    "stable-diffusion",
    "stable-diffusion-diffusers",
];

/// How the folder is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// `StableDiffusionPipeline.from_pretrained`.
    Pipeline,
    /// `load_attn_procs` beside the base model.
    CustomDiffusion,
}

/// The text of `README.md`.
pub(super) fn text(run: &Run, usage: Usage, dtype: Precision, scores: Option<&Scores>) -> String {
    let config = &run.config;
    let (name, base) = (&config.concept.name, base_model(&config.model.path));
    let prompt = instance_prompt(run);
    let mut text = front_matter(run, &base, &prompt);
    let _ = write!(
        text,
        "\n# {name}\n\nOne concept, a {}, learned from photos with CoRe in Rust on the model `{base}`. The licence of \
         that model applies.\n\nThe concept is written `{}` in prompts, for example \"{prompt}\".\n\n",
        config.concept.super_category,
        run.phrase().words(),
    );
    text += &code(usage, &base, &prompt, run.phrase().token());
    text += &training(run, dtype);
    text += "\n## Scores\n\n";
    match scores {
        Some(scores) => text += &scores.text(name),
        None => text += "Not measured.\n",
    }
    text
}

/// The keys between two lines of hyphens. Strings of JSON are strings of YAML.
fn front_matter(run: &Run, base: &str, prompt: &str) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = format!(
        "---\nbase_model: {}\nlibrary_name: diffusers\npipeline_tag: text-to-image\ninstance_prompt: {}\ntags:\n",
        quoted(base),
        quoted(prompt)
    );
    for tag in TAGS.into_iter().chain(method_tags(run)) {
        let _ = writeln!(text, "- {tag}");
    }
    text + "---\n"
}

/// The words under which the hub's users look for what was trained.
fn method_tags(run: &Run) -> Vec<&'static str> {
    let mut tags = Vec::new();
    for entry in run.config.stages.iter().flat_map(|stage| &stage.train) {
        let tag = match entry.adapter.kind() {
            "embedding" => "textual_inversion",
            "unet" | "text_encoder" => "dreambooth",
            "cross_attention" | "cross_attention_kv" => "custom-diffusion",
            other => other,
        };
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

/// A repository without its revision, or the last part of a path, which alone means something to others.
fn base_model(path: &Path) -> String {
    let text = path.to_string_lossy();
    if is_repository(Path::new(""), path) {
        return text.split('@').next().unwrap_or_default().to_string();
    }
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The first prompt of training, with the concept in it.
fn instance_prompt(run: &Run) -> String {
    let mut stages = run.config.stages.iter();
    let first = stages.find_map(|stage| stage.prompts.templates().first());
    run.phrase()
        .fill(first.map_or("a photo of a {}", String::as_str))
}

fn code(usage: Usage, base: &str, prompt: &str, token: &str) -> String {
    let prompt = serde_json::Value::from(prompt);
    let load = match usage {
        Usage::Pipeline => {
            "pipeline = StableDiffusionPipeline.from_pretrained(\".\")\n".to_string()
        }
        Usage::CustomDiffusion => format!(
            "pipeline = StableDiffusionPipeline.from_pretrained({})\n\
             pipeline.unet.load_attn_procs(\".\", weight_name=\"pytorch_custom_diffusion_weights.safetensors\")\n\
             # where a token was learned:\n\
             pipeline.load_textual_inversion(\".\", weight_name=\"{token}.safetensors\")\n",
            serde_json::Value::from(base)
        ),
    };
    format!(
        "```python\nfrom diffusers import StableDiffusionPipeline\n\n{load}\
         image = pipeline({prompt}).images[0]\n```\n"
    )
}

fn training(run: &Run, dtype: Precision) -> String {
    let mut text = format!(
        "\n## Training\n\n| stage | trains | steps | batch | learning rate | terms beside the diffusion loss |\n\
         |---|---|---|---|---|---|\n{}\nSeed {}; weights in {dtype}; made by core-train {}.",
        run.config.stages.iter().map(row).collect::<String>(),
        run.config.seed,
        env!("CARGO_PKG_VERSION"),
    );
    let (_, revision) = match run
        .config
        .model
        .path
        .to_str()
        .and_then(|id| id.split_once('@'))
    {
        Some(parts) => parts,
        None => return text + "\n",
    };
    let _ = writeln!(text, " The model was read at revision `{revision}`.");
    text
}

fn row(stage: &StageConfig) -> String {
    let trains: Vec<&str> = stage
        .train
        .iter()
        .map(|entry| entry.adapter.kind())
        .collect();
    let terms: Vec<String> = stage
        .regularizers
        .iter()
        .filter(|term| term.kind() != "diffusion")
        .map(|term| format!("{} {:e}", term.kind(), term.weight()))
        .collect();
    format!(
        "| {} | {} | {} | {} | {:e} | {} |\n",
        stage.name,
        trains.join(", "),
        stage.steps,
        stage.batch_size,
        stage.learning_rate,
        if terms.is_empty() {
            "none".into()
        } else {
            terms.join(", ")
        }
    )
}
