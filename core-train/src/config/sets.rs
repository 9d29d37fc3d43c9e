//! What sets of weights cannot be combined with.

use core_losses::{LossTerm, Reading, Term};

use super::checker::Checker;
use super::{OptimizerKind, RunConfig, StageConfig};
use crate::adapters::{AdapterConfig, Bypass, Direction, Embedding, Neti, Scale};
use crate::error::Result;

/// A direction and the optimiser that moves one need each other, and nothing beside them.
pub(super) fn check_direction(
    check: &Checker<'_>,
    index: usize,
    stage: &StageConfig,
    key: &impl Fn(&str) -> String,
) -> Result<()> {
    const EXAMPLE: &str = "train = [{ kind = \"embedding\", direction = { scale = \"mean\" } }]";
    let spherical = stage.optimizer.kind == OptimizerKind::SphericalSgd;
    let mut entries = stage.train.iter();
    let direction = entries.find_map(|entry| match entry.adapter {
        AdapterConfig::Embedding(Embedding { direction }) => direction,
        _ => None,
    });
    let Some(Direction { scale }) = direction else {
        let reason = format!(
            "is \"spherical_sgd\", which moves the direction of the concept's vectors; write {EXAMPLE}"
        );
        return check.require(!spherical, key("optimizer.kind"), reason);
    };
    check.require(
        index == 0,
        key("train"),
        "sets the length of the concept's vectors by `direction`, before anything is trained; move \
         it to the first stage",
    )?;
    check.require(
        stage.train.len() == 1,
        key("train"),
        format!("holds other sets beside a `direction`, which its optimiser cannot move; write {EXAMPLE}"),
    )?;
    check.require(
        spherical,
        key("optimizer.kind"),
        format!(
            "is {:?}, which does not keep the length of vectors of which only the `direction` is \
             trained; write kind = \"spherical_sgd\"",
            stage.optimizer.kind.name()
        ),
    )?;
    check.require(
        stage.rescale_window().is_none(),
        key("rescale"),
        "restores a length that a `direction` never changes; leave the key out",
    )?;
    match scale {
        Scale::Length(length) => check.positive(length, key("train.0.direction.scale")),
        Scale::OfTable(_) => Ok(()),
    }
}

/// A mapper stands in place of the concept's vectors, and for one token.
pub(super) fn check_neti(check: &Checker<'_>, config: &RunConfig) -> Result<()> {
    let Some(first) = config.neti() else {
        return Ok(());
    };
    check.require(
        config.rare_token.is_none(),
        "rare_token",
        "is the concept's token, but `neti` learns what a new one means; leave one of them out",
    )?;
    check.require(
        config.concept.num_vectors() == 1,
        "concept.num_vectors",
        format!(
            "is {}, but `neti` learns one embedding for every timestep and layer; leave the key out",
            config.concept.num_vectors()
        ),
    )?;
    for (index, stage) in config.stages.iter().enumerate() {
        let key = |name: &str| format!("stages.{index}.{name}");
        check.require(
            !stage.trains_embedding(),
            key("train"),
            "holds `embedding`, but the recipe trains `neti`, which gives the concept's embedding by a \
             mapper; leave one of them out",
        )?;
        let reads_states = |term: &&LossTerm| !term.reads().iter().all(|r| is_of_the_unet(*r));
        if let Some(term) = stage.regularizers.iter().find(reads_states) {
            check.require(
                false,
                key("regularizers"),
                format!(
                    "holds `{}`, which compares embeddings or prompts, but with `neti` those differ by \
                     timestep and layer; leave one of them out",
                    term.kind()
                ),
            )?;
        }
        if let Some(neti) = stage.neti() {
            check_sizes(check, neti, &key)?;
            let with_dropout_of_first = Neti {
                nested_dropout: first.nested_dropout,
                ..*neti
            };
            check.require(
                with_dropout_of_first == *first,
                key("train"),
                "gives `neti` other keys than an earlier stage, whose mapper it goes on with; only \
                 `nested_dropout` may differ",
            )?;
        }
    }
    Ok(())
}

/// Whether a quantity is there without one state for each token.
fn is_of_the_unet(reading: Reading) -> bool {
    matches!(
        reading,
        Reading::PhotoPrediction
            | Reading::PhotoAttention
            | Reading::PriorPrediction
            | Reading::ClassWord
    )
}

fn check_sizes(check: &Checker<'_>, neti: &Neti, key: &impl Fn(&str) -> String) -> Result<()> {
    let key = |name: &str| key(&format!("train.neti.{name}"));
    check.at_least_one(neti.hidden, key("hidden"))?;
    check.at_least_one(neti.frequencies, key("frequencies"))?;
    check.require(
        (1..=1000).contains(&neti.time_anchors),
        key("time_anchors"),
        format!("is {}, expected a number from 1 to 1000", neti.time_anchors),
    )?;
    check.positive(neti.sigma_t, key("sigma_t"))?;
    check.positive(neti.sigma_l, key("sigma_l"))?;
    check.require(
        (0.0..=1.0).contains(&neti.nested_dropout),
        key("nested_dropout"),
        format!("is {}, expected a probability", neti.nested_dropout),
    )?;
    match neti.bypass {
        Bypass::Strength(strength) => check.positive(strength, key("bypass")),
        Bypass::Off(_) => Ok(()),
    }
}
