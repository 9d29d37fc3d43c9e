//! Properties of NeTI's mapper that hold whatever its weights are.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use core_model::Network;
use core_model::neti::{NetiConfig, NetiMapper};
use core_model::params::{ParamNames, set_trainable, to_vec};
use core_model::text_encoder::{TextEncoder, TextEncoderConfig};

const CONFIG: NetiConfig = NetiConfig {
    hidden: 12,
    frequencies: 8,
    time_anchors: 3,
    bypass: Some(0.2),
    layers: 4,
    channels: 16,
    target_norm: 1.7,
};
const SIGMAS: [f64; 2] = [0.03, 2.0];
const TIMESTEPS: [f32; 3] = [0.0, 501.0, 999.0];

fn mapper(config: NetiConfig) -> NetiMapper {
    NetiMapper::random(config, SIGMAS, 3, &Device::flex()).unwrap()
}

fn text_encoder() -> TextEncoder {
    let config = TextEncoderConfig {
        vocab_size: 20,
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        max_position_embeddings: 8,
        ..Default::default()
    };
    TextEncoder::init(&config, 5, &Device::flex()).unwrap()
}

/// The concept is the fourth of six tokens.
const PROMPT: [u32; 6] = [18, 4, 9, 20, 7, 19];

fn values(mapper: &NetiMapper, key: &str) -> Vec<f32> {
    let mut found = Vec::new();
    mapper.names().read(mapper, |param| {
        if param.name == key {
            found = to_vec(param.value);
        }
    });
    found
}

#[test]
fn embedding_and_bypass_together_have_the_target_norm_at_every_timestep_and_layer() {
    let mapped = mapper(CONFIG).forward(&TIMESTEPS, None);
    let (embedding, bypass) = (to_vec(mapped.embedding), to_vec(mapped.bypass));
    assert_eq!(embedding.len(), 4 * 3 * 16);
    for (v, b) in embedding.chunks(16).zip(bypass.chunks(16)) {
        let norm: f32 = v.iter().chain(b).map(|x| x * x).sum::<f32>().sqrt();
        assert!((norm - 1.7).abs() < 1e-5, "{norm}");
    }
    for (index, row) in embedding.chunks(16).enumerate() {
        let others = embedding.chunks(16).skip(index + 1);
        assert!(
            others.into_iter().all(|other| other != row),
            "row {index} is another's"
        );
    }
}

#[test]
fn the_first_layer_begins_as_the_features_of_its_anchors() {
    let mapper = mapper(CONFIG);
    let frequencies = values(&mapper, "neti.encoder.w");
    let weights = values(&mapper, "neti.input_layer.weight");
    assert_eq!(weights.len(), 12 * 16);
    for (row, weight) in weights.chunks(16).enumerate() {
        // Timesteps change slowest: 0, 333 and 666.
        let (timestep, layer) = (333.0 * (row / 4) as f64, (row % 4) as f64);
        for (k, pair) in frequencies.chunks(2).enumerate() {
            let angle = f64::from(pair[0]) * timestep + f64::from(pair[1]) * layer;
            for (found, expected) in [(weight[k], angle.sin()), (weight[8 + k], angle.cos())] {
                let expected = expected / 8.0_f64.sqrt();
                assert!((f64::from(found) - expected).abs() < 1e-5, "row {row}, {k}");
            }
        }
    }
}

#[test]
fn a_truncation_to_all_hidden_units_is_none_bit_for_bit() {
    let whole = mapper(CONFIG);
    let all = whole.clone().with_truncation(12).unwrap();
    let some = whole.clone().with_truncation(5).unwrap();
    let embedding = |mapper: &NetiMapper| to_vec(mapper.forward(&TIMESTEPS, None).embedding);
    assert_eq!(embedding(&all), embedding(&whole));
    assert_ne!(embedding(&some), embedding(&whole));
    // Rows that keep all units beside rows that do not.
    let mut kept = [12; 12];
    kept[7] = 5;
    let mixed = to_vec(whole.forward(&TIMESTEPS, Some(&kept)).embedding);
    for (row, kept) in kept.into_iter().enumerate() {
        let expected = embedding(if kept == 12 { &whole } else { &some });
        assert_eq!(
            mixed[16 * row..][..16],
            expected[16 * row..][..16],
            "row {row}"
        );
    }
    let message = whole.with_truncation(13).unwrap_err().to_string();
    assert!(
        message.contains("13") && message.contains("12"),
        "{message}"
    );
}

#[test]
fn with_no_units_kept_the_embedding_is_the_same_everywhere() {
    let none = mapper(CONFIG).with_truncation(0).unwrap();
    let embedding = to_vec(none.forward(&TIMESTEPS, None).embedding);
    assert!(embedding.chunks(16).all(|row| *row == embedding[..16]));
}

