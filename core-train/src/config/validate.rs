//! Values that parse but cannot be.

use std::path::Path;

use core_losses::{LossTerm, Reading, Term};
use core_metrics::EncoderKind;
use core_model::files::is_plain_name;

use super::checker::Checker;
use super::sets::{check_direction, check_neti};
use super::{RunConfig, StageConfig, ValidationConfig, tuning_free};
use crate::data::prompts::check_template;
use crate::error::Result;
use crate::optimizer::Rule;
use crate::phrase::{CLASS, TOKEN};

/// Checks the number of vectors, which the recipe or the concept may say.
pub(super) fn num_vectors(config: &RunConfig, path: &Path) -> Result<()> {
    let check = Checker { path };
    let of_concept = config.concept.num_vectors;
    check.at_least_one(of_concept.unwrap_or(1), "concept.num_vectors".into())?;
    let Some(of_recipe) = config.num_vectors else {
        return Ok(());
    };
    check.at_least_one(of_recipe, "num_vectors".into())?;
    let differs = of_concept.filter(|of_concept| *of_concept != of_recipe);
    let reason = format!(
        "is {of_recipe}, but the concept's own `num_vectors` is {}; leave one of them out",
        differs.unwrap_or_default()
    );
    check.require(differs.is_none(), "num_vectors", reason)
}

/// Checks how the concept is written.
pub(super) fn tokens(config: &RunConfig, path: &Path) -> Result<()> {
    let check = Checker { path };
    if let (Some(phrase), Some(_)) = (&config.phrase, &config.adapter) {
        tuning_free::check_phrase(&check, phrase)?;
    } else if let Some(phrase) = &config.phrase {
        let rest = phrase.replace(CLASS, "").replacen(TOKEN, "", 1);
        check.require(
            phrase.contains(TOKEN) && !rest.contains(['{', '}']),
            "phrase",
            format!(
                "is {phrase:?}, expected words with {TOKEN} once, where the concept's token goes, \
                 and, if wanted, {CLASS}, where the super-category goes"
            ),
        )?;
    }
    let needs_class = |term: &LossTerm| term.reads().contains(&Reading::ClassWord);
    let mut terms = config.stages.iter().flat_map(|stage| &stage.regularizers);
    if let Some(term) = terms.find(|term| needs_class(term)) {
        check.require(
            config.phrase().before_class().is_some(),
            "phrase",
            format!(
                "has no {CLASS} after {TOKEN}, whose attention `{}` compares; write \
                 \"{TOKEN} {CLASS}\"",
                term.kind()
            ),
        )?;
    }
    let Some(token) = &config.rare_token else {
        return Ok(());
    };
    let concept = &config.concept;
    let filled = !token.trim().is_empty() && !token.contains(['{', '}']);
    check.require(
        filled,
        "rare_token",
        format!("is {token:?}, expected a word"),
    )?;
    check.require(
        concept.placeholder_token.is_none(),
        "concept.placeholder_token",
        "names a token beside `rare_token`; a concept has one of them",
    )?;
    check.require(
        concept.num_vectors() == 1,
        "num_vectors",
        "needs a learned token, but `rare_token` is a word of the vocabulary; leave one of them out",
    )?;
    check.require(
        config.initializer.is_none(),
        "initializer",
        "has no effect: `rare_token` is a word that the model has; leave one of them out",
    )?;
    let reads = |term: &&LossTerm| term.reads().contains(&Reading::Embedding);
    for (index, stage) in config.stages.iter().enumerate() {
        if let Some(term) = stage.regularizers.iter().find(reads) {
            check.require(
                false,
                format!("stages.{index}.regularizers"),
                format!(
                    "holds `{}`, which reads the learned embedding, but with `rare_token` there is \
                     none; leave one of them out",
                    term.kind()
                ),
            )?;
        }
    }
    let trains = config.stages.iter().position(StageConfig::trains_embedding);
    match trains {
        Some(index) => check.require(
            false,
            format!("stages.{index}.train"),
            "holds `embedding`, but with `rare_token` there is none to train; leave one of them out",
        ),
        None => Ok(()),
    }
}

