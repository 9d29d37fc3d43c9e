//! Riemannian gradient descent on spheres, the optimiser of Directional Textual Inversion (Kim et
//! al., ICLR 2026): the rows of a tensor keep their lengths and turn.

use burn::tensor::Tensor;

/// The constants of the method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SphericalSgd {
    /// How strongly a row is pulled towards the direction at which it started.
    pub kappa: f64,
    /// The decay rate of the squared norm of the gradient; at 0 every step is as long as the
    /// learning rate.
    pub beta: f64,
}

impl Default for SphericalSgd {
    fn default() -> Self {
        Self {
            kappa: 1e-4,
            beta: 0.0,
        }
    }
}

impl SphericalSgd {
    /// What is kept: the rows at the start, and one squared norm for each.
    pub(super) fn first(value: &Tensor<1>, rows: usize) -> [Tensor<1>; 2] {
        [value.clone(), Tensor::zeros([rows], &value.device())]
    }

    /// Step `step`, from 1, for the direction u of each row v = s u of constant length s:
    ///
    /// 1. g = s dL/dv - kappa u0, where u0 is the direction at the start;
    /// 2. g = g - (g . u) u, the part of it that turns u;
    /// 3. w = beta w + (1 - beta) ||g||^2 and g = g / (sqrt(w / (1 - beta^t)) + 1e-8);
    /// 4. u = (u - lr g) / ||u - lr g||.
    pub(super) fn step(
        &self,
        value: Tensor<1>,
        grad: Tensor<1>,
        [start, moment]: [Tensor<1>; 2],
        learning_rate: f64,
        step: u64,
    ) -> (Tensor<1>, [Tensor<1>; 2]) {
        let ([length], [rows]) = (value.dims(), moment.dims());
        let by_row = |tensor: Tensor<1>| tensor.reshape([rows, length / rows]);
        let first = by_row(start.clone());
        let scale = norms(first.clone());
        let direction = by_row(value) / scale.clone();
        let grad = by_row(grad) * scale.clone() - first / scale.clone() * self.kappa;
        let along = (grad.clone() * direction.clone()).sum_dim(1);
        let grad = grad - direction.clone() * along;
        let squares = grad.clone().square().sum_dim(1).reshape([rows]);
        let moment = moment * self.beta + squares * (1.0 - self.beta);
        let correction = 1.0 - self.beta.powf(step as f64);
        let size = (moment.clone() / correction).sqrt() + 1e-8;
        let moved = direction - grad / size.reshape([rows, 1]) * learning_rate;
        let value = moved.clone() / norms(moved) * scale;
        (value.reshape([length]), [start, moment])
    }
}

/// The Euclidean norm of each row, [rows, 1].
pub(crate) fn norms(rows: Tensor<2>) -> Tensor<2> {
    rows.square().sum_dim(1).sqrt()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use core_model::params::to_vec;

    use super::*;

    /// One step from (3, 0) with this gradient.
    fn step(config: SphericalSgd, grad: [f32; 2], rate: f64) -> Vec<f32> {
        let device = Device::flex();
        let start = Tensor::from_floats([3.0, 0.0], &device);
        let kept = SphericalSgd::first(&start, 1);
        let grad = Tensor::from_floats(grad, &device);
        to_vec(config.step(start, grad, kept, rate, 1).0)
    }

    #[test]
    fn a_step_is_as_long_as_the_learning_rate_whatever_the_gradient_and_keeps_the_length() {
        // In the tangent plane the step goes from (1, 0) to (1, -0.75), whose length is 1.25.
        for size in [1e-3, 7.0] {
            let [x, y] = step(SphericalSgd::default(), [5.0, size], 0.75)[..] else {
                panic!("two values");
            };
            assert!((x - 2.4).abs() < 1e-5 && (y + 1.8).abs() < 1e-5, "{x}, {y}");
        }
    }

    #[test]
    fn a_gradient_along_the_row_does_not_move_it() {
        assert_eq!(step(SphericalSgd::default(), [5.0, 0.0], 0.75), [3.0, 0.0]);
    }

    #[test]
    fn without_a_gradient_a_row_turns_back_to_its_start() {
        let device = Device::flex();
        let tensor = |values: [f32; 2]| Tensor::<1>::from_floats(values, &device);
        let config = SphericalSgd {
            kappa: 0.1,
            beta: 0.0,
        };
        let kept = SphericalSgd::first(&tensor([2.0, 0.0]), 1);
        let (moved, _) = config.step(tensor([0.0, 2.0]), tensor([0.0; 2]), kept, 0.5, 2);
        let moved = to_vec(moved);
        assert!(moved[0] > 0.8 && moved[1] < 2.0, "{moved:?}");
    }
}