#[test]
fn without_a_bypass_keys_and_values_are_the_same_states() {
    let without = NetiConfig {
        bypass: None,
        ..CONFIG
    };
    let encoder = text_encoder();
    let prompts = vec![PROMPT.to_vec(); 3];
    let states = |config| mapper(config).conditioning(&encoder, &prompts, &TIMESTEPS, None);
    for layer in 0..4 {
        let [keys, values] = states(without).of_layer(layer).map(to_vec);
        assert_eq!(keys, values);
        let [with_bypass, values] = states(CONFIG).of_layer(layer).map(to_vec);
        assert_eq!(with_bypass, keys, "keys never see the bypass");
        // Values differ at the concept alone.
        for (place, (a, b)) in keys.chunks(16).zip(values.chunks(16)).enumerate() {
            assert_eq!(a != b, place % 6 == 3, "place {place}");
        }
    }
}

#[test]
fn states_before_the_concept_are_the_same_at_every_timestep_and_layer() {
    let prompts = vec![PROMPT.to_vec(); 3];
    let states = mapper(CONFIG).conditioning(&text_encoder(), &prompts, &TIMESTEPS, None);
    let first = to_vec(states.of_layer(0)[0].clone());
    for layer in 0..4 {
        for read in states.of_layer(layer).map(to_vec) {
            for prompt in read.chunks(6 * 16) {
                let (before, after) = prompt.split_at(3 * 16);
                for (a, b) in before.iter().zip(&first) {
                    assert!((a - b).abs() < 1e-6, "{a}, not {b}");
                }
                assert!(layer == 0 || after[..16] != first[3 * 16..][..16]);
            }
        }
    }
}

#[test]
fn a_file_gives_the_same_mapper() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("neti.safetensors");
    let device = Device::flex();
    for bypass in [Some(0.35), None] {
        let written = mapper(NetiConfig { bypass, ..CONFIG });
        written
            .save(
                &path,
                &BTreeMap::from([("placeholder_token".into(), "<a>".into())]),
            )
            .unwrap();
        let read = NetiMapper::load(&path, 16, 4, &device).unwrap();
        assert_eq!(read.config(), written.config());
        let embedding = |mapper: &NetiMapper| to_vec(mapper.forward(&TIMESTEPS, None).embedding);
        assert_eq!(embedding(&read), embedding(&written));
        let message = NetiMapper::load(&path, 32, 4, &device)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("16 channels") && message.contains("has 32"),
            "{message}"
        );
    }
}

/// A number that depends on every value of keys and values.
fn loss(mapper: &NetiMapper, encoder: &TextEncoder) -> Tensor<1> {
    let prompts = vec![PROMPT.to_vec(); 3];
    let mut kept = vec![12; 12];
    kept[4] = 7;
    let states = mapper.conditioning(encoder, &prompts, &TIMESTEPS, Some(&kept));
    let mut sum = Tensor::zeros([1], &Device::flex());
    for layer in 0..4 {
        let [keys, values] = states.of_layer(layer);
        let count = 3 * 6 * 16;
        let wave = |phase: f32| {
            let numbers: Vec<f32> = (0..count).map(|i| (phase + 0.7 * i as f32).sin()).collect();
            Tensor::<1>::from_floats(numbers.as_slice(), &Device::flex()).reshape([3, 6, 16])
        };
        let phase = layer as f32;
        sum = sum + (keys * wave(phase)).sum() + (values * wave(phase + 50.0)).sum();
    }
    sum
}

#[test]
fn gradients_of_the_mapper_are_finite_differences() {
    let encoder = text_encoder();
    let start = mapper(CONFIG);
    let names = start.names().clone();
    let trained = set_trainable(start.clone(), &names, |name| name != "neti.encoder.w");
    let mut gradients = loss(&trained, &encoder).backward();
    let mut slopes = BTreeMap::new();
    collect(&trained, &names, &mut gradients, &mut slopes);
    assert_eq!(slopes.len(), 12);
    for (key, gradient) in slopes {
        // Along the gradient itself, where the slope is steepest.
        let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
        let size = 2e-3_f32;
        let moved = |sign: f32| {
            let step: Vec<f32> = gradient.iter().map(|g| sign * size * g / norm).collect();
            let step = Tensor::<1>::from_floats(step.as_slice(), &Device::flex());
            let chosen = |name: &str, _| name == key;
            let moved = names.map(start.clone(), chosen, |_, old| old + step.clone());
            f64::from(loss(&moved, &encoder).into_scalar::<f32>())
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * f64::from(size));
        let off = (slope / f64::from(norm) - 1.0).abs();
        assert!(
            off < 2e-2,
            "{key}: {slope}, but the gradient's norm is {norm}"
        );
    }
}

/// The gradients of all trained parameters by name.
fn collect(
    mapper: &NetiMapper,
    names: &ParamNames,
    gradients: &mut Gradients,
    slopes: &mut BTreeMap<String, Vec<f32>>,
) {
    struct Collector<'a>(
        &'a ParamNames,
        &'a mut Gradients,
        &'a mut BTreeMap<String, Vec<f32>>,
    );
    impl ModuleVisitor for Collector<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            if tensor.is_require_grad() {
                let gradient = tensor.grad_remove(self.1).unwrap();
                self.2
                    .insert(self.0.name(param.id).to_string(), to_vec(gradient));
            }
        }
    }
    mapper.visit(&mut Collector(names, gradients, slopes));
}
