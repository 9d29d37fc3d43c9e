//! The context terms against PyTorch: values and gradients in both formulations, both contexts,
//! with super-categories of two tokens and concepts of three vectors
//! (fixtures from `generate_fixtures.py`).

use burn::tensor::{Device, Tensor, TensorData};
use core_losses::{ContextPair, LossTerm, Observed, Pass, PromptSpan, Term, total_loss};
use safetensors::SafeTensors;
use serde::Deserialize;

const TENSORS: &[u8] = include_bytes!("../fixtures/context.safetensors");
const CASES: &str = include_str!("../fixtures/context.json");
const CONTEXT_LENGTH: usize = 12;
const LAYERS: usize = 4;

#[derive(Deserialize)]
struct Prompt {
    length: usize,
    concept: [usize; 2],
}

impl Prompt {
    fn span(&self) -> PromptSpan {
        PromptSpan::of_token(
            self.length,
            self.concept[0]..self.concept[1],
            CONTEXT_LENGTH,
        )
    }
}

#[derive(Deserialize)]
struct Case {
    name: String,
    context: String,
    formulation: String,
    learned: Prompt,
    reference: Prompt,
}

fn values(file: &SafeTensors<'_>, key: &str) -> Vec<f32> {
    let bytes = file.tensor(key).unwrap().data();
    let chunks = bytes.as_chunks::<4>().0.iter();
    chunks.map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

fn tensor<const D: usize>(file: &SafeTensors<'_>, key: &str, device: &Device) -> Tensor<D> {
    let shape: [usize; D] = file.tensor(key).unwrap().shape().try_into().unwrap();
    Tensor::from_data(TensorData::new(values(file, key), shape), device)
}

fn assert_close<const D: usize>(found: Tensor<D>, expected: &[f32], what: &str) {
    let found = found.into_data().try_into_vec_as::<f32>().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let relative = difference.fold(0.0_f32, f32::max) / largest;
    assert!(relative < 1e-4, "{what}: off by {relative}");
}

/// The device that `CORE_TEST_DEVICE` names, else the cpu.
fn device() -> Device {
    let name = std::env::var("CORE_TEST_DEVICE").unwrap_or("cpu".into());
    match name.as_str() {
        "cpu" => Device::flex(),
        #[cfg(feature = "wgpu")]
        "wgpu" => {
            let mut devices = Device::enumerate(burn::tensor::DeviceType::Wgpu).into_iter();
            devices.next().expect("a driver of wgpu")
        }
        other => panic!("CORE_TEST_DEVICE is {other}, which these tests were not built with"),
    }
}

#[test]
fn values_and_gradients_equal_pytorchs() {
    let file = SafeTensors::deserialize(TENSORS).unwrap();
    let plain = device();
    let tracked = plain.clone().autodiff();
    let cases: Vec<Case> = serde_json::from_str(CASES).unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let pair = ContextPair::new(case.learned.span(), case.reference.span()).unwrap();
        let embeddings = tensor::<3>(&file, "embeddings", &tracked).require_grad();
        let reference = tensor::<3>(&file, "reference_embeddings", &plain);
        let layers = |name: &str, device: &Device| -> Vec<Tensor<4>> {
            (0..LAYERS)
                .map(|i| tensor(&file, &format!("{name}.{i}"), device))
                .collect()
        };
        let maps: Vec<_> = layers("attention", &tracked)
            .into_iter()
            .map(Tensor::require_grad)
            .collect();
        let reference_maps = layers("reference_attention", &plain);
        let pass = |prompt: &Prompt, hidden: &Tensor<3>, maps: &[Tensor<4>]| Pass {
            spans: vec![prompt.span()],
            hidden: Some(hidden.clone()),
            prediction: None,
            attention: Some(maps.to_vec()),
        };
        let observed = Observed {
            template: Some(pass(&case.learned, &embeddings, &maps)),
            class_template: Some(pass(&case.reference, &reference, &reference_maps)),
            pair: Some(pair),
            ..Observed::default()
        };
        let terms: Vec<LossTerm> = ["context_embedding", "context_attention"]
            .iter()
            .map(|kind| {
                let term = serde_json::json!({
                    "kind": kind, "weight": 1.0,
                    "formulation": case.formulation, "context": case.context,
                });
                serde_json::from_value(term).unwrap()
            })
            .collect();
        assert!(terms.iter().all(|term| term.weight() == 1.0));
        let losses = total_loss(&terms, &observed).unwrap();
        for (kind, value) in losses.terms {
            let key = format!("{}.{kind}", case.name);
            assert_close(value.unwrap(), &values(&file, &key), &key);
        }
        let grads = losses.total.backward();
        let key = format!("{}.context_embedding.grad", case.name);
        assert_close(embeddings.grad(&grads).unwrap(), &values(&file, &key), &key);
        for (i, map) in maps.iter().enumerate() {
            let key = format!("{}.context_attention.grad.{i}", case.name);
            assert_close(map.grad(&grads).unwrap(), &values(&file, &key), &key);
        }
    }
}

#[test]
fn unknown_kinds_and_fields_are_refused_with_the_valid_names() {
    let parse = |json: &str| {
        serde_json::from_str::<LossTerm>(json)
            .unwrap_err()
            .to_string()
    };
    let message = parse(r#"{"kind": "context_embeding"}"#);
    assert!(
        message.contains("context_embeding") && message.contains("context_attention"),
        "{message}"
    );
    let message = parse(r#"{"kind": "context_embedding", "wieght": 1.0}"#);
    assert!(
        message.contains("wieght") && message.contains("formulation"),
        "{message}"
    );
}
