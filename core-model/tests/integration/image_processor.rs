//! Resizing, reading and preprocessing of images against Pillow and transformers' PIL processors;
//! see `generate_fixtures/image_processor.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use core_model::checkpoint::Checkpoint;
use core_model::image_processor::{Filter, ImageProcessor, crop, load_image, resize, squash};
use core_model::params::to_vec;
use image::RgbImage;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/image-processor")
        .join(name)
}

/// Pillow's pixels under `key`, as an image.
fn expected(tensors: &SafeTensors<'_>, key: &str) -> RgbImage {
    let tensor = tensors.tensor(key).unwrap();
    let shape = tensor.shape();
    RgbImage::from_raw(shape[1] as u32, shape[0] as u32, tensor.data().to_vec()).unwrap()
}

fn largest_difference(ours: &RgbImage, theirs: &RgbImage) -> u8 {
    assert_eq!(ours.dimensions(), theirs.dimensions());
    let pairs = ours.as_raw().iter().zip(theirs.as_raw());
    pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn every_filter_and_size_gives_the_bytes_of_pillow() {
    let text = fs::read_to_string(fixture("resize/cases.json")).unwrap();
    let cases: Vec<(String, u32, u32, u8, String)> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 648);
    for (name, width, height, number, digest) in cases {
        let image = image::open(fixture("resize").join(format!("{name}.png"))).unwrap();
        let filter = Filter::try_from(number).unwrap();
        let resized = resize(&image.into_rgb8(), width, height, filter);
        // Pillow resized the gray one with a single channel.
        let bytes = match name == "gray" {
            true => resized.pixels().map(|pixel| pixel.0[0]).collect(),
            false => resized.into_raw(),
        };
        let ours = core_model::files::hex(&Sha256::digest(&bytes));
        assert_eq!(
            ours[..16],
            digest,
            "{name} to {width}x{height} with {filter:?}"
        );
    }
}

