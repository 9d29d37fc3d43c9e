//! `f_map`: an identity and an expression to the two vectors that stand for a person.

use burn::module::{Module, Param};
use burn::tensor::activation::leaky_relu;
use burn::tensor::{Device, Tensor};

use super::Face2DiffusionConfig;
use crate::error::Result;
use crate::nn::Linear;
use crate::params::{Init, ParamBuilder, ParamNames};

/// Hidden layers of each network.
const LAYERS: usize = 2;

/// Slope of the activation below 0.
const SLOPE: f64 = 0.2;

/// Linear maps with leaky ReLU, then one without.
#[derive(Module, Debug)]
struct Mlp {
    layers: Vec<Linear>,
    fc_out: Linear,
}

impl Mlp {
    fn new(config: &Face2DiffusionConfig, pb: &ParamBuilder) -> Result<Self> {
        let hidden = config.msid.width();
        let layer = |index: usize| {
            let inputs = match index {
                0 => hidden + config.exp_dim,
                _ => hidden,
            };
            Linear::new(inputs, hidden, true, &pb.pp(format!("layers.{index}.0")))
        };
        Ok(Self {
            layers: (0..LAYERS).map(layer).collect::<Result<_>>()?,
            fc_out: Linear::new(hidden, config.text_width, true, &pb.pp("fc_out"))?,
        })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = self
            .layers
            .iter()
            .fold(x, |x, layer| leaky_relu(layer.forward(x), SLOPE));
        self.fc_out.forward(hidden)
    }
}

/// One network for each vector, and the expression that stands for none.
#[derive(Module, Debug)]
pub struct Mapping {
    i2t_first: Mlp,
    i2t_last: Mlp,
    null_exp: Param<Tensor<1>>,
    #[module(skip)]
    names: ParamNames,
}

impl Mapping {
    /// A mapping below `pb`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn new(config: &Face2DiffusionConfig, pb: &ParamBuilder) -> Result<Self> {
        Ok(Self {
            i2t_first: Mlp::new(config, &pb.pp("i2t_first"))?,
            i2t_last: Mlp::new(config, &pb.pp("i2t_last"))?,
            null_exp: pb.get("null_exp", [config.exp_dim], Init::Zeros)?,
            names: pb.finish()?,
        })
    }

    /// A fresh mapping.
    ///
    /// # Errors
    /// None that depends on files.
    pub fn init(config: &Face2DiffusionConfig, seed: u64, device: &Device) -> Result<Self> {
        Self::new(config, &ParamBuilder::random(seed, device))
    }

    /// The key of every parameter.
    pub fn names(&self) -> &ParamNames {
        &self.names
    }

    /// No expression, [batch, numbers].
    pub fn null_expression(&self, batch: usize) -> Tensor<2> {
        self.null_exp
            .val()
            .unsqueeze_dim::<2>(0)
            .repeat_dim(0, batch)
    }

    /// Expressions [batch, numbers] where `given` [batch, 1] is 1, and none where it is 0.
    pub fn expressions(&self, values: Tensor<2>, given: Tensor<2>) -> Tensor<2> {
        let [batch, _] = values.dims();
        let none = self.null_expression(batch) * (given.clone() * -1.0 + 1.0);
        values * given + none
    }

    /// Identities [batch, channels] and expressions [batch, numbers] to vectors [batch, 2, text width].
    pub fn forward(&self, identity: Tensor<2>, expression: Tensor<2>) -> Tensor<3> {
        let both = Tensor::cat(vec![identity, expression], 1);
        let first = self.i2t_first.forward(both.clone());
        let last = self.i2t_last.forward(both);
        Tensor::stack(vec![first, last], 1)
    }
}
