//! How parameters start that no checkpoint provides.

use rand::RngExt;
use rand_distr::{StandardNormal, StandardUniform};

use crate::rng::rng;

/// How a parameter starts when no checkpoint provides it.
#[derive(Debug, Clone, Copy)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// This value everywhere.
    Constant(f32),
    /// Normal with this standard deviation.
    Normal(f32),
    /// Uniform in ±1/sqrt(fan_in): torch's default for linear and convolution, weight and bias.
    FanIn(usize),
}

impl Init {
    /// The first `len` numbers that follow from `seed` and the parameter's key.
    pub(super) fn draw(self, seed: u64, key: &str, len: usize) -> Vec<f32> {
        let mut generator = rng(seed, key, 0);
        match self {
            Self::Zeros => vec![0.0; len],
            Self::Ones => vec![1.0; len],
            Self::Constant(value) => vec![value; len],
            Self::Normal(std) => (0..len)
                .map(|_| std * generator.sample::<f32, _>(StandardNormal))
                .collect(),
            Self::FanIn(fan_in) => {
                let bound = 1.0 / (fan_in as f32).sqrt();
                (0..len)
                    .map(|_| bound * (2.0 * generator.sample::<f32, _>(StandardUniform) - 1.0))
                    .collect()
            }
        }
    }
}
