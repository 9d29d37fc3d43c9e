//! A low-rank change of a layer's weight that is trained beside it (LoRA, Hu et al. 2021).

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::error::Result;
use crate::ops;
use crate::params::{Added, DOWN, Init, ParamBuilder, UP};

/// `s B A x` beside `W x` of a linear layer; the sum of the weights is never formed.
#[derive(Module, Debug)]
pub struct LowRank {
    /// A, [rank, in].
    down: Param<Tensor<2>>,
    /// B, [out, rank].
    up: Param<Tensor<2>>,
    #[module(skip)]
    scale: f64,
}

impl LowRank {
    /// The change of the layer below `pb`, if it gets one. The factors are stored as the layer's
    /// weight is: with two more dimensions for a 1x1 convolution.
    ///
    /// # Errors
    /// A builder whose tensors have other shapes.
    pub(super) fn of_linear(
        [outputs, inputs]: [usize; 2],
        pointwise: bool,
        pb: &ParamBuilder,
    ) -> Result<Option<Self>> {
        let Some(Added::LowRank { rank, scale }) = pb.added(DOWN) else {
            return Ok(None);
        };
        let stored = |shape: [usize; 2]| match pointwise {
            true => vec![shape[0], shape[1], 1, 1],
            false => shape.to_vec(),
        };
        let (down, up) = ([rank, inputs], [outputs, rank]);
        let normal = Init::Normal(1.0 / rank as f32);
        Ok(Some(Self {
            down: pb.pp(DOWN).add("weight", down, &stored(down), normal)?,
            up: pb.pp(UP).add("weight", up, &stored(up), Init::Zeros)?,
            scale,
        }))
    }

    /// [.., in] to [.., out].
    pub(super) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let narrow = ops::linear(x, self.down.val(), None);
        ops::linear(narrow, self.up.val(), None) * self.scale
    }
}

/// The same beside a convolution: A is a convolution like it, B one of side 1.
#[derive(Module, Debug)]
pub struct LowRankConv {
    /// A, [rank, in, kernel, kernel].
    down: Param<Tensor<4>>,
    /// B, [out, rank, 1, 1].
    up: Param<Tensor<4>>,
    #[module(skip)]
    scale: f64,
}

impl LowRankConv {
    /// The change of the convolution below `pb`, if it gets one.
    ///
    /// # Errors
    /// As [`LowRank::of_linear`].
    pub(super) fn new(
        [outputs, inputs, height, width]: [usize; 4],
        pb: &ParamBuilder,
    ) -> Result<Option<Self>> {
        let Some(Added::LowRank { rank, scale }) = pb.added(DOWN) else {
            return Ok(None);
        };
        let (down, up) = ([rank, inputs, height, width], [outputs, rank, 1, 1]);
        let normal = Init::Normal(1.0 / rank as f32);
        Ok(Some(Self {
            down: pb.pp(DOWN).add("weight", down, &down, normal)?,
            up: pb.pp(UP).add("weight", up, &up, Init::Zeros)?,
            scale,
        }))
    }

    /// [batch, in, height, width] to [batch, out, height', width'].
    pub(super) fn forward(&self, x: Tensor<4>, stride: usize, padding: [usize; 4]) -> Tensor<4> {
        let narrow = ops::conv2d(x, self.down.val(), None, stride, padding);
        ops::conv2d(narrow, self.up.val(), None, 1, [0; 4]) * self.scale
    }
}
