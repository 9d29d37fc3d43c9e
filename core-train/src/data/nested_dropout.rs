//! NeTI's nested dropout: of the hidden units of a mapper only the first are kept, so that those say
//! the most.

use rand::Rng;
use rand::RngExt;

/// What truncations of a stage are drawn from.
#[derive(Debug, Clone, Copy)]
pub struct NestedDropout {
    /// Cross-attention layers of the U-Net.
    pub layers: usize,
    /// Hidden units of the mapper.
    pub hidden: usize,
    /// How likely a layer is truncated in a forward pass.
    pub probability: f64,
}

impl NestedDropout {
    /// The number of units that are kept, of all samples of the first layer, then of the second, and
    /// so on: a layer is truncated for all samples or none, for each to another number below all.
    pub(crate) fn draw(&self, rng: &mut impl Rng, batch: usize) -> Vec<usize> {
        let mut kept = Vec::with_capacity(self.layers * batch);
        for _ in 0..self.layers {
            let is_truncated = rng.random_bool(self.probability);
            kept.extend((0..batch).map(|_| {
                let units = rng.random_range(0..self.hidden);
                if is_truncated { units } else { self.hidden }
            }));
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use core_model::rng::rng;

    use super::*;

    #[test]
    fn a_layer_is_truncated_for_all_samples_or_none() {
        let dropout = NestedDropout {
            layers: 2000,
            hidden: 4,
            probability: 0.3,
        };
        let kept = dropout.draw(&mut rng(0, "a test", 0), 3);
        let (whole, truncated): (Vec<&[usize]>, Vec<&[usize]>) =
            kept.chunks(3).partition(|samples| samples.contains(&4));
        assert!(whole.iter().all(|samples| *samples == [4, 4, 4]));
        // 600 of 2000, give or take three standard deviations.
        assert!((538..662).contains(&truncated.len()), "{}", truncated.len());
        for units in 0..4 {
            let count = truncated
                .concat()
                .iter()
                .filter(|kept| **kept == units)
                .count();
            assert!(count > 350, "{units}: {count}");
        }
    }
}
