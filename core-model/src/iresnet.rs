//! iResNet (Duta et al. 2020), the network of ArcFace (Deng et al. 2019) as insightface publishes it: aligned
//! faces of one person are near.
//!
//! A folder holds `config.json`, as `{"model_type": "iresnet", "layers": [3, 4, 14, 3]}` with the blocks of
//! the four stages, and `backbone.pth` or safetensors. Widths come from the shapes in the file.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::config::read_object;
use crate::error::{Error, Result};
use crate::nn::{BatchNorm, Conv2d, Conv2dConfig, Linear};
use crate::params::{Init, ParamBuilder};

/// Side of an aligned face, in pixels.
pub const FACE_SIDE: usize = 112;

/// Side of the last map of features, after four halvings.
const LAST_SIDE: usize = 7;

/// Epsilon of the batch norms.
const EPS: f64 = 1e-5;

/// The files that may hold the weights, in the order in which they are looked for.
const FILES: [&str; 3] = ["model.safetensors", "backbone.safetensors", "backbone.pth"];

/// The blocks of the four stages, the channels of the first layer and of the stages, and the width of a
/// feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IResNetConfig {
    /// Blocks of each stage.
    pub layers: [usize; 4],
    /// Channels of the first layer and of each stage.
    pub widths: [usize; 5],
    /// Width of a feature.
    pub features: usize,
}

impl IResNetConfig {
    /// Whether the configuration in a folder is that of an iResNet.
    ///
    /// # Errors
    /// An absent file, or one that is no JSON.
    pub fn is_in(folder: &Path) -> Result<bool> {
        let object = read_object(&folder.join("config.json"))?;
        Ok(object.get("model_type").and_then(Value::as_str) == Some("iresnet"))
    }

    /// What the configuration and the shapes of the weights say.
    fn read(folder: &Path, file: &Checkpoint) -> Result<Self> {
        let rows = |key: &str| {
            let info = file.info(key).filter(|info| !info.shape.is_empty());
            let missing = || {
                let reason = format!(
                    "tensor `{key}` is missing; expected an iResNet as insightface writes it"
                );
                Error::format(file.path(), reason)
            };
            Ok::<_, Error>(info.ok_or_else(missing)?.shape[0])
        };
        let mut widths = [rows("conv1.weight")?; 5];
        for (stage, width) in widths.iter_mut().enumerate().skip(1) {
            *width = rows(&format!("layer{stage}.0.conv1.weight"))?;
        }
        Ok(Self {
            layers: layers(&folder.join("config.json"))?,
            widths,
            features: rows("fc.weight")?,
        })
    }
}

/// The key `layers`.
fn layers(path: &Path) -> Result<[usize; 4]> {
    const EXPECTED: &str =
        "the numbers of blocks of four stages, as [3, 4, 14, 3] of an iResNet-50";
    let object = read_object(path)?;
    let value = object.get("layers").unwrap_or(&Value::Null);
    let numbers = value.as_array().map(|numbers| {
        let numbers = numbers.iter().map(Value::as_u64);
        numbers.collect::<Option<Vec<u64>>>().unwrap_or_default()
    });
    match numbers.unwrap_or_default()[..] {
        [a, b, c, d] if [a, b, c, d].iter().all(|blocks| *blocks > 0) => {
            Ok([a, b, c, d].map(|blocks| usize::try_from(blocks).unwrap_or(usize::MAX)))
        }
        _ => Err(Error::Config {
            path: path.to_path_buf(),
            key: "layers".into(),
            value: value.to_string(),
            expected: EXPECTED.into(),
        }),
    }
}

/// The network, with the statistics of its training.
#[derive(Module, Debug)]
pub struct IResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    prelu: PRelu,
    blocks: Vec<Block>,
    bn2: BatchNorm,
    fc: Linear,
    features: BatchNorm,
}