/// Checks everything that needs no model.
pub(super) fn run(config: &RunConfig, path: &Path) -> Result<()> {
    let check = Checker { path };
    let concept = &config.concept;
    let filled = |text: &str| !text.trim().is_empty();
    check.require(
        config.model.variant.as_deref().is_none_or(is_plain_name),
        "model.variant",
        "cannot be part of a file's name; write it as \"fp16\"",
    )?;
    check.require(filled(&concept.name), "concept.name", "is empty")?;
    check.require(
        filled(&concept.super_category),
        "concept.super_category",
        "is empty; name what kind of thing the concept is, as in \"dog\"",
    )?;
    check.require(
        filled(concept.initializer()),
        "concept.initializer_token",
        "is empty; name a word, or leave the key out to start from the super-category",
    )?;
    let token = concept.placeholder_token();
    check.require(
        filled(&token) && !token.contains("{}"),
        "concept.placeholder_token",
        format!("is {token:?}; name a word that stands for the concept, as in \"<robot>\""),
    )?;
    if let Some(validation) = &config.validation {
        check_validation(&check, validation)?;
    }
    if let Some(every) = config.checkpoint_every {
        check.at_least_one(every, "checkpoint_every".into())?;
    }
    for (index, kind) in config.report_to.iter().enumerate() {
        check.require(
            !config.report_to[..index].contains(kind),
            "report_to",
            "names something twice",
        )?;
    }
    if let Some(adapter) = &config.adapter {
        return tuning_free::check(&check, config, adapter);
    }
    check.require(
        !config.stages.is_empty(),
        "stages",
        "is empty; there is nothing to do",
    )?;
    check_neti(&check, config)?;
    for (index, stage) in config.stages.iter().enumerate() {
        check_stage(&check, index, stage)?;
        let first = config
            .stages
            .iter()
            .position(|other| other.name == stage.name);
        check.require(
            first == Some(index),
            format!("stages.{index}.name"),
            format!(
                "is {:?} like an earlier stage's; rows of metrics.csv go by it",
                stage.name
            ),
        )?;
    }
    Ok(())
}

fn check_validation(check: &Checker<'_>, validation: &ValidationConfig) -> Result<()> {
    check.at_least_one(validation.every, "validation.every".into())?;
    check.require(
        !validation.prompts.is_empty(),
        "validation.prompts",
        "is empty",
    )?;
    let mut prompts = validation.prompts.iter();
    prompts.try_for_each(|prompt| check_template(prompt))?;
    check_encoders(check, validation)
}

/// Scores and the image encoders that compute them come together.
fn check_encoders(check: &Checker<'_>, validation: &ValidationConfig) -> Result<()> {
    const KEY: &str = "validation.encoders";
    let (of_faces, kinds): (Vec<_>, Vec<_>) = EncoderKind::all()
        .into_iter()
        .partition(|kind| kind.reads_faces());
    let keys: Vec<&str> = kinds.iter().map(|kind| kind.key).collect();
    let keys = keys.join(", ");
    let given = !validation.encoders.is_empty();
    check.require(
        !given || validation.scores,
        KEY,
        "has no effect without `validation.scores = true`; write that, or leave the encoders out",
    )?;
    check.require(
        given || !validation.scores,
        KEY,
        format!(
            "names no image encoder, which `validation.scores` needs; write \
             {{ clip = \"..\", dino = \"..\" }} (keys: {keys})"
        ),
    )?;
    for kind in of_faces {
        check.require(
            !validation.encoders.contains_key(kind.key),
            format!("{KEY}.{}", kind.key),
            "compares faces, and nothing finds faces in validation images; name it below \
             [evaluation] of an experiment instead",
        )?;
    }
    let mut unknown = validation.encoders.keys();
    match unknown.find(|key| kinds.iter().all(|kind| kind.key != **key)) {
        Some(key) => check.require(
            false,
            format!("{KEY}.{key}"),
            format!("is no image encoder; there are {keys}"),
        ),
        None => Ok(()),
    }
}

