//! The layers that every network is made of: parameters in torch's layout, arithmetic in
//! [`ops`].

mod batch_norm;
mod low_rank;
mod rotation;

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

pub use batch_norm::BatchNorm;
pub use low_rank::{LowRank, LowRankConv};
pub use rotation::Rotation;
pub(crate) use rotation::{cayley, rotate, skew};

use crate::error::Result;
use crate::ops;
use crate::params::{Init, ParamBuilder};

/// `y = x W^T + b` over the last dimension.
#[derive(Module, Debug)]
pub struct Linear {
    /// [out, in].
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// What is trained beside the weight, if anything.
    low_rank: Option<LowRank>,
    /// How the weight is rotated, if it is.
    rotation: Option<Rotation>,
}

impl Linear {
    /// Keys `weight` and, with `bias`, `bias`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn new(inputs: usize, outputs: usize, bias: bool, pb: &ParamBuilder) -> Result<Self> {
        let shape = [outputs, inputs];
        let weight = pb.matrix("weight", shape, &shape, Init::FanIn(inputs))?;
        let bias = bias
            .then(|| pb.get("bias", [outputs], Init::FanIn(inputs)))
            .transpose()?;
        Self::of_parts(weight, bias, shape, false, pb)
    }

    /// A 1x1 convolution, to be computed on [.., channels]: the same product, but checkpoints hold
    /// its weight as [out, in, 1, 1].
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn pointwise(inputs: usize, outputs: usize, pb: &ParamBuilder) -> Result<Self> {
        let init = Init::FanIn(inputs);
        let stored = [outputs, inputs, 1, 1];
        let shape = [outputs, inputs];
        let weight = pb.matrix("weight", shape, &stored, init)?;
        let bias = pb.get("bias", [outputs], init)?;
        Self::of_parts(weight, Some(bias), shape, true, pb)
    }

    fn of_parts(
        weight: Param<Tensor<2>>,
        bias: Option<Param<Tensor<1>>>,
        shape: [usize; 2],
        pointwise: bool,
        pb: &ParamBuilder,
    ) -> Result<Self> {
        Ok(Self {
            low_rank: LowRank::of_linear(shape, pointwise, pb)?,
            rotation: Rotation::of_linear(shape[1], pb)?,
            weight,
            bias,
        })
    }

    /// [.., in] to [.., out].
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = self.weight.val();
        let weight = match &self.rotation {
            Some(rotation) => rotation.rotate(weight),
            None => weight,
        };
        let bias = self.bias.as_ref().map(Param::val);
        match &self.low_rank {
            Some(low_rank) => {
                let change = low_rank.forward(x.clone());
                ops::linear(x, weight, bias) + change
            }
            None => ops::linear(x, weight, bias),
        }
    }
}

/// What a convolution does besides its weights.
#[derive(Debug, Clone, Copy)]
pub struct Conv2dConfig {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Side of the square kernel, in pixels.
    pub kernel: usize,
    /// Step between outputs, in pixels.
    pub stride: usize,
    /// Zeros added at top, left, bottom, right, in pixels.
    pub padding: [usize; 4],
    /// Whether a bias is added.
    pub bias: bool,
}

impl Conv2dConfig {
    /// A convolution of stride 1 that keeps the size of the image.
    pub fn same(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self {
            inputs,
            outputs,
            kernel,
            stride: 1,
            padding: [kernel / 2; 4],
            bias: true,
        }
    }
}

/// Two-dimensional convolution.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// [out, in, kernel, kernel].
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// What is trained beside the weight, if anything.
    low_rank: Option<LowRankConv>,
    #[module(skip)]
    config: Conv2dConfig,
}

