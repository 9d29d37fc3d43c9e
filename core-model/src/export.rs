//! A model with what was learned, as one folder that diffusers' `from_pretrained` opens: trained
//! networks in place of the model's own, the concept as tokens of the vocabulary.

use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::Device;
use serde_json::{Map, Value, json};

use crate::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use crate::config::{read_object, write_json};
use crate::error::{Error, Result};
use crate::files::{MODEL_CARD, NewFolder, read, write_atomically};
use crate::folder::ModelFolder;
use crate::learned_embedding::LearnedEmbedding;
use crate::network::{Network, TRANSFORMERS_WEIGHTS};
use crate::pipeline::StableDiffusionPipeline;
use crate::precision::Precision;
use crate::tokenizer;

/// The key under which the text encoder holds its vocabulary.
const TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// Writes the networks of `pipeline`, which were personalised from `base`. The vectors of a
/// `concept`, which the pipeline knows by its token, become the tokens `<name>`, `<name>_1`, ..., as
/// diffusers' `load_textual_inversion` makes them; in a prompt the first stands for all. `card` is the
/// text of the folder's model card.
///
/// # Errors
/// [`Error::Invalid`] when `out` exists; unreadable files of the base model, an unwritable folder,
/// of which then nothing is left.
pub fn export(
    base: &ModelFolder,
    pipeline: &StableDiffusionPipeline,
    concept: Option<(&LearnedEmbedding, &str)>,
    precision: Precision,
    card: &str,
    out: &Path,
) -> Result<()> {
    NewFolder::check(out)?;
    let source = base.path();
    let folder = NewFolder::begin(out)?;
    let made = folder.path();

    pipeline.model.unet().save(&made.join("unet"), precision)?;
    pipeline.vae.save(&made.join("vae"), precision)?;
    let text_encoder = made.join("text_encoder");
    pipeline
        .model
        .text_encoder()
        .save(&text_encoder, precision)?;
    // The configs as they were published, with keys that this crate does not read.
    for config in [
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
    ] {
        write_json(&made.join(config), &read_object(&source.join(config))?)?;
    }
    let words = made.join("tokenizer");
    std::fs::create_dir_all(&words).map_err(Error::io(&words))?;
    for name in tokenizer::FILES {
        let from = source.join("tokenizer").join(name);
        if from.is_file() {
            write_atomically(&words.join(name), &read(&from)?)?;
        }
    }
    if let Some((embedding, token)) = concept {
        let first = add_rows(&text_encoder, embedding, precision)?;
        add_tokens(&words, token, embedding.num_vectors, first)?;
    }
    write_json(&made.join("model_index.json"), &index(source)?)?;
    write_atomically(&made.join(MODEL_CARD), card.as_bytes())?;
    StableDiffusionPipeline::load(&ModelFolder::new(made), &Device::flex())?;
    folder.finish()
}

/// `model_index.json` of the source without the parts that are not written.
fn index(source: &Path) -> Result<Map<String, Value>> {
    let mut index = read_object(&source.join("model_index.json"))?;
    let written: BTreeSet<&str> = ["tokenizer", "scheduler", "text_encoder", "unet", "vae"].into();
    for (key, value) in &mut index {
        if value.is_array() && !written.contains(key.as_str()) {
            *value = json!([null, null]);
        }
    }
    index.insert("requires_safety_checker".into(), json!(false));
    index.shift_remove("_name_or_path");
    Ok(index)
}

/// Appends the concept to the text encoder's vocabulary; where its first row is.
fn add_rows(folder: &Path, embedding: &LearnedEmbedding, precision: Precision) -> Result<usize> {
    let path = folder.join(TRANSFORMERS_WEIGHTS);
    let file = Checkpoint::open(&path, |key| Some(key.to_string()))?;
    let mut tensors = Vec::new();
    let mut first = None;
    for name in file.keys() {
        let Some((mut values, mut shape)) = file.read_f32(name)? else {
            continue;
        };
        if name == TABLE {
            first = Some(shape[0]);
            shape[0] += embedding.num_vectors;
            values.extend(&embedding.vectors);
        }
        tensors.push(TensorToWrite {
            name: name.to_string(),
            shape,
            values,
        });
    }
    let first = first.ok_or_else(|| Error::format(&path, format!("holds no `{TABLE}`")))?;
    save_tensors(&path, tensors, precision, &[])?;
    let path = folder.join("config.json");
    let mut config = read_object(&path)?;
    config.insert("vocab_size".into(), json!(first + embedding.num_vectors));
    write_json(&path, &config)?;
    Ok(first)
}

/// Adds the concept's tokens to a tokenizer, in each of the files that may list them.
fn add_tokens(folder: &Path, token: &str, num_vectors: usize, first: usize) -> Result<()> {
    let tokens: Vec<(usize, String)> = (0..num_vectors)
        .map(|index| match index {
            0 => (first, token.to_string()),
            _ => (first + index, format!("{token}_{index}")),
        })
        .collect();
    let entry = |content: &str| {
        json!({
            "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": true, "special": false,
        })
    };
    let single = folder.join("tokenizer.json");
    if single.is_file() {
        let mut file = read_object(&single)?;
        let added = file.entry("added_tokens").or_insert_with(|| json!([]));
        for (id, content) in &tokens {
            let mut entry = entry(content);
            entry["id"] = json!(id);
            if let Some(added) = added.as_array_mut() {
                added.push(entry);
            }
        }
        write_json(&single, &file)?;
    }
    let path = folder.join("added_tokens.json");
    let mut added = match path.is_file() {
        true => read_object(&path)?,
        false => Map::new(),
    };
    added.extend(
        tokens
            .iter()
            .map(|(id, content)| (content.clone(), json!(id))),
    );
    write_json(&path, &added)?;
    let path = folder.join("tokenizer_config.json");
    if path.is_file() {
        let mut config = read_object(&path)?;
        if let Some(listed) = config.get_mut("added_tokens_decoder") {
            for (id, content) in &tokens {
                listed[id.to_string()] = entry(content);
            }
            write_json(&path, &config)?;
        }
    }
    Ok(())
}
