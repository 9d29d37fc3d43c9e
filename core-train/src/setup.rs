//! From a configuration and a base model to everything that the first step needs. All that can be
//! wrong with it is found here.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use core_model::Network;
use core_model::checkpoint::Checkpoint;
use core_model::noise_scheduler::{DdpmScheduler, SchedulerConfig, SchedulerKind};
use core_model::params::ParamNames;
use core_model::personalized::{ConceptEmbedding, PersonalizedModel};
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_model::tokenizer::Tokenizer;
use image::RgbImage;

use crate::adapters::Adapter;
use crate::augmentations::{Augmentation as _, AugmentationConfig, Frame};
use crate::base_model::BaseModel;
use crate::config::{PromptSource, RunConfig, StageConfig, TrainEntry};
use crate::data::draws::{Draws, Source};
use crate::data::nested_dropout::NestedDropout;
use crate::data::photos::{ConceptLatents, load_photos, read_photos};
use crate::data::prior::{self, class_prompts};
use crate::data::prompts::{ConceptWords, StagePrompts, word_ids};
use crate::data::replay::{Replay, ReplayFit};
use crate::data::shots::{AugmentedPhotos, Photos};
use crate::error::{Error, Result};
use crate::initializers::Start;

/// How validation images are drawn. Few steps suffice to see where training goes.
pub(crate) const VALIDATION_SAMPLING: SamplingOptions = SamplingOptions {
    kind: Some(SchedulerKind::DpmppTwoM),
    num_inference_steps: 20,
    guidance_scale: 7.5,
};

/// Refuses validation images of a model that cannot be sampled with, before the first step.
///
/// # Errors
/// The key of the model's `scheduler_config.json` that does not fit.
pub(crate) fn check_validation(
    config: &RunConfig,
    scheduler_config: &SchedulerConfig,
) -> Result<()> {
    if config.validation.is_some() {
        let SamplingOptions {
            kind,
            num_inference_steps,
            ..
        } = VALIDATION_SAMPLING;
        scheduler_config.sampler(kind, num_inference_steps)?;
    }
    Ok(())
}

/// The base model with the concept as learning begins. A rare token is made of entries that the
/// vocabulary has; nothing is added for it.
///
/// # Errors
/// A token or an initialiser that the vocabulary does not allow.
pub(crate) fn with_concept(
    config: &RunConfig,
    mut pipeline: StableDiffusionPipeline,
    device: &Device,
) -> Result<StableDiffusionPipeline> {
    if let Some(token) = &config.rare_token {
        check_rare_token(token, &pipeline.tokenizer)?;
        return Ok(pipeline);
    }
    let concept = &config.concept;
    let start = Start {
        tokenizer: &pipeline.tokenizer,
        model: &pipeline.model,
        words: concept.initializer(),
        num_vectors: concept.num_vectors(),
    };
    let initializer = config.initializer.clone().unwrap_or_default();
    let rows = initializer.initializer().vectors(&start)?;
    let shape = [rows.len(), rows.first().map_or(0, Vec::len)];
    let vectors = Tensor::from_data(TensorData::new(rows.concat(), shape), device);
    let token = concept.placeholder_token();
    pipeline
        .tokenizer
        .add_placeholder(&token, concept.num_vectors())?;
    pipeline.model = pipeline
        .model
        .with_embedding(ConceptEmbedding::new(vectors));
    Ok(pipeline)
}

/// A rare token may be several entries of the vocabulary, as `qwe` is in CLIP's; it says so then.
fn check_rare_token(token: &str, tokenizer: &Tokenizer) -> Result<()> {
    let refuse = |reason: &str| {
        let reason = format!("`rare_token` is {token:?}, which {reason}; choose another word");
        Err(core_model::Error::Invalid(reason).into())
    };
    if !tokenizer.knows(token) {
        return refuse("is not made of words or pieces of words of the vocabulary");
    }
    let ids = word_ids(tokenizer, token);
    if tokenizer.encode(token).truncated {
        return refuse("has more tokens than a prompt has room for");
    }
    if ids.len() > 1 {
        let name = |id: &u32| format!("`{}` ({id})", tokenizer.token(*id));
        let pieces: Vec<String> = ids.iter().map(name).collect();
        tracing::info!(
            "the rare token {token:?} is {} tokens of the vocabulary: {}",
            ids.len(),
            pieces.join(", ")
        );
    }
    Ok(())
}

