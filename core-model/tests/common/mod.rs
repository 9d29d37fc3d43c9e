//! What the golden tests share: fixtures and the measure of agreement.

use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData};
use core_model::checkpoint::Checkpoint;
use core_model::params::to_vec;

/// What float32 networks must agree to: the largest difference over the largest value.
pub(crate) const TOLERANCE: f32 = 1e-4;

/// A folder of golden files.
pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// The inputs and outputs that the reference implementation gave.
pub(crate) struct Golden(Checkpoint);

impl Golden {
    /// Opens `io.safetensors` of a fixture.
    pub(crate) fn open(name: &str) -> Self {
        let path = fixture(name).join("io.safetensors");
        Self(Checkpoint::open(&path, |key| Some(key.to_string())).unwrap())
    }

    /// A tensor of the file.
    pub(crate) fn tensor<const D: usize>(&self, key: &str) -> Tensor<D> {
        let (values, shape) = self
            .0
            .read_f32(key)
            .unwrap()
            .unwrap_or_else(|| panic!("no {key}"));
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    /// Fails when a tensor is not the golden one.
    pub(crate) fn check<const D: usize>(&self, key: &str, ours: Tensor<D>) {
        let (golden, shape) = self
            .0
            .read_f32(key)
            .unwrap()
            .unwrap_or_else(|| panic!("no {key}"));
        assert_eq!(ours.dims().to_vec(), shape, "{key}");
        let ours = to_vec(ours);
        let largest = golden.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let difference = ours
            .iter()
            .zip(&golden)
            .fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
        let relative = difference / largest;
        assert!(
            relative < TOLERANCE,
            "{key}: differs by {relative:e} of {largest}"
        );
    }

    /// Whether the file holds a key.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.0.info(key).is_some()
    }
}
