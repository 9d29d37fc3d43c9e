//! `model_index.json`: which classes a model folder is made of.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files;

/// The classes of `model_index.json` that this crate computes; any scheduler class may stand
/// there, see [`SchedulerKind::of`](crate::noise_scheduler::SchedulerKind::of). A safety checker is not run.
const COMPONENTS: [(&str, &[&str]); 4] = [
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"]),
    (
        "text_encoder",
        &["CLIPTextModel", "CLIPTextModelWithProjection"],
    ),
    ("unet", &["UNet2DConditionModel"]),
    ("vae", &["AutoencoderKL"]),
];

/// How the classes of other families' pipelines begin.
const OTHERS: [(&str, &str); 12] = [
    ("StableDiffusionXL", "Stable Diffusion XL"),
    ("StableDiffusion3", "Stable Diffusion 3"),
    ("StableCascade", "Stable Cascade"),
    ("Flux", "Flux"),
    ("PixArt", "PixArt"),
    ("Kandinsky", "Kandinsky"),
    ("Hunyuan", "Hunyuan"),
    ("AuraFlow", "AuraFlow"),
    ("Sana", "Sana"),
    ("Lumina", "Lumina"),
    ("QwenImage", "Qwen-Image"),
    ("IF", "DeepFloyd IF"),
];

/// Fails unless the model's networks are of an architecture that this crate computes.
///
/// # Errors
/// [`Error::Config`] naming the component and the supported classes; [`Error::Format`] when there
/// is no such file.
pub(crate) fn check(dir: &Path) -> Result<()> {
    let path = dir.join("model_index.json");
    if !path.is_file() {
        let reason = "no such file; a model is a folder with model_index.json, tokenizer, \
                      text_encoder, unet, vae and scheduler, as diffusers writes it";
        return Err(Error::format(&path, reason));
    }
    let index: Map<String, Value> = serde_json::from_str(&files::read_to_string(&path)?)
        .map_err(|e| Error::format(&path, format!("not a JSON object: {e}")))?;
    let class = index.get("_class_name").and_then(Value::as_str);
    let other = class.and_then(|class| {
        let mut families = OTHERS.iter();
        families.find(|(start, _)| class.starts_with(start))
    });
    if let (Some(class), Some((_, family))) = (class, other) {
        return Err(Error::Config {
            path,
            key: "_class_name".into(),
            value: class.into(),
            expected: format!(
                "StableDiffusionPipeline: this is a {family} model, another architecture than \
                 Stable Diffusion 1.x and 2.x"
            ),
        });
    }
    for (component, supported) in COMPONENTS {
        let class = index
            .get(component)
            .and_then(|entry| entry.get(1))
            .and_then(Value::as_str);
        if !class.is_some_and(|class| supported.contains(&class)) {
            return Err(Error::Config {
                path,
                key: component.to_string(),
                value: index.get(component).unwrap_or(&Value::Null).to_string(),
                expected: format!("class {}", supported.join(" or ")),
            });
        }
    }
    Ok(())
}

/// The scheduler's class, where the index names one.
pub(crate) fn scheduler_class(dir: &Path) -> Option<String> {
    let text = files::read_to_string(&dir.join("model_index.json")).ok()?;
    let index: Map<String, Value> = serde_json::from_str(&text).ok()?;
    let class = index.get("scheduler")?.get(1)?.as_str()?;
    Some(class.to_string())
}

/// The kind of model whose U-Net has so many input channels, where that is not a text-to-image model
/// but one that reads more than latents.
pub(crate) fn kind_by_channels(in_channels: usize) -> Option<&'static str> {
    match in_channels {
        5 => Some(
            "a depth-to-image model, whose U-Net reads a depth map too (5 channels of `conv_in`)",
        ),
        7 => Some("an upscaler, whose U-Net reads a small image too (7 channels of `conv_in`)"),
        8 => Some(
            "an image-editing model, whose U-Net reads the image too (8 channels of `conv_in`)",
        ),
        9 => Some(
            "an inpainting model, whose U-Net reads a mask and an image too (9 channels of `conv_in`)",
        ),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check_text(index: &str) -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model_index.json"), index).unwrap();
        check(dir.path())
    }

    #[test]
    fn other_families_are_refused_by_their_name() {
        for (class, family) in [
            ("StableDiffusionXLPipeline", "Stable Diffusion XL"),
            ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
            ("FluxPipeline", "Flux"),
        ] {
            let text = check_text(&format!(r#"{{"_class_name": "{class}"}}"#))
                .unwrap_err()
                .to_string();
            let named = format!("this is a {family} model");
            assert!(text.contains(&named) && text.contains(class), "{text}");
        }
    }

    #[test]
    fn another_architecture_is_refused_by_component_and_class() {
        let text = check_text(
            r#"{"tokenizer": ["transformers", "CLIPTokenizer"],
                "text_encoder": ["transformers", "T5EncoderModel"]}"#,
        )
        .unwrap_err()
        .to_string();
        for part in [
            "model_index.json",
            "`text_encoder`",
            "T5EncoderModel",
            "CLIPTextModel",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(check_text(r#"{"unet": 5}"#).is_err());
        assert!(check_text("[]").is_err());
    }

    #[test]
    fn a_folder_without_an_index_is_refused_with_what_a_model_is() {
        let dir = tempfile::tempdir().unwrap();
        let text = check(dir.path()).unwrap_err().to_string();
        assert!(
            text.contains("model_index.json") && text.contains("diffusers"),
            "{text}"
        );
    }
}
