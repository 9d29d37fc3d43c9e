//! The identity of people by a network that reads aligned faces, whose landmarks are given.

use std::path::PathBuf;

use core_eval::metrics::{Metric, cosine};
use core_model::alignment::aligned_face;
use core_model::image_processor::load_image;

use crate::common::{Sandbox, checkout, core_eval};
use crate::faces::{add_references, columns, json, measured};

/// The tiny iResNet of core-model's tests.
fn iresnet() -> PathBuf {
    checkout().join("core-model/tests/fixtures/iresnet")
}

const POINTS: &str = "20,24,42,23,31,35,23,45,40,44";

/// A file that says where the faces of images are; all of them are in one place.
fn landmarks<'a>(images: impl Iterator<Item = &'a str>) -> String {
    let rows: String = images.map(|image| format!("{image},{POINTS}\n")).collect();
    format!("image,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n{rows}")
}

const PHOTOS: [&str; 5] = ["0.png", "1.png", "2.png", "3.png", "4.png"];

/// `core-eval score` of the photos of the cup against those of the dog, by the iResNet.
fn score_faces(sandbox: &Sandbox, more: &[&str]) -> assert_cmd::Command {
    let mut command = core_eval();
    command.args(["score", "--prompt", "a photo of a cup"]);
    for (flag, path) in [
        ("--clip", sandbox.path("clip")),
        ("--dino", sandbox.path("dino")),
        ("--identity", iresnet()),
        ("--generated", sandbox.path("striped-cup")),
        ("--references", sandbox.path("spotted-dog")),
        ("--out", sandbox.path("out.csv")),
    ] {
        command.arg(flag).arg(path);
    }
    command.args(more);
    command
}

