//! What the golden tests of networks share: fixtures and the measure of agreement.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use core_model::checkpoint::Checkpoint;
use core_model::device::parse_device;
use core_model::params::{ParamNames, to_vec};
use serde_json::Value;

/// What float32 networks must agree to: the largest difference over the largest value.
const TOLERANCE: f32 = 1e-4;

/// Gradients smaller than this part of the largest are rounding, as in the scripts.
const FLOOR: f64 = 1e-4;

/// The file that diffusers keeps weights in.
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// The device that `CORE_TEST_DEVICE` names, else the cpu.
pub(crate) fn device() -> Device {
    let name = std::env::var("CORE_TEST_DEVICE");
    parse_device(name.as_deref().unwrap_or("cpu")).unwrap()
}

/// A folder of golden files.
pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A copy of a fixture with one key of its config.json set.
pub(crate) fn edited(name: &str, key: &str, value: Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture(name).join(WEIGHTS), folder.path().join(WEIGHTS)).unwrap();
    let text = std::fs::read_to_string(fixture(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config[key] = value;
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

/// Key and shape of every tensor in a folder's weights, as the file spells them.
pub(crate) fn stored_tensors(folder: &Path) -> BTreeMap<String, Vec<usize>> {
    let file = Checkpoint::open(&folder.join(WEIGHTS), |key| Some(key.to_string())).unwrap();
    file.keys()
        .map(|key| (key.to_string(), file.info(key).unwrap().shape.clone()))
        .collect()
}

/// The inputs and outputs that the reference implementation gave.
pub(crate) struct Golden {
    name: String,
    file: Checkpoint,
}

impl Golden {
    /// Opens `io.safetensors` of a fixture.
    pub(crate) fn open(name: &str) -> Self {
        let path = fixture(name).join("io.safetensors");
        Self {
            name: name.to_string(),
            file: Checkpoint::open(&path, |key| Some(key.to_string())).unwrap(),
        }
    }

    fn read(&self, key: &str) -> (Vec<f32>, Vec<usize>) {
        let read = self.file.read_f32(key).unwrap();
        read.unwrap_or_else(|| panic!("{}: no {key}", self.name))
    }

    /// A tensor of the file.
    pub(crate) fn tensor<const D: usize>(&self, key: &str) -> Tensor<D> {
        let (values, shape) = self.read(key);
        Tensor::from_data(TensorData::new(values, shape), &device())
    }

    /// How many keys begin like this.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.file
            .keys()
            .filter(|key| key.starts_with(prefix))
            .count()
    }

    /// Fails when a tensor is not the golden one; the largest difference over the largest value.
    pub(crate) fn check<const D: usize>(&self, key: &str, ours: Tensor<D>) -> f32 {
        let (golden, shape) = self.read(key);
        let name = &self.name;
        assert_eq!(ours.dims().to_vec(), shape, "{name}: {key}");
        let ours = to_vec(ours);
        let largest = golden.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let difference = ours
            .iter()
            .zip(&golden)
            .fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
        let relative = difference / largest;
        assert!(
            relative < TOLERANCE,
            "{name}: {key} differs by {relative:e} of {largest}"
        );
        relative
    }

    /// Fails when a gradient of any parameter is not the golden one: number by number for those
    /// that the file holds, by norm and product with a wave for all.
    pub(crate) fn check_gradients<M: Module>(
        &self,
        module: &M,
        names: &ParamNames,
        grads: &Gradients,
    ) {
        let golden = |key: &str| {
            let values = self.read(&format!("summary.{key}")).0;
            [f64::from(values[0]), f64::from(values[1])]
        };
        let mut visitor = Collector {
            golden: self,
            names,
            grads,
            summaries: BTreeMap::new(),
        };
        module.visit(&mut visitor);
        let summaries = visitor.summaries;
        assert_eq!(summaries.len(), self.count("summary."));
        let largest = summaries.values().fold(0.0f64, |a, ours| a.max(ours[0]));
        for (key, ours) in summaries {
            let golden = golden(&key);
            let allowed = f64::from(TOLERANCE) * golden[0].max(FLOOR * largest);
            for (ours, golden) in ours.into_iter().zip(golden) {
                let difference = (ours - golden).abs();
                assert!(
                    difference < allowed,
                    "{}: gradient of {key} has {ours} instead of {golden}",
                    self.name
                );
            }
        }
    }
}

struct Collector<'a> {
    golden: &'a Golden,
    names: &'a ParamNames,
    grads: &'a Gradients,
    summaries: BTreeMap<String, [f64; 2]>,
}

impl ModuleVisitor for Collector<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.names.name(param.id);
        let grad = param.val().grad(self.grads);
        let grad = grad.unwrap_or_else(|| panic!("{name} has no gradient"));
        let key = format!("grad.{name}");
        if self.golden.file.info(&key).is_some() {
            self.golden.check(&key, grad.clone());
        }
        let mut summary = [0.0; 2];
        for (i, value) in to_vec(grad).into_iter().map(f64::from).enumerate() {
            summary[0] += value * value;
            summary[1] += value * (i as f64).cos();
        }
        summary[0] = summary[0].sqrt();
        self.summaries.insert(name.to_string(), summary);
    }
}
