//! Random numbers as a pure function of (seed, purpose, index).
//!
//! Every draw of the project comes from here, on the host, so that threads, resumed runs and
//! other devices draw the same numbers.

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use sha2::{Digest, Sha256};

/// A generator for the `index`-th draw that serves `purpose` in the run with this `seed`.
///
/// Two calls with equal arguments give the same stream; any other arguments give an unrelated one.
pub fn rng(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    hasher.update(index.to_le_bytes());
    hasher.update(purpose.as_bytes());
    ChaCha8Rng::from_seed(hasher.finalize().into())
}

/// `len` draws from the standard normal distribution.
pub fn standard_normal(seed: u64, purpose: &str, index: u64, len: usize) -> Vec<f32> {
    let mut generator = rng(seed, purpose, index);
    (0..len).map(|_| generator.sample(StandardNormal)).collect()
}

/// A tensor of standard normal draws with the given shape.
pub fn randn<const D: usize>(
    shape: [usize; D],
    seed: u64,
    purpose: &str,
    index: u64,
    device: &Device,
) -> Tensor<D> {
    let values = standard_normal(seed, purpose, index, shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[cfg(test)]
mod tests {
    use super::standard_normal;

    #[test]
    fn draws_depend_on_seed_purpose_and_index_only() {
        let draw = standard_normal(1, "noise", 2, 4);
        assert_eq!(draw, standard_normal(1, "noise", 2, 4));
        assert_ne!(draw, standard_normal(2, "noise", 2, 4));
        assert_ne!(draw, standard_normal(1, "latents", 2, 4));
        assert_ne!(draw, standard_normal(1, "noise", 3, 4));
    }

    #[test]
    fn a_shorter_draw_is_a_prefix_of_a_longer_one() {
        assert_eq!(
            standard_normal(0, "noise", 0, 9)[..4],
            standard_normal(0, "noise", 0, 4)
        );
    }
}