#[test]
fn an_iresnet_compares_aligned_faces_and_images_without_landmarks_have_no_identity() {
    let sandbox = Sandbox::new();
    sandbox.write("spotted-dog/landmarks.csv", &landmarks(PHOTOS.into_iter()));
    let of_images = landmarks(["0.png", "1.png", "3.png", "4.png"].into_iter());
    let file = sandbox.write("faces.csv", &of_images);
    let printed = score_faces(&sandbox, &["--landmarks", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(
        printed.status.success(),
        "{}",
        String::from_utf8_lossy(&printed.stderr)
    );
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(
        printed.contains("images without a face: 1 of 5"),
        "{printed}"
    );
    let device = core_model::device::parse_device("cpu").unwrap();
    let kind = Metric::named("identity").unwrap().definition().encoder();
    let encoder = (kind.load)(&iresnet(), &device).unwrap();
    let points = [
        [20.0, 24.0],
        [42.0, 23.0],
        [31.0, 35.0],
        [23.0, 45.0],
        [40.0, 44.0],
    ];
    let feature = |folder: &str, name: &str| {
        let image = load_image(&sandbox.path(folder).join(name)).unwrap();
        let face = aligned_face(&image, &points);
        encoder.image_features(&[face]).unwrap().remove(0)
    };
    let photos = PHOTOS.map(|name| feature("spotted-dog", name));
    let scores = columns(&sandbox.read("out.csv"), ["identity", "dino"]);
    for (name, [identity, _]) in PHOTOS.iter().zip(scores) {
        let image = feature("striped-cup", name);
        let expected = photos
            .iter()
            .map(|photo| cosine(&image, photo))
            .sum::<f64>()
            / 5.0;
        match *name {
            "2.png" => assert_eq!(identity, None),
            _ => assert!((identity.unwrap() - expected).abs() < 1e-6, "{name}"),
        }
    }
    let protocol = json(&sandbox.read("out.protocol.json"));
    assert!(
        protocol["faces"]
            .as_str()
            .unwrap()
            .contains("template of insightface")
    );
    assert!(protocol["identity"]["sha256"]["backbone.pth"].is_string());
    assert!(protocol["landmarks"]["sha256"].is_string());
}

#[test]
fn landmarks_that_are_missing_are_told_with_the_tools_that_write_them() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("faces.csv", &landmarks(PHOTOS.into_iter()));
    let file = file.to_str().unwrap();
    let given = ["--landmarks", file];
    let message = Sandbox::failure(score_faces(&sandbox, &[]));
    for part in ["--landmarks", "insightface", "face-alignment", "68"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = Sandbox::failure(score_faces(&sandbox, &given));
    for part in ["spotted-dog/landmarks.csv", "insightface"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let photos = "spotted-dog/landmarks.csv";
    sandbox.write(photos, &landmarks(PHOTOS[..4].iter().copied()));
    let message = Sandbox::failure(score_faces(&sandbox, &given));
    assert!(
        message.contains("no row for the photo `4.png`"),
        "{message}"
    );
    sandbox.write(photos, &landmarks(PHOTOS.into_iter().chain(["3.png"])));
    let message = Sandbox::failure(score_faces(&sandbox, &given));
    assert!(message.contains("a second face in `3.png`"), "{message}");
    let mut command = core_eval();
    command.args(["score", "--prompt", "a dog", "--landmarks", file]);
    for (flag, name) in [
        ("--clip", "clip"),
        ("--dino", "dino"),
        ("--generated", "striped-cup"),
        ("--references", "spotted-dog"),
        ("--out", "out.csv"),
    ] {
        command.arg(flag).arg(sandbox.path(name));
    }
    let message = Sandbox::failure(command);
    assert!(message.contains("has no effect"), "{message}");
}

/// The finished small experiment with the iResNet as identity encoder, and the faces of all photos.
fn with_aligned_identity() -> Sandbox {
    let sandbox = Sandbox::finished();
    let folder = iresnet().display().to_string();
    sandbox.edit(
        "dino = \"dino\"",
        &format!("dino = \"dino\"\nidentity = \"{folder}\""),
    );
    for concept in ["spotted-dog", "striped-cup"] {
        let rows = landmarks(PHOTOS.into_iter());
        sandbox.write(&format!("{concept}/landmarks.csv"), &rows);
    }
    sandbox
}

/// The names of the images that the small experiment scored.
fn images_of(sandbox: &Sandbox) -> Vec<String> {
    let mut reader = csv::Reader::from_path(sandbox.path("results/small/scores.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let place = header.iter().position(|name| name == "image").unwrap();
    let rows = reader.records();
    rows.map(|row| row.unwrap()[place].into()).collect()
}

#[test]
fn an_experiment_asks_for_the_landmarks_of_its_images_once_they_are_drawn() {
    let sandbox = with_aligned_identity();
    let message = Sandbox::failure(sandbox.command("results"));
    for part in ["small/landmarks.csv", "all images are drawn", "insightface"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let images = images_of(&sandbox);
    let some = images.iter().skip(3).map(String::as_str);
    sandbox.write("results/small/landmarks.csv", &landmarks(some));
    sandbox.run("results");
    let scores = columns(
        &sandbox.read("results/small/scores.csv"),
        ["identity", "dino"],
    );
    for (index, [identity, _]) in scores.iter().enumerate() {
        assert_eq!(identity.is_some(), index >= 3);
    }
    let checks = sandbox.read("results/small/checks.csv");
    assert_eq!(measured(&checks, "CoRe", "no_face"), 3.0);
}

#[test]
fn aligned_faces_after_the_autoencoder_are_those_of_the_references() {
    let sandbox = with_aligned_identity();
    // Two references, the second not square, with the face in another place.
    let cup = |name: &str| load_image(&sandbox.path("striped-cup").join(name)).unwrap();
    let wide = image::imageops::resize(&cup("1.png"), 128, 96, image::imageops::Triangle);
    let second = [
        [52.0, 40.0],
        [80.0, 42.0],
        [66.0, 52.0],
        [55.0, 66.0],
        [78.0, 67.0],
    ];
    let columns: Vec<String> = second.iter().flatten().map(f64::to_string).collect();
    let rows = landmarks(["0.png"].into_iter()) + &format!("1.png,{}\n", columns.join(","));
    sandbox.write("people/landmarks.csv", &rows);
    cup("0.png").save(sandbox.path("people/0.png")).unwrap();
    wide.save(sandbox.path("people/1.png")).unwrap();
    add_references(&sandbox, "spotted-dog", "../people");
    let images = images_of(&sandbox);
    let rows = landmarks(images.iter().map(String::as_str));
    sandbox.write("results/small/landmarks.csv", &rows);
    sandbox.run("results");

    let device = core_model::device::parse_device("cpu").unwrap();
    let kind = Metric::named("identity").unwrap().definition().encoder();
    let encoder = (kind.load)(&iresnet(), &device).unwrap();
    let feature = |image: &image::RgbImage, points: &[[f64; 2]; 5]| {
        let face = aligned_face(image, points);
        encoder.image_features(&[face]).unwrap().remove(0)
    };
    let first = [
        [20.0, 24.0],
        [42.0, 23.0],
        [31.0, 35.0],
        [23.0, 45.0],
        [40.0, 44.0],
    ];
    let photos = [feature(&cup("0.png"), &first), feature(&wide, &second)];
    let decoded = std::fs::read_dir(sandbox.path("results/small/features/decoded")).unwrap();
    let decoded = decoded.map(|entry| load_image(&entry.unwrap().path()).unwrap());
    let decoded: Vec<image::RgbImage> = decoded.collect();
    let [a, b] = &decoded[..] else {
        panic!("{} files", decoded.len());
    };
    // The height of 96 pixels became the side, and the width of 128 was cut on both ends.
    let side = f64::from(a.width());
    let (width, height) = ((side * 128.0 / 96.0).floor(), side);
    let start = ((width - side) / 2.0).floor();
    let moved = second.map(|[x, y]| {
        let x = (x + 0.5) * width / 128.0 - 0.5 - start;
        [x, (y + 0.5) * height / 96.0 - 0.5]
    });
    let scaled = first.map(|point| point.map(|at| (at + 0.5) * side / 64.0 - 0.5));
    let expected = [(a, b), (b, a)].map(|(first, second)| {
        let cosines = [
            cosine(&feature(first, &scaled), &photos[1]),
            cosine(&feature(second, &moved), &photos[0]),
        ];
        cosines.iter().sum::<f64>() / 2.0
    });
    let measured = measured(
        &sandbox.read("results/small/checks.csv"),
        "photos",
        "identity_decoded",
    );
    // Which file is of which reference its name does not tell.
    let found = expected.iter().any(|value| (value - measured).abs() < 1e-6);
    assert!(found, "{expected:?} {measured}");
    let table = sandbox.read("results/small/table.md");
    let row = table
        .lines()
        .find(|row| row.contains("photos after the autoencoder"));
    assert!(row.unwrap().contains(&format!("{measured:.4}")), "{table}");
}
