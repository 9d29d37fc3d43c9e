//! An orthogonal change of a layer's weight (OFT, Qiu et al. 2023): its inputs are rotated block by
//! block, so that norms and angles of its rows stay what they are.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::ops;
use crate::params::{Added, Init, ParamBuilder, ROTATION, to_vec};

/// `W' = W blockdiag(Q)^T` with `Q = (I - S)(I + S)^-1` and `S = (R - R^T) / 2` for every block.
#[derive(Module, Debug)]
pub struct Rotation {
    /// R, [blocks, side, side].
    r: Param<Tensor<3>>,
}

impl Rotation {
    /// The change of the linear layer below `pb`, if it gets one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for blocks that do not divide the layer's inputs.
    pub(super) fn of_linear(inputs: usize, pb: &ParamBuilder) -> Result<Option<Self>> {
        let Some(Added::Rotation { blocks }) = pb.added(ROTATION) else {
            return Ok(None);
        };
        let side = inputs / blocks.max(1);
        if side * blocks != inputs || side < 2 {
            return Err(Error::Invalid(format!(
                "`{}` has {inputs} inputs, which {blocks} blocks do not divide into equal blocks of \
                 two or more; choose another number of `blocks`",
                pb.path()
            )));
        }
        let shape = [blocks, side, side];
        let r = pb.add(ROTATION, shape, &shape, Init::Zeros)?;
        Ok(Some(Self { r }))
    }

    /// The rotated weight, [out, in].
    pub(super) fn rotate(&self, weight: Tensor<2>) -> Tensor<2> {
        let weight = ops::cast(weight, DType::F32);
        rotate(weight, cayley(skew(self.r.val())))
    }
}

/// `S = (R - R^T) / 2`, [blocks, side, side].
pub(crate) fn skew(r: Tensor<3>) -> Tensor<3> {
    (r.clone() - r.swap_dims(1, 2)) * 0.5
}

/// `W blockdiag(Q)^T` of a weight [out, in] and rotations [blocks, side, side].
pub(crate) fn rotate(weight: Tensor<2>, q: Tensor<3>) -> Tensor<2> {
    let [outputs, inputs] = weight.dims();
    let [blocks, side, _] = q.dims();
    let columns = weight.reshape([outputs, blocks, side]).swap_dims(0, 1);
    let rotated = columns.matmul(q.swap_dims(1, 2));
    rotated.swap_dims(0, 1).reshape([outputs, inputs])
}

/// `(I - S)(I + S)^-1` of skew-symmetric blocks [blocks, side, side], by Cayley; orthogonal.
///
/// The inverse M is computed off the tape, and one step of Newton's iteration, `2M - M (I + S) M`,
/// puts it on the tape: that has the value of M and, since M is the inverse, its derivative
/// `-M dS M` too.
pub(crate) fn cayley(s: Tensor<3>) -> Tensor<3> {
    let [blocks, side, _] = s.dims();
    let inverses = inverses(&to_vec(s.clone().inner()), side);
    let inverses = TensorData::new(inverses, [blocks, side, side]);
    let m = Tensor::<3>::from_data(inverses, &s.device().inner());
    let identity = identity([blocks, side], &s.device());
    let newton = m.clone() * 2.0 - m.clone().matmul(identity.clone() + s).matmul(m);
    // (I - S)(I + S)^-1 = (2 I - (I + S))(I + S)^-1.
    newton * 2.0 - identity
}

fn identity([blocks, side]: [usize; 2], device: &Device) -> Tensor<3> {
    let one = Tensor::<2>::eye(side, &device.clone().inner());
    one.unsqueeze::<3>().repeat_dim(0, blocks)
}

/// `(I + S)^-1` of every block, by elimination without pivoting: `I + S` has a positive definite
/// symmetric part, I, so that no pivot is below 1.
fn inverses(s: &[f32], side: usize) -> Vec<f32> {
    let blocks = s.par_chunks_exact(side * side);
    let inverses: Vec<Vec<f32>> = blocks.map(|block| inverse(block, side)).collect();
    inverses.concat()
}

fn inverse(s: &[f32], side: usize) -> Vec<f32> {
    let mut rows: Vec<Vec<f64>> = s
        .chunks_exact(side)
        .map(|row| row.iter().map(|value| f64::from(*value)).collect())
        .collect();
    for (i, row) in rows.iter_mut().enumerate() {
        row[i] += 1.0;
    }
    // In place: column `i` of the inverse grows where column `i` of the matrix is no longer needed.
    for i in 0..side {
        let factor = 1.0 / std::mem::replace(&mut rows[i][i], 1.0);
        rows[i].iter_mut().for_each(|value| *value *= factor);
        let pivot = rows[i].clone();
        let others = rows.iter_mut().enumerate().filter(|(j, _)| *j != i);
        for (_, row) in others {
            let factor = std::mem::replace(&mut row[i], 0.0);
            let values = row.iter_mut().zip(&pivot);
            values.for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    let values = rows.into_iter().flatten();
    values.map(|value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(blocks: usize, side: usize) -> Tensor<3> {
        crate::rng::randn([1, blocks, side, side], 3, "rotation", 0, &Device::flex())
            .reshape([blocks, side, side])
    }

    fn largest(x: Tensor<3>) -> f32 {
        x.abs().max().into_scalar::<f32>()
    }

    #[test]
    fn rotations_are_orthogonal_and_keep_norms_and_angles_of_rows() {
        let q = cayley(skew(random(3, 8)));
        let identity = identity([3, 8], &q.device());
        assert!(largest(q.clone().matmul(q.clone().swap_dims(1, 2)) - identity) < 1e-6);
        let weight = random(1, 24).reshape([24, 24]);
        let rotated = rotate(weight.clone(), q);
        let gram = |w: Tensor<2>| w.clone().matmul(w.transpose()).unsqueeze::<3>();
        assert!(largest(rotated.clone().unsqueeze() - weight.clone().unsqueeze()) > 0.1);
        assert!(largest(gram(rotated) - gram(weight)) < 1e-4);
    }

    #[test]
    fn no_rotation_leaves_every_bit() {
        let weight = random(1, 24).reshape([24, 24]);
        let rotated = rotate(
            weight.clone(),
            cayley(Tensor::zeros([4, 6, 6], &Device::flex())),
        );
        assert_eq!(to_vec(rotated), to_vec(weight));
    }

    /// The derivative of a sum of entries, against differences of the exact formula.
    #[test]
    fn the_gradient_is_that_of_the_exact_formula() {
        let device = Device::flex();
        let r = random(2, 4) * 0.3;
        let factors = random(2, 4);
        let value = |r: Tensor<3>| (cayley(skew(r)) * factors.clone()).sum();
        let tracked = r.clone().autodiff().require_grad();
        let grads = value(tracked.clone()).backward();
        let gradient = to_vec(tracked.grad(&grads).expect("a gradient"));
        let values = to_vec(r);
        for at in 0..values.len() {
            let moved = |by: f32| {
                let mut values = values.clone();
                values[at] += by;
                let r = Tensor::<1>::from_floats(values.as_slice(), &device);
                value(r.reshape([2, 4, 4])).into_scalar::<f32>()
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!(
                (gradient[at] - difference).abs() < 2e-3,
                "{at}: {} {difference}",
                gradient[at]
            );
        }
    }
}