/// The model of every stage before training: that of the stage before it and what its sets of
/// weights add. Stages that train nothing, and two sets that train the same tensor, are refused.
///
/// # Errors
/// [`Error::Config`] naming stage and sets; what a set cannot add to this model.
pub(crate) fn stage_models(
    config: &RunConfig,
    mut model: PersonalizedModel,
) -> Result<Vec<PersonalizedModel>> {
    let mut models = Vec::with_capacity(config.stages.len());
    for (index, stage) in config.stages.iter().enumerate() {
        let refuse = |reason: String| Error::Config {
            path: config.model.path.clone(),
            key: format!("stages.{index}.train"),
            reason,
        };
        for entry in &stage.train {
            let earlier = config.stages[..index].iter().flat_map(|stage| &stage.train);
            let mut same_kind = earlier.filter(|e| e.adapter.kind() == entry.adapter.kind());
            if same_kind.any(|earlier| earlier.adapter != entry.adapter) {
                let kind = entry.adapter.kind();
                return Err(refuse(format!(
                    "holds `{kind}` with other keys than an earlier stage; what it adds to the model \
                     is added once, so the keys must be the same"
                )));
            }
            model = entry.adapter.adapter().extend(model, config.seed)?;
        }
        check_sets(&stage.train, model.names()).map_err(refuse)?;
        models.push(model.clone());
    }
    Ok(models)
}

/// The first stage's model with the start values of a replay: its keys `init.<key>`, where `<key>` is
/// that of a set's own file. What the replay does not hold keeps its own.
///
/// # Errors
/// A key that no set of the stage has, a tensor of another shape.
pub(crate) fn with_start_values(
    stage: &StageConfig,
    model: PersonalizedModel,
    replay: &Path,
    device: &Device,
) -> Result<PersonalizedModel> {
    let sets: Vec<&dyn Adapter> = stage.train.iter().map(|e| e.adapter.adapter()).collect();
    let rule = |key: &str| {
        let key = key.strip_prefix("init.")?;
        let name = sets.iter().find_map(|set| set.parameter(key));
        // What no set adds has no name in the model either.
        Some(name.unwrap_or_else(|| format!("no set: {key}")))
    };
    let file = Checkpoint::open(replay, rule)?;
    let has = |key: &str| model.names().keys().any(|name| name == key);
    let mut unknown = file.keys().filter(|key| !has(key));
    if let Some(key) = unknown.next() {
        return Err(Error::Replay {
            path: replay.to_path_buf(),
            reason: format!(
                "holds `init.{}`, which no set of the first stage adds to the model",
                key.trim_start_matches("no set: ")
            ),
        });
    }
    drop(unknown);
    Ok(model.with_tensors(&file, device)?)
}

/// Fails when a set trains nothing, or two train the same tensor.
fn check_sets(train: &[TrainEntry], names: &ParamNames) -> Result<(), String> {
    for entry in train {
        if !names.keys().any(|name| entry.moves(name)) {
            let kind = entry.adapter.kind();
            return Err(format!(
                "holds `{kind}`, which names no weight that this model has"
            ));
        }
    }
    let twice = names.keys().find_map(|name| {
        let mut sets = train.iter().filter(|entry| entry.moves(name));
        Some((sets.next()?, sets.next()?, name))
    });
    match twice {
        Some((first, second, name)) => Err(format!(
            "holds `{}` and `{}`, which both train `{name}`; leave one of them out",
            first.adapter.kind(),
            second.adapter.kind()
        )),
        None => Ok(()),
    }
}