impl Conv2d {
    /// Keys `weight` and, with `bias`, `bias`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn new(config: Conv2dConfig, pb: &ParamBuilder) -> Result<Self> {
        let Conv2dConfig {
            inputs,
            outputs,
            kernel,
            ..
        } = config;
        let init = Init::FanIn(inputs * kernel * kernel);
        let shape = [outputs, inputs, kernel, kernel];
        let weight = pb.matrix("weight", shape, &shape, init)?;
        let bias = config
            .bias
            .then(|| pb.get("bias", [outputs], init))
            .transpose()?;
        Ok(Self {
            weight,
            bias,
            low_rank: LowRankConv::new(shape, pb)?,
            config,
        })
    }

    /// [batch, in, height, width] to [batch, out, height', width'].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let bias = self.bias.as_ref().map(Param::val);
        let Conv2dConfig {
            stride, padding, ..
        } = self.config;
        match &self.low_rank {
            Some(low_rank) => {
                let change = low_rank.forward(x.clone(), stride, padding);
                ops::conv2d(x, self.weight.val(), bias, stride, padding) + change
            }
            None => ops::conv2d(x, self.weight.val(), bias, stride, padding),
        }
    }
}

/// Transposed convolution whose stride is its kernel, so that every input pixel becomes a square
/// of its own.
#[derive(Module, Debug)]
pub struct ConvTranspose2d {
    /// [in, out, kernel, kernel].
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl ConvTranspose2d {
    /// Keys `weight` and `bias`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn new(inputs: usize, outputs: usize, kernel: usize, pb: &ParamBuilder) -> Result<Self> {
        let init = Init::FanIn(outputs * kernel * kernel);
        Ok(Self {
            weight: pb.get("weight", [inputs, outputs, kernel, kernel], init)?,
            bias: pb.get("bias", [outputs], init)?,
        })
    }

    /// [batch, in, height, width] to [batch, out, height * kernel, width * kernel].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, inputs, height, width] = x.dims();
        let [_, outputs, kernel, _] = self.weight.dims();
        let pixels = x.permute([0, 2, 3, 1]).reshape([-1, inputs as i64]);
        let weight = self.weight.val().reshape([inputs as i64, -1]);
        let squares = ops::linear(pixels, weight.transpose(), None);
        let squares = squares.reshape([batch, height, width, outputs, kernel, kernel]);
        let image = squares.permute([0, 3, 1, 4, 2, 5]);
        let image = image.reshape([batch, outputs, height * kernel, width * kernel]);
        image + self.bias.val().reshape([1, outputs, 1, 1])
    }
}

/// Layer normalisation over the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[channels]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl LayerNorm {
    /// Keys `weight` and `bias`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn new(channels: usize, eps: f64, pb: &ParamBuilder) -> Result<Self> {
        let weight = pb.get("weight", [channels], Init::Ones)?;
        let bias = pb.get("bias", [channels], Init::Zeros)?;
        Ok(Self { weight, bias, eps })
    }

    /// [.., channels] to the same shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }
}

/// Group normalisation over channels and pixels.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// Scale, `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[channels]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
    #[module(skip)]
    eps: f64,
}

impl GroupNorm {
    /// Keys `weight` and `bias`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn new(groups: usize, channels: usize, eps: f64, pb: &ParamBuilder) -> Result<Self> {
        let weight = pb.get("weight", [channels], Init::Ones)?;
        let bias = pb.get("bias", [channels], Init::Zeros)?;
        Ok(Self {
            weight,
            bias,
            groups,
            eps,
        })
    }

    /// [batch, channels, ..] to the same shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::group_norm(x, self.groups, self.weight.val(), self.bias.val(), self.eps)
    }

    /// The same, followed by SiLU.
    pub fn forward_silu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::group_norm_silu(x, self.groups, self.weight.val(), self.bias.val(), self.eps)
    }
}

/// A table of rows looked up by number.
#[derive(Module, Debug)]
pub struct Embedding {
    /// [rows, channels].
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// Key `weight`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn new(rows: usize, channels: usize, pb: &ParamBuilder) -> Result<Self> {
        Ok(Self {
            weight: pb.get("weight", [rows, channels], Init::Normal(0.02))?,
        })
    }

    /// [batch, n] row numbers to [batch, n, channels].
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        burn::tensor::module::embedding(self.weight.val(), ids)
    }
}