#[test]
fn files_of_every_kind_have_the_pixels_of_pillow() {
    let bytes = fs::read(fixture("files/expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 25);
    for name in tensors.names() {
        let ours = load_image(&fixture("files").join(name)).unwrap();
        let difference = largest_difference(&ours, &expected(&tensors, name));
        // The decoder of WebP rounds otherwise than libwebp.
        let most = if name == "lossy.webp" { 4 } else { 0 };
        assert!(difference <= most, "{name}: {difference}");
    }
}

/// Sizes and digests of what Pillow reads; see `generate_fixtures/image_files.py`.
#[test]
fn jpeg_bmp_gif_and_tiff_files_have_exactly_the_pixels_of_pillow() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/image-files");
    let text = fs::read_to_string(folder.join("expected.json")).unwrap();
    let files: BTreeMap<String, (u32, u32, String)> = serde_json::from_str(&text).unwrap();
    let mut different = Vec::new();
    for (name, (width, height, digest)) in &files {
        let image = match load_image(&folder.join(name)) {
            Ok(image) => image,
            Err(error) => {
                different.push(error.to_string());
                continue;
            }
        };
        let ours = core_model::files::hex(&Sha256::digest(image.as_raw()));
        if image.dimensions() != (*width, *height) || ours[..16] != *digest {
            different.push(format!("{name} {:?}", image.dimensions()));
        }
    }
    assert!(different.is_empty(), "{different:#?}");
    assert_eq!(files.len(), 78);
}

#[test]
fn training_photographs_are_cropped_and_squashed_as_pillow_does() {
    let bytes = fs::read(fixture("fit.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let photograph = load_image(&fixture("photograph.png")).unwrap();
    for side in [16, 25, 64] {
        assert_eq!(
            crop(&photograph, side),
            expected(&tensors, &format!("crop.{side}"))
        );
        assert_eq!(
            squash(&photograph, side),
            expected(&tensors, &format!("squash.{side}"))
        );
    }
}

#[test]
fn every_configuration_gives_the_values_of_transformers() {
    let folder = fixture("processors");
    let expected =
        Checkpoint::open(&folder.join("expected.safetensors"), |key| Some(key.into())).unwrap();
    let images = ["tall", "flat", "square"]
        .map(|name| load_image(&folder.join(format!("{name}.png"))).unwrap());
    assert_eq!(expected.keys().count(), 9);
    for name in expected.keys() {
        let processor = ImageProcessor::from_dir(&folder.join(name)).unwrap();
        let ours = processor.preprocess(&images, &Device::flex()).unwrap();
        let (theirs, shape) = expected.read_f32(name).unwrap().unwrap();
        assert_eq!(ours.dims().to_vec(), shape, "{name}");
        for (a, b) in to_vec(ours).iter().zip(&theirs) {
            assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{name}: {a} {b}");
        }
    }
}

#[test]
fn saved_processors_are_read_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for processor in [ImageProcessor::clip(32), ImageProcessor::vit(64)] {
        processor.save(folder.path()).unwrap();
        assert_eq!(ImageProcessor::from_dir(folder.path()).unwrap(), processor);
    }
}

#[test]
fn a_configuration_without_a_class_is_that_of_the_model_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("preprocessor_config.json", "{}");
    let message = ImageProcessor::from_dir(folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`image_processor_type` is absent"),
        "{message}"
    );
    write("config.json", r#"{"model_type": "vit"}"#);
    assert_eq!(
        ImageProcessor::from_dir(folder.path()).unwrap(),
        ImageProcessor::vit(224)
    );
    write("config.json", r#"{"model_type": "clip"}"#);
    assert_eq!(
        ImageProcessor::from_dir(folder.path()).unwrap(),
        ImageProcessor::clip(224)
    );
}

#[test]
fn values_that_cannot_be_honoured_are_errors_that_name_the_key() {
    for (content, reason) in [
        (
            r#"{"image_processor_type": "BlipImageProcessor"}"#,
            "`image_processor_type` is",
        ),
        (r#"{"size": {"longest_edge": 9}}"#, "`size` is"),
        (r#"{"size": 0}"#, "`size` is 0"),
        (r#"{"size": {"height": 9}}"#, "`size` is"),
        (r#"{"crop_size": 99999999}"#, "`crop_size` is 99999999"),
        (r#"{"resample": 6}"#, "`resample` is 6"),
        (r#"{"do_pad": true}"#, "`do_pad` is true"),
        (r#"{"do_resize": "yes"}"#, "`do_resize` is \"yes\""),
        (r#"{"image_mean": [0, 1]}"#, "`image_mean` is [0,1]"),
        (r#"{"image_std": [1, 0, 1]}"#, "`image_std` is [1,0,1]"),
        ("[]", "preprocessor_config.json"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("config.json"),
            r#"{"model_type": "clip"}"#,
        )
        .unwrap();
        fs::write(folder.path().join("preprocessor_config.json"), content).unwrap();
        let message = ImageProcessor::from_dir(folder.path())
            .unwrap_err()
            .to_string();
        assert!(message.contains("preprocessor_config.json"), "{message}");
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn an_encoder_for_other_pictures_is_refused() {
    for processor in [ImageProcessor::clip(32), ImageProcessor::vit(32)] {
        processor.check_side(32).unwrap();
        let message = processor.check_side(64).unwrap_err().to_string();
        assert!(
            message.contains("32 by 32") && message.contains("is 64"),
            "{message}"
        );
    }
}

#[test]
fn pictures_that_end_in_different_sizes_are_no_batch() {
    let folder = tempfile::tempdir().unwrap();
    let content = r#"{"image_processor_type": "CLIPImageProcessor", "do_center_crop": false}"#;
    fs::write(folder.path().join("preprocessor_config.json"), content).unwrap();
    let processor = ImageProcessor::from_dir(folder.path()).unwrap();
    let images = [RgbImage::new(10, 10), RgbImage::new(10, 20)];
    let message = processor
        .preprocess(&images, &Device::flex())
        .unwrap_err()
        .to_string();
    assert!(message.contains("do_center_crop"), "{message}");
    assert!(processor.preprocess(&[], &Device::flex()).is_err());
    assert!(
        processor
            .preprocess(&[RgbImage::new(0, 0)], &Device::flex())
            .is_err()
    );
}

#[test]
fn files_that_are_cut_off_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "rgb.png",
        "photograph.jpg",
        "progressive.jpg",
        "lossless.webp",
        "lossy.webp",
    ] {
        let bytes = fs::read(fixture("files").join(name)).unwrap();
        for kept in [0, 1, 8, 20, bytes.len() / 2, bytes.len() - 12] {
            let path = folder.path().join(name);
            fs::write(&path, &bytes[..kept]).unwrap();
            let message = load_image(&path).unwrap_err().to_string();
            assert!(message.contains(name), "{kept} bytes: {message}");
        }
    }
}

#[test]
fn files_that_are_no_images_say_what_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.png");
    fs::write(&path, "not an image").unwrap();
    let message = load_image(&path).unwrap_err().to_string();
    assert!(
        message.contains("notes.png") && message.contains("PNG, JPEG, WebP, GIF, BMP or TIFF"),
        "{message}"
    );
    let message = load_image(Path::new("absent.png")).unwrap_err().to_string();
    assert!(message.contains("absent.png"), "{message}");
}

#[test]
fn a_huge_image_is_refused_before_it_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.png");
    let mut bytes = fs::read(fixture("files/rgb.png")).unwrap();
    // Width and height are the first numbers of the first chunk, its checksum follows.
    bytes[16..20].copy_from_slice(&30_000_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&30_000_u32.to_be_bytes());
    let checksum = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    fs::write(&path, bytes).unwrap();
    let message = load_image(&path).unwrap_err().to_string();
    assert!(message.contains("too large"), "{message}");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}
