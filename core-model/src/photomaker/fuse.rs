//! The fuse module: text states and photos' vectors become one.

use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::error::Result;
use crate::nn::{LayerNorm, Linear};
use crate::ops;
use crate::params::ParamBuilder;

/// Epsilon of the layer norms, torch's default.
const EPS: f64 = 1e-5;

/// A layer norm and two linear maps with GELU between them; it has no residual of its own.
#[derive(Module, Debug)]
struct Mlp {
    layernorm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    fn new(inputs: usize, outputs: usize, pb: &ParamBuilder) -> Result<Self> {
        Ok(Self {
            layernorm: LayerNorm::new(inputs, EPS, &pb.pp("layernorm"))?,
            fc1: Linear::new(inputs, outputs, true, &pb.pp("fc1"))?,
            fc2: Linear::new(outputs, outputs, true, &pb.pp("fc2"))?,
        })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let h = ops::gelu(self.fc1.forward(self.layernorm.forward(x)));
        self.fc2.forward(h)
    }
}

/// The module that fuses the text states of the class word's copies with the photos' vectors.
#[derive(Module, Debug)]
pub struct FuseModule {
    mlp1: Mlp,
    mlp2: Mlp,
    layer_norm: LayerNorm,
}

impl FuseModule {
    pub(super) fn new(width: usize, pb: &ParamBuilder) -> Result<Self> {
        Ok(Self {
            mlp1: Mlp::new(2 * width, width, &pb.pp("mlp1"))?,
            mlp2: Mlp::new(width, width, &pb.pp("mlp2"))?,
            layer_norm: LayerNorm::new(width, EPS, &pb.pp("layer_norm"))?,
        })
    }

    /// Text states and photos' vectors [copies, width] to the states that replace the text's.
    fn fuse(&self, text: Tensor<2>, photos: Tensor<2>) -> Tensor<2> {
        let both = Tensor::cat(vec![text.clone(), photos], 1);
        let fused = self.mlp1.forward(both) + text;
        let fused = fused.clone() + self.mlp2.forward(fused);
        self.layer_norm.forward(fused)
    }

    /// Hidden states [batch, n, width] in which the copies of the class word are overwritten.
    ///
    /// `places` holds the positions of the copies in each prompt; `id_embeds` [copies, width] has one
    /// row for each copy, prompt after prompt.
    ///
    /// # Panics
    /// When there are more or fewer rows than copies.
    pub fn stack(
        &self,
        states: Tensor<3>,
        id_embeds: Tensor<2>,
        places: &[Vec<usize>],
    ) -> Tensor<3> {
        let [batch, n, width] = states.dims();
        let rows = places.iter().enumerate();
        let copies: Vec<usize> = rows
            .flat_map(|(row, places)| places.iter().map(move |place| row * n + place))
            .collect();
        assert_eq!(
            copies.len(),
            id_embeds.dims()[0],
            "one photo for every copy of the class word"
        );
        if copies.is_empty() {
            return states;
        }
        let device = states.device();
        let indices = |values: Vec<i64>| {
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        let of_copies = indices(copies.iter().map(|copy| *copy as i64).collect());
        let text = states.clone().reshape([batch * n, width]);
        let fused = self.fuse(text.select(0, of_copies), id_embeds);
        let mut number_at = vec![0; batch * n];
        let mut is_copy = vec![false; batch * n];
        for (number, copy) in copies.into_iter().enumerate() {
            number_at[copy] = number as i64;
            is_copy[copy] = true;
        }
        let fused: Tensor<3> = fused
            .select(0, indices(number_at))
            .reshape([batch, n, width]);
        let mask = TensorData::new(is_copy, [batch, n, 1]);
        let mask = Tensor::<3, Bool>::from_data(mask, &device).expand([batch, n, width]);
        states.mask_where(mask, fused)
    }
}
