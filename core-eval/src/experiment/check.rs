//! Checks of an experiment's values.

use anyhow::{Context, Result, bail, ensure};
use core_train::adapters::Neti;
use core_train::config::Group;
use core_train::data::prompts::check_template;

use super::{Experiment, Variant};
use crate::effects::Effect;
use crate::metrics::Compared;
use crate::protocol::is_unrelated;
use crate::reference;

impl Experiment {
    /// Refuses an experiment that cannot run. No model is read.
    ///
    /// # Errors
    /// The first thing that is wrong, naming its key and what was expected.
    pub fn check(&self) -> Result<()> {
        check_name(&self.name).map_err(|reason| anyhow::anyhow!("`name` {reason}"))?;
        ensure!(
            self.name != reference::FOLDER,
            "`name` is `{}`, the folder of committed results; choose another",
            self.name
        );
        self.check_variants()?;
        self.check_concepts()?;
        self.check_seeds()?;
        for (key, value) in [
            ("steps", self.sampling.steps),
            ("images_per_prompt", self.sampling.images_per_prompt),
        ] {
            ensure!(value > 0, "`sampling.{key}` is 0; expected 1 or more");
        }
        self.check_guidance()?;
        self.check_truncation()?;
        self.check_test_time()?;
        // Whether an encoder of faces needs masks, its folder says, which may not be fetched yet.
        if !self.evaluation.encoders.read_faces() {
            self.evaluation.check_masks(None)?;
        }
        self.check_kinds()?;
        self.check_drift()?;
        self.check_base_prompt()?;
        self.effects.iter().try_for_each(|e| self.check_effect(e))
    }

    fn check_variants(&self) -> Result<()> {
        ensure!(
            !self.variants.is_empty(),
            "there are no [[variants]]; write at least one"
        );
        for (index, variant) in self.variants.iter().enumerate() {
            let name = &variant.name;
            if let Err(reason) = check_name(name) {
                bail!("`variants.{index}.name` {reason}");
            }
            let mut before = self.variants[..index].iter();
            ensure!(
                before.all(|other| other.name != *name),
                "two variants are called `{name}`"
            );
        }
        Ok(())
    }

    fn check_guidance(&self) -> Result<()> {
        let common = [(
            "`sampling.guidance_scale`".to_string(),
            self.sampling.guidance_scale,
        )];
        let own = self.variants.iter().filter_map(|variant| {
            let key = format!("`guidance_scale` of variant `{}`", variant.name);
            Some((key, variant.guidance_scale?))
        });
        for (key, value) in common.into_iter().chain(own) {
            ensure!(
                value.is_finite() && value >= 0.0,
                "{key} is {value}; expected a number of at least 0 (at 1 there is no guidance)"
            );
        }
        Ok(())
    }

    fn check_concepts(&self) -> Result<()> {
        ensure!(
            !(self.concepts.is_empty() && self.absent.is_empty()),
            "`concepts` is empty; name at least one folder of photos"
        );
        for (index, concept) in self.concepts.iter().enumerate() {
            let name = &concept.name;
            if let Err(reason) = check_name(name) {
                bail!("{}: `name` {reason}", concept.images.display());
            }
            let mut before = self.concepts[..index].iter();
            ensure!(
                before.all(|other| other.name != *name),
                "two concepts are called `{name}`"
            );
            ensure!(
                !self.prompts_for(concept).is_empty(),
                "the concept `{name}` has no prompts: its `group` in concept.toml is {}, and {} has \
                 no row for that",
                concept.group.map_or("absent", Group::name),
                self.sampling.prompts.display()
            );
        }
        Ok(())
    }

    /// Refuses a truncation of mappers that no variant has, or to more units than one has.
    fn check_truncation(&self) -> Result<()> {
        let Some(kept) = self.sampling.truncation else {
            return Ok(());
        };
        let mappers: Vec<&Neti> = self.variants.iter().filter_map(Variant::neti).collect();
        ensure!(
            !mappers.is_empty(),
            "`sampling.truncation` is {kept}, but no variant trains `neti`; leave it out"
        );
        for neti in mappers {
            ensure!(
                kept <= neti.hidden,
                "`sampling.truncation` is {kept}, but a mapper has {} hidden units",
                neti.hidden
            );
        }
        Ok(())
    }

    /// Refuses prompts that an embedding cannot be optimised for.
    fn check_test_time(&self) -> Result<()> {
        let mut variants = self.variants.iter();
        let Some(variant) = variants.find(|variant| variant.test_time.is_some()) else {
            return Ok(());
        };
        let mut prompts = self.prompts.iter();
        prompts.try_for_each(|prompt| match is_unrelated(&prompt.kind) {
            true => Ok(()),
            false => check_template(&prompt.prompt).with_context(|| {
                format!(
                    "{}: `test_time` of variant `{}`",
                    self.sampling.prompts.display(),
                    variant.name
                )
            }),
        })
    }