impl IResNet {
    /// Reads a folder.
    ///
    /// # Errors
    /// An absent or damaged file, tensors that do not fit each other or the config.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let file = open(folder)?;
        let config = IResNetConfig::read(folder, &file)?;
        Self::new(&config, &ParamBuilder::from_checkpoint(file, device))
    }

    /// Refuses what [`load`](Self::load) would refuse, by configuration and header alone.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for numbers that are damaged.
    pub fn check(folder: &Path) -> Result<IResNetConfig> {
        let file = open(folder)?;
        let config = IResNetConfig::read(folder, &file)?;
        Self::new(&config, &ParamBuilder::from_header(file))?;
        Ok(config)
    }

    fn new(config: &IResNetConfig, pb: &ParamBuilder) -> Result<Self> {
        let [first, .., last] = config.widths;
        let mut blocks = Vec::new();
        for stage in 0..4 {
            let (inputs, outputs) = (config.widths[stage], config.widths[stage + 1]);
            let pb = pb.pp(format!("layer{}", stage + 1));
            for index in 0..config.layers[stage] {
                let inputs = if index == 0 { inputs } else { outputs };
                blocks.push(Block::new(inputs, outputs, index == 0, &pb.pp(index))?);
            }
        }
        let pixels = LAST_SIDE * LAST_SIDE;
        let network = Self {
            conv1: conv(3, first, 3, 1, &pb.pp("conv1"))?,
            bn1: BatchNorm::new(first, EPS, &pb.pp("bn1"))?,
            prelu: PRelu::new(first, &pb.pp("prelu"))?,
            blocks,
            bn2: BatchNorm::new(last, EPS, &pb.pp("bn2"))?,
            fc: Linear::new(last * pixels, config.features, true, &pb.pp("fc"))?,
            features: BatchNorm::new(config.features, EPS, &pb.pp("features"))?,
        };
        pb.finish()?;
        Ok(network)
    }

    /// Aligned faces [batch, 3, 112, 112] in [-1, 1] to features [batch, width], which are not scaled to
    /// length 1.
    ///
    /// # Panics
    /// When a face is not of 112 x 112 pixels.
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<2> {
        let [batch, _, height, width] = pixels.dims();
        assert_eq!(
            [height, width],
            [FACE_SIDE; 2],
            "faces are aligned to 112 x 112 pixels"
        );
        let mut x = self
            .prelu
            .forward(self.bn1.forward(self.conv1.forward(pixels)));
        for block in &self.blocks {
            x = block.forward(x);
        }
        let x = self.bn2.forward(x).reshape([batch as i64, -1]);
        self.features.forward(self.fc.forward(x))
    }
}

fn open(folder: &Path) -> Result<Checkpoint> {
    let mut files = FILES.iter().map(|name| folder.join(name));
    let Some(path) = files.find(|path| path.is_file()) else {
        let reason = format!("has no weights; expected one of {}", FILES.join(", "));
        return Err(Error::format(folder, reason));
    };
    Checkpoint::open(&path, |key| {
        let is_count = key.ends_with(".num_batches_tracked");
        // What is trained on several cards is saved below `module.`.
        (!is_count).then(|| key.strip_prefix("module.").unwrap_or(key).to_string())
    })
}

fn conv(
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    pb: &ParamBuilder,
) -> Result<Conv2d> {
    let config = Conv2dConfig {
        stride,
        bias: false,
        ..Conv2dConfig::same(inputs, outputs, kernel)
    };
    Conv2d::new(config, pb)
}

/// `max(x, 0) + weight min(x, 0)`, a slope for every channel.
#[derive(Module, Debug)]
struct PRelu {
    weight: Param<Tensor<1>>,
}

impl PRelu {
    fn new(channels: usize, pb: &ParamBuilder) -> Result<Self> {
        let weight = pb.get("weight", [channels], Init::Constant(0.25))?;
        Ok(Self { weight })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let slope = self.weight.val().reshape([1, x.dims()[1], 1, 1]);
        x.clone().clamp_min(0.0) + x.clamp_max(0.0) * slope
    }
}

/// Two normed convolutions beside a shortcut. The first block of a stage halves the image.
#[derive(Module, Debug)]
struct Block {
    bn1: BatchNorm,
    conv1: Conv2d,
    bn2: BatchNorm,
    prelu: PRelu,
    conv2: Conv2d,
    bn3: BatchNorm,
    downsample: Option<Downsample>,
}

impl Block {
    fn new(inputs: usize, outputs: usize, halves: bool, pb: &ParamBuilder) -> Result<Self> {
        let stride = if halves { 2 } else { 1 };
        let downsample = || Downsample::new(inputs, outputs, stride, &pb.pp("downsample"));
        Ok(Self {
            bn1: BatchNorm::new(inputs, EPS, &pb.pp("bn1"))?,
            conv1: conv(inputs, outputs, 3, 1, &pb.pp("conv1"))?,
            bn2: BatchNorm::new(outputs, EPS, &pb.pp("bn2"))?,
            prelu: PRelu::new(outputs, &pb.pp("prelu"))?,
            conv2: conv(outputs, outputs, 3, stride, &pb.pp("conv2"))?,
            bn3: BatchNorm::new(outputs, EPS, &pb.pp("bn3"))?,
            downsample: halves.then(downsample).transpose()?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(x.clone()),
            None => x.clone(),
        };
        let x = self.conv1.forward(self.bn1.forward(x));
        let x = self.prelu.forward(self.bn2.forward(x));
        self.bn3.forward(self.conv2.forward(x)) + shortcut
    }
}

/// The shortcut of the first block of a stage.
#[derive(Module, Debug)]
struct Downsample {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Downsample {
    fn new(inputs: usize, outputs: usize, stride: usize, pb: &ParamBuilder) -> Result<Self> {
        Ok(Self {
            conv: conv(inputs, outputs, 1, stride, &pb.pp(0))?,
            norm: BatchNorm::new(outputs, EPS, &pb.pp(1))?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}
