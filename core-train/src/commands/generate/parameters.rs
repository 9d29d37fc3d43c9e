//! What an image was drawn with, in the words of AUTOMATIC1111's web UI, which other programs read too
//! (ComfyUI, for example, makes its graph of it).
//!
//! The first lines are the prompt, then comes `Negative prompt:`, which ComfyUI needs even where it is
//! empty, and the last line holds `Name: value` pairs with commas between them. A LoRA is written behind
//! the prompt as `<lora:file:strength>`.

use std::path::Path;

use anyhow::Result;
use core_model::noise_scheduler::SchedulerKind;
use core_model::pipeline::StableDiffusionPipeline;

use super::GenerateArgs;
use core_train::run::Run;

/// The settings that all images of a call share.
pub(super) struct Parameters<'a> {
    args: &'a GenerateArgs,
    sampler: &'static str,
    model: String,
}

impl<'a> Parameters<'a> {
    /// # Errors
    /// A sampler of the model's own that is not implemented, an unreadable run.
    pub(super) fn new(args: &'a GenerateArgs, pipeline: &StableDiffusionPipeline) -> Result<Self> {
        let own = || SchedulerKind::of(&pipeline.scheduler_config);
        let model = match (&args.model, &args.run) {
            (Some(model), _) => name(model),
            (None, Some(run)) => name(&Run::open(run)?.config.model.path),
            (None, None) => String::new(),
        };
        Ok(Self {
            args,
            sampler: args.scheduler.map_or_else(own, Ok)?.web_ui_name(),
            model,
        })
    }

    /// The text for one image: the `number`-th of its seed, whose size is given as width and height. No
    /// seed stands for noise from a file.
    pub(super) fn of(
        &self,
        prompt: &str,
        seed: Option<u64>,
        number: usize,
        (width, height): (u32, u32),
    ) -> String {
        let args = self.args;
        let mut settings = vec![
            ("Steps", args.steps.to_string()),
            ("Sampler", self.sampler.to_string()),
            ("CFG scale", args.guidance_scale.to_string()),
        ];
        match (seed, &args.init_latents) {
            (Some(seed), _) => settings.push(("Seed", seed.to_string())),
            (None, Some(file)) => settings.push(("Initial latents", name(file))),
            (None, None) => {}
        }
        settings.push(("Size", format!("{width}x{height}")));
        settings.push(("Model", self.model.clone()));
        settings.push(("Image of seed", number.to_string()));
        settings.extend(self.sources());
        let version = concat!("core-train ", env!("CARGO_PKG_VERSION"));
        settings.push(("Version", version.to_string()));
        let settings = settings
            .iter()
            .map(|(name, value)| format!("{name}: {}", quoted(value)));
        let settings: Vec<String> = settings.collect();
        format!(
            "{prompt}{}\nNegative prompt: {}\n{}",
            self.loras(),
            args.negative_prompt,
            settings.join(", ")
        )
    }

    /// Where the concept and trained networks come from, and what was changed in them.
    fn sources(&self) -> Vec<(&'static str, String)> {
        let args = self.args;
        let paths = [
            ("Run", &args.run),
            ("Embedding", &args.embedding),
            ("U-Net", &args.unet),
            ("Text encoder", &args.text_encoder),
            ("OFT", &args.oft),
        ];
        let paths = paths
            .into_iter()
            .filter_map(|(what, path)| path.as_deref().map(|path| (what, name(path))));
        let mut sources: Vec<_> = paths.collect();
        if let (Some(_), [scale]) = (&args.run, args.lora_scale.as_slice()) {
            sources.push(("LoRA scale of run", scale.to_string()));
        }
        if let Some(steps) = args.optimize_steps {
            let rate = args.optimize_learning_rate.to_string();
            sources.push(("Test-time steps", steps.to_string()));
            sources.push(("Test-time learning rate", rate));
        }
        if let Some(kept) = args.truncation {
            sources.push(("Truncation", kept.to_string()));
        }
        sources
    }

    fn loras(&self) -> String {
        let args = self.args;
        let scale = |index: usize| match args.lora_scale.as_slice() {
            [] => 1.0,
            [one] => *one,
            several => several[index],
        };
        let files = args.lora.iter().enumerate();
        files
            .map(|(index, path)| format!(" <lora:{}:{}>", stem(path), scale(index)))
            .collect()
    }
}

/// The last part of a path or of the name of a repository, without the end of a checkpoint's name.
fn name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let known = ["safetensors", "ckpt", "pt", "bin"];
    let end = whole.extension().unwrap_or_default().to_string_lossy();
    match known.contains(&&*end) {
        true => stem(&whole),
        false => file_name(&whole),
    }
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// A value that holds what separates values stands in quotes, as in JSON.
fn quoted(value: &str) -> String {
    match value.contains([',', ':', '\n']) {
        true => serde_json::Value::from(value).to_string(),
        false => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_separators_are_quoted_as_the_web_ui_does() {
        assert_eq!(quoted("DPM++ 2M"), "DPM++ 2M");
        assert_eq!(quoted("a, b: \"c\""), r#""a, b: \"c\"""#);
    }

    #[test]
    fn models_are_named_without_folders_and_ends() {
        let named = ["models/mini", "x/v1-5.safetensors", "owner/sd-2.1", "a.b"];
        let named = named.map(|path| name(Path::new(path)));
        assert_eq!(named, ["mini", "v1-5", "sd-2.1", "a.b"]);
    }
}