    fn check_seeds(&self) -> Result<()> {
        ensure!(
            !self.seeds.is_empty(),
            "`seeds` is empty; write seeds = [0]"
        );
        for (index, seed) in self.seeds.iter().enumerate() {
            ensure!(
                !self.seeds[..index].contains(seed),
                "`seeds` holds {seed} twice"
            );
        }
        Ok(())
    }

    /// Refuses unrelated prompts where no variant is the base model, whose images they are compared with.
    fn check_drift(&self) -> Result<()> {
        let mut prompts = self.prompts.iter();
        let mut variants = self.variants.iter();
        ensure!(
            !prompts.any(|prompt| is_unrelated(&prompt.kind))
                || variants.any(|variant| variant.recipe.is_none()),
            "{} has prompts of the kind `unrelated`, which measure the drift from the base model's \
             images; add a variant with `untuned = true`",
            self.sampling.prompts.display()
        );
        Ok(())
    }

    /// Refuses a base prompt of which the base model generates no images.
    fn check_base_prompt(&self) -> Result<()> {
        let Some(base) = &self.evaluation.base_prompt else {
            return Ok(());
        };
        ensure!(
            self.variants.iter().any(|variant| variant.recipe.is_none()),
            "`evaluation.base_prompt` names images of the base model; add a variant with `untuned = true`"
        );
        for concept in &self.concepts {
            let prompts = self.prompts_for(concept);
            ensure!(
                prompts
                    .iter()
                    .any(|prompt| prompt.prompt == *base && !is_unrelated(&prompt.kind)),
                "`evaluation.base_prompt` is `{base}`, which is none of the prompts for concept `{}` in {}; \
                 name one of them, as `{}`",
                concept.name,
                self.sampling.prompts.display(),
                prompts.first().map_or("", |prompt| prompt.prompt.as_str())
            );
        }
        Ok(())
    }

    /// Refuses kinds of prompts that a protocol does not know.
    fn check_kinds(&self) -> Result<()> {
        let prompts = self.sampling.prompts.display();
        for protocol in self.evaluation.protocols()? {
            for prompt in &self.prompts {
                let checked = protocol.check_kind(&prompt.kind);
                checked.map_err(|error| error.context(prompts.to_string()))?;
            }
        }
        Ok(())
    }

    fn check_effect(&self, effect: &Effect) -> Result<()> {
        let margin = effect.margin();
        if !(margin >= 0.0 && margin.is_finite()) {
            bail!(
                "effect `{}`: `margin` is {margin}; expected what may be lost, 0 or more",
                effect.name()
            );
        }
        if let Effect::ScoreDifference { metric, .. } = effect {
            let encoder = metric.definition().encoder();
            ensure!(
                self.evaluation.encoders.get(encoder).is_some(),
                "effect `{}`: `metric` is `{}`, which needs a folder `{}` below [evaluation]",
                effect.name(),
                metric.column(),
                encoder.key
            );
            ensure!(
                self.metrics().contains(metric),
                "effect `{}`: `metric` is `{}`, which {}",
                effect.name(),
                metric.column(),
                match metric.compared_with() {
                    Compared::BaseImage => "needs prompts of the kind `unrelated`",
                    _ => "needs a `base_prompt` below [evaluation]",
                }
            );
        }
        let of_scores = matches!(effect, Effect::ScoreDifference { .. });
        for name in effect.variants() {
            let Some(variant) = self.variants.iter().find(|v| v.name == *name) else {
                bail!("effect `{}` names no variant with `{name}`", effect.name());
            };
            ensure!(
                of_scores || variant.test_time.is_none(),
                "effect `{}` is about the embedding of a run, and `{name}` has another one for \
                 every prompt (`test_time`); name the variant without `test_time`",
                effect.name()
            );
            ensure!(
                of_scores || !variant.is_tuning_free(),
                "effect `{}` is about an embedding that a run has learned, and `{name}` learns none \
                 (`[adapter]`); only differences of scores can be claimed of it",
                effect.name()
            );
            ensure!(
                of_scores || variant.neti().is_none(),
                "effect `{}` is about embeddings, of which `{name}` has other ones at every timestep \
                 and for every layer (`neti`); only differences of scores can be claimed of it",
                effect.name()
            );
        }
        Ok(())
    }
}

/// Refuses names that cannot be names of folders.
fn check_name(name: &str) -> Result<(), String> {
    let bad = |c: char| matches!(c, '/' | '\\' | ':' | '\0') || c.is_control();
    if name.trim().is_empty() || name.starts_with('.') || name.contains(bad) {
        return Err(format!(
            "is `{name}`, which cannot name a folder; use letters and spaces"
        ));
    }
    Ok(())
}
