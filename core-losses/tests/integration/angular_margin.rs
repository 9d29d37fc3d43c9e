//! The angular margin against PyTorch (fixtures from `generate_fixtures.py`) and against central
//! differences.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use core_losses::angular_margin::{AngularMargin, MarginGradient};
use safetensors::SafeTensors;

const TENSORS: &[u8] = include_bytes!("../fixtures/angular_margin.safetensors");

/// As in the script.
const SCALE: f64 = 16.0;
const MARGIN: f64 = 0.3;

fn margin(gradient: MarginGradient) -> AngularMargin {
    AngularMargin {
        scale: SCALE,
        margin: MARGIN,
        gradient,
    }
}

fn values(file: &SafeTensors<'_>, key: &str) -> (Vec<f64>, Vec<usize>) {
    let view = file.tensor(key).unwrap();
    let chunks = view.data().as_chunks::<8>().0.iter();
    let values = chunks.map(|chunk| f64::from_le_bytes(*chunk));
    (values.collect(), view.shape().to_vec())
}

fn cosines(file: &SafeTensors<'_>, device: &Device) -> Tensor<2> {
    let (values, shape) = values(file, "cosines");
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F64))
}

fn labels(file: &SafeTensors<'_>, device: &Device) -> Tensor<1, Int> {
    let (labels, shape) = values(file, "labels");
    let labels: Vec<i64> = labels.into_iter().map(|label| label as i64).collect();
    Tensor::from_data(TensorData::new(labels, shape), device)
}

fn assert_close(found: TensorData, expected: &[f64], what: &str) {
    let found = found.try_into_vec_as::<f64>().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let difference = (found - expected).abs();
        assert!(difference < 1e-9, "{what}: {found}, expected {expected}");
    }
}

#[test]
fn logits_loss_and_both_gradients_equal_pytorchs() {
    let file = SafeTensors::deserialize(TENSORS).unwrap();
    let device = Device::flex();
    for (name, gradient) in [
        ("true", MarginGradient::True),
        ("reference", MarginGradient::Reference),
    ] {
        let margin = margin(gradient);
        let x = cosines(&file, &device.clone().autodiff()).require_grad();
        let logits = margin.logits(x.clone(), labels(&file, &device));
        let key = format!("{name}.logits");
        assert_close(logits.inner().into_data(), &values(&file, &key).0, &key);
        let loss = margin.loss(x.clone(), labels(&file, &device));
        let key = format!("{name}.loss");
        assert_close(
            loss.clone().inner().into_data(),
            &values(&file, &key).0,
            &key,
        );
        let grads = loss.backward();
        let key = format!("{name}.grad");
        let grad = x.grad(&grads).unwrap().into_data();
        assert_close(grad, &values(&file, &key).0, &key);
    }
}

#[test]
fn the_true_gradient_is_that_of_central_differences() {
    let file = SafeTensors::deserialize(TENSORS).unwrap();
    let device = Device::flex();
    let margin = margin(MarginGradient::True);
    let x = cosines(&file, &device.clone().autodiff()).require_grad();
    let loss = margin.loss(x.clone(), labels(&file, &device));
    let grad = x.grad(&loss.backward()).unwrap().into_data();
    let grad = grad.try_into_vec_as::<f64>().unwrap();
    let (start, shape) = values(&file, "cosines");
    for (index, grad) in grad.into_iter().enumerate() {
        let at = |shift: f64| {
            let mut moved = start.clone();
            moved[index] += shift;
            let data = TensorData::new(moved, shape.clone());
            let moved = Tensor::<2>::from_data(data, (&device, DType::F64));
            margin
                .loss(moved, labels(&file, &device))
                .into_scalar::<f64>()
        };
        let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
        assert!(
            (difference - grad).abs() < 1e-6,
            "{index}: {grad} {difference}"
        );
    }
}

#[test]
fn a_feature_that_points_to_its_centre_has_a_finite_gradient() {
    let device = Device::flex();
    let x = Tensor::<2>::from_floats([[1.0, 0.2]], &device.clone().autodiff()).require_grad();
    let label = Tensor::<1, Int>::from_ints([0], &device);
    let loss = margin(MarginGradient::True).loss(x.clone(), label);
    let grad = x.grad(&loss.backward()).unwrap().into_data();
    let grad = grad.try_into_vec_as::<f32>().unwrap();
    assert!(grad.iter().all(|value| value.is_finite()), "{grad:?}");
}
