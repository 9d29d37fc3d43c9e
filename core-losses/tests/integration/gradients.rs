//! Gradients of every term against central differences, in float64.

use burn::tensor::{DType, Device, Tensor, TensorData};
use core_losses::{
    AttentionStatistics, Context, ContextAttention, ContextEmbedding, ContextPair, EmbeddingAnchor,
    Formulation, Observed, Pass, PromptSpan, SemanticPreservation, Term,
    terms::diffusion::{diffusion_loss, masked_diffusion_loss},
};

const STEP: f64 = 1e-5;
const CHOICES: [(Formulation, Context); 4] = [
    (Formulation::Paper, Context::Prompt),
    (Formulation::Paper, Context::Padded),
    (Formulation::ReferenceCode, Context::Prompt),
    (Formulation::ReferenceCode, Context::Padded),
];

/// A fixed sequence without pattern in (0, 1).
fn numbers(seed: u64, len: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..len).map(|_| next()).collect()
}

fn tensor<const D: usize>(values: Vec<f64>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F64))
}

/// Compares the gradient of `loss` at `values` with central differences.
fn check<const D: usize>(values: &[f64], shape: [usize; D], loss: impl Fn(Tensor<D>) -> Tensor<1>) {
    let plain = Device::flex();
    let x = tensor(values.to_vec(), shape, &plain.clone().autodiff()).require_grad();
    let grads = loss(x.clone()).backward();
    let grad = x
        .grad(&grads)
        .unwrap()
        .into_data()
        .try_into_vec_as::<f64>()
        .unwrap();
    let largest = grad.iter().fold(0.0_f64, |m, g| m.max(g.abs()));
    assert!(largest > 0.0, "the gradient vanishes");
    for i in 0..values.len() {
        let at = |shift: f64| {
            let mut values = values.to_vec();
            values[i] += shift;
            loss(tensor(values, shape, &plain)).into_scalar::<f64>()
        };
        let difference = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        assert!(
            (difference - grad[i]).abs() < 1e-6 * largest,
            "element {i}: {} against {difference}",
            grad[i]
        );
    }
}

/// A super-category of two tokens in a prompt padded to seven positions.
fn spans() -> [PromptSpan; 2] {
    let span = |length, concept| PromptSpan::of_token(length, concept, 7);
    [span(5, 1..2), span(6, 1..3)]
}

/// One template with the concept and with the super-category.
fn observed(hidden: [Tensor<3>; 2], attention: Option<[Vec<Tensor<4>>; 2]>) -> Observed {
    let [learned, reference] = spans();
    let [x, y] = hidden;
    let [maps, reference_maps] = attention.map_or([None, None], |maps| maps.map(Some));
    let pass = |span: &PromptSpan, hidden, attention| Pass {
        spans: vec![span.clone()],
        hidden: Some(hidden),
        prediction: None,
        attention,
    };
    Observed {
        template: Some(pass(&learned, x, maps)),
        class_template: Some(pass(&reference, y, reference_maps)),
        pair: Some(ContextPair::new(learned, reference).unwrap()),
        ..Observed::default()
    }
}

#[test]
fn the_diffusion_loss_has_the_right_slope() {
    let device = Device::flex();
    let target = tensor(numbers(1, 24), [2, 3, 2, 2], &device);
    check(&numbers(2, 24), [2, 3, 2, 2], |x| {
        diffusion_loss(x, target.clone())
    });
}

#[test]
fn the_masked_diffusion_loss_has_the_right_slope() {
    let device = Device::flex();
    let target = tensor(numbers(15, 24), [2, 3, 2, 2], &device);
    let mask = vec![1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0];
    let mask = tensor(mask, [2, 1, 2, 2], &device);
    check(&numbers(16, 24), [2, 3, 2, 2], |x| {
        masked_diffusion_loss(x, target.clone(), mask.clone())
    });
}

#[test]
fn context_embedding_has_the_right_slope() {
    let device = Device::flex();
    let reference = tensor(numbers(3, 28), [1, 7, 4], &device);
    for (formulation, context) in CHOICES {
        let term = ContextEmbedding {
            formulation,
            context,
            ..Default::default()
        };
        check(&numbers(4, 28), [1, 7, 4], |x| {
            term.forward(&observed([x, reference.clone()], None))
        });
    }
}

#[test]
fn the_embedding_anchor_has_the_right_slope() {
    let device = Device::flex();
    let start = tensor(numbers(9, 8), [2, 4], &device);
    check(&numbers(10, 8), [2, 4], |x| {
        EmbeddingAnchor::default().forward(&Observed {
            embedding: Some([x, start.clone()]),
            ..Observed::default()
        })
    });
}

#[test]
fn semantic_preservation_has_the_right_slope() {
    let device = Device::flex();
    let pass = |hidden, span: &PromptSpan| Pass {
        spans: vec![span.clone()],
        hidden: Some(hidden),
        prediction: None,
        attention: None,
    };
    let [learned, reference] = spans();
    let class = tensor(numbers(13, 28), [1, 7, 4], &device);
    check(&numbers(14, 28), [1, 7, 4], |x| {
        SemanticPreservation::default().forward(&Observed {
            sentence: Some(pass(x, &learned)),
            class_sentence: Some(pass(class.clone(), &reference)),
            ..Observed::default()
        })
    });
}

#[test]
fn attention_statistics_have_the_right_slope() {
    let device = Device::flex();
    let hidden = tensor::<3>(vec![0.0; 14], [2, 7, 1], &device);
    let span = PromptSpan {
        length: 6,
        concept: 1..4,
        token: 1..3,
        class_word: Some(3),
        context_length: 7,
    };
    let other = tensor(numbers(11, 84), [2, 2, 3, 7], &device);
    check(&numbers(12, 84), [2, 2, 3, 7], |x| {
        AttentionStatistics::default().forward(&Observed {
            photos: Some(Pass {
                spans: vec![span.clone(), span.clone()],
                hidden: Some(hidden.clone()),
                prediction: None,
                attention: Some(vec![x, other.clone()]),
            }),
            ..Observed::default()
        })
    });
}

#[test]
fn context_attention_has_the_right_slope_in_every_layer() {
    let device = Device::flex();
    let hidden = tensor::<3>(vec![0.0; 7], [1, 7, 1], &device);
    let shape = [2, 2, 3, 7];
    let other = tensor(numbers(5, 84), shape, &device);
    let reference = [
        tensor(numbers(6, 84), shape, &device),
        tensor(numbers(7, 84), shape, &device),
    ];
    for (formulation, context) in CHOICES {
        let term = ContextAttention {
            formulation,
            context,
            ..Default::default()
        };
        for layer in 0..2 {
            check(&numbers(8, 84), shape, |x| {
                let mut maps = [other.clone(), other.clone()];
                maps[layer] = x;
                let maps = [maps.to_vec(), reference.to_vec()];
                term.forward(&observed([hidden.clone(), hidden.clone()], Some(maps)))
            });
        }
    }
}
