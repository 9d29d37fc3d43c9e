//! iResNet against a network of its own in PyTorch; see `generate_fixtures/iresnet.py`.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use core_model::checkpoint::Checkpoint;
use core_model::iresnet::{IResNet, IResNetConfig};
use core_model::params::to_vec;

use crate::common::{device, fixture};

/// The two faces of the fixture, [2, 3, 112, 112].
fn faces() -> Tensor<4> {
    let mut values = Vec::new();
    for n in 0..2_u32 {
        for c in 0..3 {
            for (y, x) in (0..112).flat_map(|y| (0..112).map(move |x| (y, x))) {
                let level = (y * (2 + n) + x * 3 + c * 29 + (x * y) % (17 + n)) % 256;
                values.push((level as f32 - 127.5) / 127.5);
            }
        }
    }
    Tensor::from_data(TensorData::new(values, [2, 3, 112, 112]), &device())
}

/// The fixture with another `config.json`.
fn with_config(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let weights = "backbone.pth";
    std::fs::copy(
        fixture("iresnet").join(weights),
        folder.path().join(weights),
    )
    .unwrap();
    std::fs::write(folder.path().join("config.json"), text).unwrap();
    folder
}

#[test]
fn features_are_those_of_pytorch_from_the_published_keys() {
    let network = IResNet::load(&fixture("iresnet"), &device()).unwrap();
    let path = fixture("iresnet").join("expected.safetensors");
    let expected = Checkpoint::open(&path, |key| Some(key.into())).unwrap();
    for (key, faces) in [("faces", faces()), ("mirrored", faces().flip([3]))] {
        let (theirs, shape) = expected.read_f32(key).unwrap().unwrap();
        let ours = network.forward(faces);
        assert_eq!(ours.dims().to_vec(), shape);
        let scale = theirs.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        for (ours, theirs) in to_vec(ours).iter().zip(&theirs) {
            assert!(
                (ours - theirs).abs() / scale < 1e-4,
                "{key}: {ours} {theirs}"
            );
        }
    }
}

#[test]
fn widths_come_from_the_file_and_blocks_from_the_configuration() {
    let config = IResNet::check(&fixture("iresnet")).unwrap();
    let expected = IResNetConfig {
        layers: [2, 1, 3, 1],
        widths: [4, 6, 8, 10, 12],
        features: 8,
    };
    assert_eq!(config, expected);
    assert!(IResNetConfig::is_in(&fixture("iresnet")).unwrap());
    assert!(!IResNetConfig::is_in(&fixture("dino").join("pooler")).unwrap());
}

#[test]
fn a_configuration_that_does_not_fit_the_weights_is_refused_by_key() {
    let refused = |text: &str| {
        let folder = with_config(text);
        IResNet::check(folder.path()).unwrap_err().to_string()
    };
    for (text, part) in [
        (r#"{"model_type": "iresnet"}"#, "`layers` is null"),
        (r#"{"layers": [3, 4, 14]}"#, "four stages"),
        (r#"{"layers": [3, 4, 0, 3]}"#, "four stages"),
        (r#"{"layers": [2, 1, 2, 1]}"#, "layer3.2."),
        (r#"{"layers": [2, 1, 4, 1]}"#, "layer3.3."),
        ("[]", "config.json"),
    ] {
        let message = refused(text);
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn a_folder_without_weights_or_with_those_of_another_network_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let message = |folder: &Path| IResNet::check(folder).unwrap_err().to_string();
    let none = message(folder.path());
    assert!(none.contains("backbone.pth"), "{none}");
    let dino = fixture("dino").join("pooler/model.safetensors");
    std::fs::copy(dino, folder.path().join("model.safetensors")).unwrap();
    let other = message(folder.path());
    assert!(other.contains("`conv1.weight` is missing"), "{other}");
}
