//! The base model with the person of a run.

use std::path::Path;

use core_model::id_adapter::IdAdapterConfig;
use core_model::lora::LayerNames;
use core_model::personalized::ConceptEmbedding;
use core_model::photomaker::{ClassWord, StackedId};
use core_model::pipeline::StableDiffusionPipeline;

use super::Opened;
use super::encoded::{Encoded, ID_EMBEDS};
use crate::base_model::BaseModel;
use crate::config::{RunConfig, TuningFree};
use crate::error::{Error, Result};

/// The base model with the person of a run folder. PhotoMaker's LoRA, `lora_scale` times as strong as it
/// was trained, is added to the U-Net.
///
/// # Errors
/// A missing or damaged file, an encoder that changed since.
pub(crate) fn with_person(
    run: &Path,
    config: &RunConfig,
    adapter: &TuningFree,
    base: &BaseModel,
    lora_scale: f64,
) -> Result<StableDiffusionPipeline> {
    let path = run.join(ID_EMBEDS);
    if !path.is_file() {
        let reason = "is missing; the run is damaged, or another program removed the file";
        return Err(Error::run_folder(&path, reason));
    }
    let opened = Opened::new(config, adapter, base)?;
    let rows = Encoded::load(&opened, &path, &base.device)?;
    let mut pipeline = base.pipeline.clone();
    match opened.folder.config() {
        IdAdapterConfig::PhotoMaker(_) => {
            let names = LayerNames::of_model(&pipeline.model);
            let lora = opened.folder.lora(&names)?;
            pipeline.model = lora.merge(pipeline.model, lora_scale)?;
            let word = &config.concept.super_category;
            let word = ClassWord::new(word, rows.dims()[0], &pipeline.tokenizer);
            let photomaker = opened.folder.photomaker(&base.device)?;
            let share = opened.adapter.start_merge();
            let person = StackedId::new(&photomaker, rows, word, share);
            pipeline.model = pipeline.model.with_stacked_id(person);
        }
        IdAdapterConfig::Face2Diffusion(_) => {
            let token = config.concept.placeholder_token();
            let vectors = rows.dims()[0];
            pipeline.tokenizer.add_placeholder(&token, vectors)?;
            let concept = ConceptEmbedding::without_positions(rows);
            pipeline.model = pipeline.model.with_embedding(concept);
        }
    }
    Ok(pipeline)
}
