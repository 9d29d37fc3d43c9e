//! Dynamic loss scaling (Micikevicius et al. 2018): gradients inside a network in float16 are computed
//! of the loss times a factor, so that they do not vanish below its range, and divided by it in float32.
//!
//! A step whose gradients are not finite is computed again with half the factor, which grows again
//! after many steps without that. Factors are powers of two, so that they cost no accuracy.

use burn::tensor::DType;

/// The first factor, that of `torch.amp.GradScaler`.
const FIRST: f64 = 65_536.0;

/// Steps without an overflow after which the factor doubles, as in PyTorch.
const INTERVAL: u32 = 2000;

/// The factor of the loss, and what its next growth depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LossScale {
    factor: f64,
    /// Since the factor changed.
    steps: u32,
}

impl LossScale {
    /// That of a run whose networks compute in this format; only float16 needs one.
    pub(crate) fn of(format: DType) -> Option<Self> {
        (format == DType::F16).then_some(Self {
            factor: FIRST,
            steps: 0,
        })
    }

    /// What the loss is multiplied by.
    pub(crate) fn factor(&self) -> f64 {
        self.factor
    }

    /// After a step whose gradients are finite.
    pub(crate) fn keep(&mut self) {
        self.steps += 1;
        if self.steps == INTERVAL {
            self.factor *= 2.0;
            self.steps = 0;
        }
    }

    /// After gradients that are not finite: whether a smaller factor is left to try.
    pub(crate) fn shrink(&mut self) -> bool {
        if self.factor <= 1.0 {
            return false;
        }
        self.factor /= 2.0;
        self.steps = 0;
        true
    }

    /// What a resumed run needs.
    pub(crate) fn state(&self) -> Vec<f32> {
        vec![self.factor as f32, self.steps as f32]
    }

    /// The one that an interrupted run had; none where `state` is none's.
    pub(crate) fn restored(state: &[f32]) -> Option<Self> {
        let [factor, steps] = state else { return None };
        (factor.is_finite() && *factor >= 1.0).then_some(Self {
            factor: f64::from(*factor),
            steps: *steps as u32,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_float16_scales_losses() {
        assert_eq!(LossScale::of(DType::F32), None);
        assert_eq!(LossScale::of(DType::BF16), None);
        assert_eq!(LossScale::of(DType::F16).unwrap().factor(), 65_536.0);
    }

    #[test]
    fn the_factor_halves_down_to_one_and_doubles_after_two_thousand_good_steps() {
        let mut scale = LossScale::of(DType::F16).unwrap();
        let halvings = std::iter::from_fn(|| scale.shrink().then(|| scale.factor()));
        assert_eq!(halvings.last(), Some(1.0));
        assert!(!scale.shrink());
        (0..1999).for_each(|_| scale.keep());
        assert_eq!(scale.factor(), 1.0);
        scale.keep();
        assert_eq!(scale.factor(), 2.0);
    }

    #[test]
    fn an_overflow_begins_the_count_anew() {
        let mut scale = LossScale::of(DType::F16).unwrap();
        (0..1999).for_each(|_| scale.keep());
        assert!(scale.shrink());
        scale.keep();
        assert_eq!(scale.factor(), 32_768.0);
    }

    #[test]
    fn a_restored_scale_is_the_same() {
        let mut scale = LossScale::of(DType::F16).unwrap();
        assert!(scale.shrink());
        (0..7).for_each(|_| scale.keep());
        assert_eq!(LossScale::restored(&scale.state()), Some(scale));
        assert_eq!(LossScale::restored(&[0.0, 1.0]), None);
        assert_eq!(LossScale::restored(&[]), None);
    }
}