fn check_stage(check: &Checker<'_>, index: usize, stage: &StageConfig) -> Result<()> {
    let key = |name: &str| format!("stages.{index}.{name}");
    check.require(
        !stage.train.is_empty(),
        key("train"),
        "is empty; name what to train, as in [\"embedding\"]",
    )?;
    check.at_least_one(stage.steps, key("steps"))?;
    check.at_least_one(stage.batch_size, key("batch_size"))?;
    check.positive(stage.learning_rate, key("learning_rate"))?;
    for (place, entry) in stage.train.iter().enumerate() {
        if let Some(rate) = entry.learning_rate {
            check.positive(rate, key(&format!("train.{place}.learning_rate")))?;
        }
    }
    check.at_least_one(
        stage.gradient_accumulation_steps,
        key("gradient_accumulation_steps"),
    )?;
    check_optimizer(check, stage, &key)?;
    check_direction(check, index, stage, &key)?;
    if let Some(window) = stage.rescale_window() {
        check.require(
            stage.trains_embedding(),
            key("rescale"),
            "rescales the embedding, which this stage does not train; leave the key out",
        )?;
        check.require(
            window.from < window.to,
            key("rescale"),
            format!(
                "goes from step {} to {}, expected from < to",
                window.from, window.to
            ),
        )?;
    }
    for (place, regularizer) in stage.regularizers.iter().enumerate() {
        let weight = regularizer.weight();
        check.require(
            weight.is_finite() && weight >= 0.0,
            key(&format!("regularizers.{place}.weight")),
            format!("is {weight}, expected 0 or more"),
        )?;
        let kinds = stage.regularizers.iter().map(LossTerm::kind);
        check.require(
            kinds.filter(|kind| *kind == regularizer.kind()).count() == 1,
            key(&format!("regularizers.{place}.kind")),
            format!("is {:?} twice in one stage", regularizer.kind()),
        )?;
    }
    let sentences = stage.regularizers.iter().filter_map(Term::sentence);
    for template in sentences {
        check_template(template)?;
    }
    check_prior(check, stage, &key)?;
    check_prompts(check, stage, &key)
}

fn check_prior(
    check: &Checker<'_>,
    stage: &StageConfig,
    key: &impl Fn(&str) -> String,
) -> Result<()> {
    let place = stage
        .regularizers
        .iter()
        .position(|term| matches!(term, LossTerm::PriorPreservation(_)));
    let Some((place, LossTerm::PriorPreservation(prior))) =
        place.map(|place| (place, &stage.regularizers[place]))
    else {
        return Ok(());
    };
    let key = |name: &str| key(&format!("regularizers.{place}.{name}"));
    check.at_least_one(prior.num_images, key("num_images"))?;
    check.require(
        !prior.prompts.is_empty(),
        key("prompts"),
        "is empty; write [\"a photo of {class}\"]",
    )?;
    for prompt in &prior.prompts {
        let rest = prompt.replace(CLASS, "");
        check.require(
            !rest.contains(['{', '}']) && !prompt.trim().is_empty(),
            key("prompts"),
            format!(
                "holds {prompt:?}, expected words in which {CLASS} may stand for the super-category"
            ),
        )?;
    }
    Ok(())
}

fn check_optimizer(
    check: &Checker<'_>,
    stage: &StageConfig,
    key: &impl Fn(&str) -> String,
) -> Result<()> {
    let optimizer = &stage.optimizer;
    if let Some(foreign) = optimizer.foreign_key() {
        check.require(
            false,
            key(&format!("optimizer.{foreign}")),
            format!("is no key of {:?}; leave it out", optimizer.kind.name()),
        )?;
    }
    let below_one = |value: f64, name: &str| {
        check.require(
            (0.0..1.0).contains(&value),
            key(name),
            format!("holds {value}, expected numbers from 0 to below 1"),
        )
    };
    let at_least_zero = |value: f64, name: &str| {
        let reason = format!("is {value}, expected 0 or more");
        check.require(value.is_finite() && value >= 0.0, key(name), reason)
    };
    match optimizer.rule() {
        Rule::AdamW(adamw) => {
            for beta in adamw.betas {
                below_one(beta, "optimizer.betas")?;
            }
            check.positive(adamw.eps, key("optimizer.eps"))?;
            at_least_zero(adamw.weight_decay, "optimizer.weight_decay")?;
        }
        Rule::SphericalSgd(config) => {
            below_one(config.beta, "optimizer.beta")?;
            at_least_zero(config.kappa, "optimizer.kappa")?;
        }
    }
    match optimizer.max_grad_norm {
        Some(norm) => check.positive(norm, key("optimizer.max_grad_norm")),
        None => Ok(()),
    }
}

fn check_prompts(
    check: &Checker<'_>,
    stage: &StageConfig,
    key: &impl Fn(&str) -> String,
) -> Result<()> {
    let sources = [
        ("prompts", Some(&stage.prompts)),
        (
            "regularization_prompts",
            stage.regularization_prompts.as_ref(),
        ),
    ];
    for (name, source) in sources {
        let Some(source) = source else { continue };
        let templates = source.templates();
        check.require(!templates.is_empty(), key(name), "holds no template")?;
        templates
            .iter()
            .try_for_each(|template| check_template(template))?;
    }
    Ok(())
}
