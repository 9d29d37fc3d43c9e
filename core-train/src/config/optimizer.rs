//! `[stages.optimizer]`: the rule by which weights move, and what its learning rate is multiplied with.

use core_model::ops::AdamW;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::optimizer::{Rule, SphericalSgd};

/// The optimiser: AdamW with the defaults of PyTorch, which are the paper's, unless `kind` names another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The rule by which weights move. Absent: `adamw`.
    #[serde(skip_serializing_if = "OptimizerKind::is_default")]
    pub kind: OptimizerKind,
    /// Of `adamw`: the decay rates of the first and the second moment. Absent: `[0.9, 0.999]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub betas: Option<[f64; 2]>,
    /// Of `adamw`: the constant that is added to the denominator. Absent: `1e-8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// Of `adamw`: the decoupled weight decay. Absent: `0.01`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Of `spherical_sgd`: how strongly the direction is pulled towards the one at the start. Absent: `1e-4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kappa: Option<f64>,
    /// Of `spherical_sgd`: the decay rate of the squared norm of the gradient, by which steps are divided. Absent: 0,
    /// and every step is as long as the learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// The largest norm of all gradients together; larger ones are scaled down. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<f64>,
    /// The schedule of the learning rate after the warm-up.
    pub lr_schedule: LrSchedule,
    /// The number of steps in which the learning rate rises from 0.
    pub lr_warmup_steps: usize,
}

/// The rules that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// AdamW, as `torch.optim.AdamW` computes it.
    #[default]
    #[serde(rename = "adamw")]
    AdamW,
    /// Steps along the sphere, for a stage that trains the `direction` of the embedding alone (Directional Textual
    /// Inversion).
    SphericalSgd,
}

impl OptimizerKind {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The name in TOML files.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdamW => "adamw",
            Self::SphericalSgd => "spherical_sgd",
        }
    }
}

impl OptimizerConfig {
    /// The rule with its constants.
    pub fn rule(&self) -> Rule {
        match self.kind {
            OptimizerKind::AdamW => Rule::AdamW(self.adamw()),
            OptimizerKind::SphericalSgd => Rule::SphericalSgd(self.spherical_sgd()),
        }
    }

    /// The constants of AdamW.
    pub fn adamw(&self) -> AdamW {
        let AdamW {
            betas,
            eps,
            weight_decay,
        } = AdamW::default();
        AdamW {
            betas: self.betas.unwrap_or(betas),
            eps: self.eps.unwrap_or(eps),
            weight_decay: self.weight_decay.unwrap_or(weight_decay),
        }
    }

    /// The constants of spherical SGD.
    pub fn spherical_sgd(&self) -> SphericalSgd {
        let SphericalSgd { kappa, beta } = SphericalSgd::default();
        SphericalSgd {
            kappa: self.kappa.unwrap_or(kappa),
            beta: self.beta.unwrap_or(beta),
        }
    }

    /// A key that is given although it belongs to another kind.
    pub(super) fn foreign_key(&self) -> Option<&'static str> {
        let of_adamw = [
            ("betas", self.betas.is_some()),
            ("eps", self.eps.is_some()),
            ("weight_decay", self.weight_decay.is_some()),
        ];
        let of_spherical_sgd = [
            ("kappa", self.kappa.is_some()),
            ("beta", self.beta.is_some()),
        ];
        let foreign = match self.kind {
            OptimizerKind::AdamW => &of_spherical_sgd[..],
            OptimizerKind::SphericalSgd => &of_adamw[..],
        };
        let given = foreign.iter().find(|(_, is_given)| *is_given);
        given.map(|(key, _)| *key)
    }

    /// Says every constant of its rule.
    pub(super) fn complete(&mut self) {
        match self.rule() {
            Rule::AdamW(config) => {
                self.betas = Some(config.betas);
                self.eps = Some(config.eps);
                self.weight_decay = Some(config.weight_decay);
            }
            Rule::SphericalSgd(config) => {
                self.kappa = Some(config.kappa);
                self.beta = Some(config.beta);
            }
        }
    }

    /// What the learning rate of a step, from 1, is multiplied with; as diffusers' `get_scheduler`
    /// of the same names.
    pub fn lr_factor(&self, step: usize, steps: usize) -> f64 {
        let (done, warmup) = ((step - 1) as f64, self.lr_warmup_steps as f64);
        if done < warmup {
            return done / warmup;
        }
        let progress = (done - warmup) / (steps as f64 - warmup).max(1.0);
        match self.lr_schedule {
            LrSchedule::Constant => 1.0,
            LrSchedule::Linear => (1.0 - progress).max(0.0),
            LrSchedule::Cosine => (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0),
        }
    }
}

/// Learning-rate schedule after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedule {
    /// The learning rate stays the same.
    #[default]
    Constant,
    /// The learning rate falls linearly to 0.
    Linear,
    /// The learning rate falls to 0 along half a cosine.
    Cosine,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rates_follow_their_schedule() {
        let mut config = OptimizerConfig::default();
        assert_eq!(config.lr_factor(1, 10), 1.0);
        config.lr_warmup_steps = 2;
        assert_eq!([1, 2, 3].map(|s| config.lr_factor(s, 10)), [0.0, 0.5, 1.0]);
        config.lr_schedule = LrSchedule::Linear;
        assert_eq!(config.lr_factor(7, 10), 0.5);
        config.lr_schedule = LrSchedule::Cosine;
        assert!((config.lr_factor(7, 10) - 0.5).abs() < 1e-12);
    }
}