/// The tokenised prompts of every stage.
///
/// # Errors
/// [`Error::Template`] naming the first that does not fit.
pub(crate) fn prompts(config: &RunConfig, tokenizer: &Tokenizer) -> Result<Vec<StagePrompts>> {
    let phrase = config.phrase();
    let words = ConceptWords {
        tokenizer,
        phrase: &phrase,
    };
    let stages = config.stages.iter().map(|stage| {
        let templates = stage.regularization_prompts.as_ref();
        let templates = templates.map_or(&[][..], PromptSource::templates);
        let mut prompts = StagePrompts::new(&words, stage.prompts.templates(), templates)?;
        if let Some(augmentation) = stage.augmentation {
            let (templates, in_front) = (stage.prompts.templates(), augmentation.words());
            prompts = prompts.with_words_in_front(&words, templates, in_front)?;
        }
        if let Some(prior) = stage.prior() {
            let class_prompts = class_prompts(prior, phrase.class());
            prompts = prompts.with_class_prompts(&words, &class_prompts);
        }
        match stage.sentence() {
            Some(template) => prompts.with_sentence(&words, template),
            None => Ok(prompts),
        }
    });
    stages.collect()
}

/// Where the class images of prior preservation come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClassImages {
    /// As the term says; the untuned model draws what is not there yet.
    AsConfigured,
    /// The concept's photos stand for them, which costs a step as much.
    StandIns,
}

/// The nested dropout of a mapper that the stage trains.
pub(crate) fn nested_dropout(
    stage: &StageConfig,
    model: &PersonalizedModel,
) -> Option<NestedDropout> {
    let probability = stage.neti()?.nested_dropout;
    let mapper = model.mapper()?.config();
    (probability > 0.0).then_some(NestedDropout {
        layers: mapper.layers,
        hidden: mapper.hidden,
        probability,
    })
}

/// Where the batches of every stage come from, of a replayed first stage with its model. A replayed first stage needs no photos.
///
/// # Errors
/// Photos or class images that cannot be had, a replay that does not fit.
pub(crate) fn sources(
    config: &RunConfig,
    base: &BaseModel,
    noise_scheduler: &DdpmScheduler,
    replay: Option<(&Path, &PersonalizedModel)>,
    class_images: ClassImages,
) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    if let Some((path, model)) = replay {
        let fit = ReplayFit {
            stage: &config.stages[0],
            channels: base.pipeline.model.unet().config().in_channels,
            num_train_timesteps: noise_scheduler.num_train_timesteps(),
            nested_dropout: nested_dropout(&config.stages[0], model),
        };
        sources.push(Source::Replay(Box::new(Replay::open(path, fit)?)));
    }
    let mut encoded: Option<Arc<Photos>> = None;
    for stage in sources.len()..config.stages.len() {
        let photos = match (config.stages[stage].augmentation, &encoded) {
            (Some(augmentation), _) => Arc::new(augmented(config, base, augmentation)?),
            (None, Some(photos)) => Arc::clone(photos),
            (None, None) => {
                let photos = load_photos(&config.concept, base.photo_side()?)?;
                let photos = encode(photos, config, base);
                Arc::clone(encoded.insert(Arc::new(Photos::Encoded(Box::new(photos)))))
            }
        };
        let prior = config.stages[stage].prior().map(|prior| {
            let images = match class_images {
                ClassImages::AsConfigured => {
                    prior::class_images(config, prior, base, base.photo_side()?)?
                }
                ClassImages::StandIns => load_photos(&config.concept, base.photo_side()?)?,
            };
            let (vae, device) = (&base.pipeline.vae, &base.device);
            Ok::<_, Error>(Arc::new(ConceptLatents::new(vae, &images, false, device)))
        });
        sources.push(Source::Random(Draws {
            photos,
            prior: prior.transpose()?,
            seed: config.seed,
            stage,
        }));
    }
    Ok(sources)
}

fn encode(photos: Vec<RgbImage>, config: &RunConfig, base: &BaseModel) -> ConceptLatents {
    let flip = config.concept.flip;
    ConceptLatents::new(&base.pipeline.vae, &photos, flip, &base.device)
}

fn augmented(
    config: &RunConfig,
    base: &BaseModel,
    augmentation: AugmentationConfig,
) -> Result<Photos> {
    Ok(Photos::Augmented(Box::new(AugmentedPhotos {
        photos: read_photos(&config.concept)?,
        augmentation,
        frame: Frame {
            side: base.photo_side()?,
            cell: base.pipeline.vae.config().factor() as u32,
        },
        vae: base.pipeline.vae.clone(),
        device: base.device.clone(),
    })))
}
