//! `core-eval score` in all its forms.

use std::path::Path;

use crate::common::{Sandbox, copy, core_eval};
use assert_cmd::Command;

fn score(sandbox: &Sandbox) -> Command {
    let mut command = core_eval();
    command.arg("score");
    for (flag, name) in [("--clip", "clip"), ("--dino", "dino"), ("--out", "out.csv")] {
        command.arg(flag).arg(sandbox.path(name));
    }
    command
}

fn generated(sandbox: &Sandbox) -> Command {
    let mut command = score(sandbox);
    for (flag, name) in [
        ("--generated", "striped-cup"),
        ("--references", "spotted-dog"),
    ] {
        command.arg(flag).arg(sandbox.path(name));
    }
    command
}

fn output(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Columns of a row as numbers, from the first score on.
fn numbers(row: &str, first: usize) -> Vec<f64> {
    row.split(',')
        .skip(first)
        .map(|value| value.parse().unwrap())
        .collect()
}

/// White masks for every image of a folder, with one black corner.
fn make_masks(images: &Path, masks: &Path) {
    std::fs::create_dir_all(masks).unwrap();
    for index in 0..5 {
        let image = image::open(images.join(format!("{index}.png"))).unwrap();
        let mask = image::GrayImage::from_fn(image.width(), image.height(), |x, y| {
            image::Luma([if x < 20 && y < 30 { 0 } else { 255 }])
        });
        mask.save(masks.join(format!("{index}.png"))).unwrap();
    }
}

#[test]
fn a_folder_is_scored_in_the_order_of_names_and_means_are_printed() {
    let sandbox = Sandbox::new();
    let mut command = generated(&sandbox);
    command.args(["--prompt", "a photo of a cup"]);
    let printed = output(command);
    let text = sandbox.read("out.csv");
    let rows: Vec<&str> = text.lines().collect();
    insta::assert_snapshot!(rows[0], @"image,clip_t,clip_i,dino");
    assert_eq!(rows.len(), 6);
    let mut means = [0.0; 3];
    for (index, row) in rows[1..].iter().enumerate() {
        assert!(row.starts_with(&format!("{index}.png,")), "{row}");
        for (mean, value) in means.iter_mut().zip(numbers(row, 1)) {
            assert!((-1.0..=1.0).contains(&value), "{row}");
            *mean += value / 5.0;
        }
    }
    let [t, i, d] = means;
    assert_eq!(
        printed.trim(),
        format!("clip_t {t:.6} clip_i {i:.6} dino {d:.6}")
    );
}

#[test]
fn an_image_among_its_own_references_has_cosine_one_with_itself() {
    let sandbox = Sandbox::new();
    let photo = sandbox.path("one/0.png");
    std::fs::create_dir_all(photo.parent().unwrap()).unwrap();
    std::fs::copy(sandbox.path("spotted-dog/0.png"), photo).unwrap();
    let mut command = score(&sandbox);
    for flag in ["--generated", "--references"] {
        command.arg(flag).arg(sandbox.path("one"));
    }
    command.args(["--prompt", "a dog"]);
    output(command);
    let text = sandbox.read("out.csv");
    let scores = numbers(text.lines().nth(1).unwrap(), 1);
    assert!(
        (scores[1] - 1.0).abs() < 1e-6 && (scores[2] - 1.0).abs() < 1e-6,
        "{text}"
    );
}

#[test]
fn prompts_may_differ_by_image_and_each_image_needs_one() {
    let sandbox = Sandbox::new();
    let prompts = |rows: &[&str]| {
        sandbox.write(
            "prompts-of.csv",
            &format!("image,prompt\n{}\n", rows.join("\n")),
        )
    };
    let all = [
        "3.png,a cat",
        "0.png,a photo",
        "1.png,a photo",
        "2.png,a photo",
        "4.png,a photo",
    ];
    let path = prompts(&all);
    let with = || {
        let mut command = generated(&sandbox);
        command.arg("--prompts").arg(&path);
        command
    };
    output(with());
    let text = sandbox.read("out.csv");
    assert_eq!(text.lines().count(), 6);
    prompts(&all[1..]);
    let message = Sandbox::failure(with());
    assert!(
        message.contains("3.png") && message.contains("no prompt"),
        "{message}"
    );
    prompts(&[&all[..], &["9.png,a photo"]].concat());
    let message = Sandbox::failure(with());
    assert!(
        message.contains("9.png") && message.contains("not there"),
        "{message}"
    );
}

#[test]
fn a_list_of_images_gives_the_scores_of_an_experiment() {
    let sandbox = Sandbox::finished();
    let scores = sandbox.read("results/small/scores.csv");
    let mut list = String::from("image,concept,prompt,kind\n");
    let mut expected = Vec::new();
    for row in scores.lines().skip(1) {
        let fields: Vec<&str> = row.split(',').collect();
        let word = if fields[1] == "spotted-dog" {
            "dog"
        } else {
            "cup"
        };
        list += &format!(
            "{},{},{},{}\n",
            fields[6],
            fields[1],
            fields[5].replace("{}", word),
            fields[4]
        );
        expected.push((fields[6].to_string(), fields[7..].join(",")));
    }
    let list = sandbox.write("results/small/images.csv", &list);
    copy(
        &sandbox.path("spotted-dog"),
        &sandbox.path("photos/spotted-dog"),
    );
    copy(
        &sandbox.path("striped-cup"),
        &sandbox.path("photos/striped-cup"),
    );
    let mut command = score(&sandbox);
    command
        .arg("--images")
        .arg(list)
        .arg("--references")
        .arg(sandbox.path("photos"));
    let printed = output(command);
    assert!(
        printed.contains("macro mean of 2 concepts: clip_t"),
        "{printed}"
    );
    let text = sandbox.read("out.csv");
    insta::assert_snapshot!(text.lines().next().unwrap(), @"image,concept,clip_t,clip_i,dino");
    for (row, (image, expected)) in text.lines().skip(1).zip(expected) {
        assert!(row.starts_with(&image), "{row}");
        let (ours, theirs) = (numbers(row, 2), numbers(&expected, 0));
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            assert!((ours - theirs).abs() < 1e-6, "{row}: {expected}");
        }
    }
}

#[test]
fn the_masked_protocol_needs_masks_and_leaves_style_out_of_identity() {
    let sandbox = Sandbox::new();
    let mut command = generated(&sandbox);
    command.args(["--prompt", "a cup", "--protocol", "core"]);
    let message = Sandbox::failure(command);
    assert!(
        message.contains("--generated-masks") && message.contains("--clipseg"),
        "{message}"
    );
    assert!(!sandbox.path("out.csv").exists());

    copy(&sandbox.path("striped-cup"), &sandbox.path("photos/cup"));
    make_masks(&sandbox.path("photos/cup"), &sandbox.path("masks/cup"));
    make_masks(
        &sandbox.path("striped-cup"),
        &sandbox.path("striped-cup-masks/striped-cup"),
    );
    let list = sandbox.write(
        "images.csv",
        "image,concept,prompt,kind\n\
         striped-cup/0.png,cup,a cup,plain\n\
         striped-cup/0.png,cup,a sketch of a cup,style\n",
    );
    let mut command = score(&sandbox);
    command.arg("--images").arg(list);
    for (flag, name) in [
        ("--references", "photos"),
        ("--references-masks", "masks"),
        ("--generated-masks", "striped-cup-masks"),
    ] {
        command.arg(flag).arg(sandbox.path(name));
    }
    command.args(["--protocol", "core"]);
    output(command);
    let text = sandbox.read("out.csv");
    let rows: Vec<&str> = text.lines().collect();
    assert!(numbers(rows[1], 2).len() == 3, "{text}");
    assert!(rows[2].ends_with(",,"), "{text}");
}

#[test]
fn masks_beside_the_photos_are_used_before_the_segmenter() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("photos/dog");
    copy(&golden("references").join("dog"), &folder);
    copy(
        &golden("reference-masks").join("dog"),
        &folder.join("masks"),
    );
    let list = "image,concept,prompt,kind\nplain-0.png,dog,a {},plain\n";
    copy(&golden("generated").join("dog"), &sandbox.path("images"));
    let list = sandbox.write("images/list.csv", list);
    let mut scores = Vec::new();
    for masks in [None, Some("given"), Some("none")] {
        let mut command = score(&sandbox);
        command.arg("--images").arg(&list);
        command.arg("--references").arg(sandbox.path("photos"));
        command.args(["--protocol", "core"]);
        command.arg("--clipseg").arg(golden("clipseg"));
        if masks == Some("given") {
            let given = golden("reference-masks");
            command.arg("--references-masks").arg(given);
        }
        if masks == Some("none") {
            std::fs::remove_dir_all(folder.join("masks")).unwrap();
        }
        output(command);
        let text = sandbox.read("out.csv");
        scores.push(numbers(text.lines().nth(1).unwrap(), 2));
    }
    assert_eq!(scores[0], scores[1]);
    assert!((scores[0][1] - scores[2][1]).abs() > 1e-4, "{scores:?}");
}

#[test]
fn the_segmenter_needs_to_know_what_to_look_for_and_photos_need_a_foreground() {
    let sandbox = Sandbox::new();
    let photos = sandbox.path("photos");
    copy(&golden("references").join("dog"), &photos);
    let with = || {
        let mut command = score(&sandbox);
        command
            .arg("--generated")
            .arg(golden("generated").join("dog"));
        command.arg("--references").arg(&photos);
        command.arg("--clipseg").arg(golden("clipseg"));
        command.args(["--protocol", "core", "--prompt", "a dog"]);
        command
    };
    copy(
        &golden("reference-masks").join("dog"),
        &photos.join("masks"),
    );
    let photo = image::open(photos.join("1.png")).unwrap();
    let nothing = image::GrayImage::new(photo.width(), photo.height());
    nothing.save(photos.join("masks/1.png")).unwrap();
    let message = Sandbox::failure(with());
    assert!(
        message.contains("1.png") && message.contains("no foreground"),
        "{message}"
    );
    std::fs::remove_file(photos.join("concept.toml")).unwrap();
    let message = Sandbox::failure(with());
    assert!(
        message.contains("concept.toml") && message.contains("super_category"),
        "{message}"
    );
}

/// Images, encoders and what transformers makes of them (generate_fixtures/score.py).
fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/score")
        .join(name)
}

#[test]
fn every_protocol_gives_the_scores_of_transformers() {
    let sandbox = Sandbox::new();
    // One photo a concept, for the protocol that pairs them.
    for concept in ["dog", "red-cup"] {
        let from = golden("references").join(concept);
        let to = sandbox.path("first").join(concept);
        std::fs::create_dir_all(&to).unwrap();
        for name in ["0.png", "concept.toml"] {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
    for (protocol, tolerance) in [
        ("dreambooth", 1e-5),
        ("core", 1e-5),
        ("core-clipseg", 1e-5),
        ("textual-inversion", 1e-5),
        ("custom-diffusion", 1e-5),
        ("oft", 1e-5),
        ("dreambench-plus", 1e-3),
    ] {
        let mut command = core_eval();
        let name = protocol.trim_end_matches("-clipseg");
        command.args(["score", "--protocol", name]);
        let paired = protocol == "dreambench-plus";
        let references = if paired {
            sandbox.path("first")
        } else {
            golden("references")
        };
        for (flag, path) in [
            ("--images", golden("generated/images.csv")),
            ("--references", references),
            ("--clip", golden("clip")),
            ("--dino", golden("dino")),
            ("--out", sandbox.path("out.csv")),
        ] {
            command.arg(flag).arg(path);
        }
        if protocol == "core" {
            command
                .arg("--generated-masks")
                .arg(golden("generated-masks"));
            command
                .arg("--references-masks")
                .arg(golden("reference-masks"));
        }
        if protocol == "core-clipseg" {
            command.arg("--clipseg").arg(golden("clipseg"));
        }
        output(command);
        let ours = sandbox.read("out.csv");
        let expected = golden(&format!("expected-{protocol}.csv"));
        let theirs = std::fs::read_to_string(expected).unwrap();
        assert_eq!(ours.lines().count(), theirs.lines().count());
        for (ours, theirs) in ours.lines().zip(theirs.lines()) {
            for (a, b) in ours.split(',').zip(theirs.split(',')) {
                let same = match (a.parse::<f64>(), b.parse::<f64>()) {
                    (Ok(a), Ok(b)) => (a - b).abs() < tolerance,
                    _ => a == b,
                };
                assert!(same, "{protocol}: {ours}, transformers: {theirs}");
            }
        }
        let written: serde_json::Value =
            serde_json::from_str(&sandbox.read("out.protocol.json")).unwrap();
        assert_eq!(written["protocol"]["name"], name);
        let clipseg = written["clipseg"]["sha256"]["model.safetensors"].as_str();
        assert_eq!(clipseg.is_some(), protocol == "core-clipseg");
        let digest = written["clip"]["sha256"]["model.safetensors"].as_str();
        assert_eq!(digest.unwrap().len(), 64);
    }
}

#[test]
fn pairs_of_unequal_number_are_refused_before_the_work() {
    let sandbox = Sandbox::new();
    let mut command = score(&sandbox);
    command.arg("--images").arg(golden("generated/images.csv"));
    command.arg("--references").arg(golden("references"));
    command.args(["--protocol", "dreambench-plus"]);
    let message = Sandbox::failure(command);
    assert!(message.contains("8 images and 4 photos"), "{message}");
}

#[test]
fn a_list_with_impossible_concepts_or_kinds_is_refused_by_line() {
    let sandbox = Sandbox::new();
    let with = |row: &str, protocol: &str| {
        let text = format!("image,concept,prompt,kind\nstriped-cup/0.png,{row}\n");
        let mut command = score(&sandbox);
        command
            .arg("--images")
            .arg(sandbox.write("list.csv", &text));
        command.arg("--references").arg(sandbox.path("photos"));
        command.args(["--protocol", protocol]);
        if protocol == "core" {
            for flag in ["--generated-masks", "--references-masks"] {
                command.arg(flag).arg(sandbox.path("masks"));
            }
        }
        Sandbox::failure(command)
    };
    for concept in ["", "..", "../striped-cup", "/", "a/b"] {
        let message = with(&format!("{concept},a cup,plain"), "dreambooth");
        assert!(message.contains("line 2: the concept is"), "{message}");
    }
    let message = with("cup,a cup,fancy", "core");
    assert!(
        message.contains("`fancy`") && message.contains("background"),
        "{message}"
    );
}

#[test]
fn a_damaged_image_late_in_the_list_keeps_the_scores_before_it() {
    let sandbox = Sandbox::new();
    let mut list = String::from("image,concept,prompt,kind\n");
    for index in 0..33 {
        list += &format!("striped-cup/{}.png,spotted-dog,a cup,plain\n", index % 5);
    }
    sandbox.write("broken.png", "no image");
    list += "broken.png,spotted-dog,a cup,plain\n";
    let mut command = score(&sandbox);
    command
        .arg("--images")
        .arg(sandbox.write("list.csv", &list));
    command.arg("--references").arg(sandbox.path(""));
    let message = Sandbox::failure(command);
    assert!(
        message.contains("broken.png") && message.contains("32 of 34"),
        "{message}"
    );
    assert!(!sandbox.path("out.csv").exists());
    assert_eq!(sandbox.read("out.partial.csv").lines().count(), 33);
}

#[test]
fn an_output_that_cannot_be_written_is_found_before_the_work() {
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.path("out.csv")).unwrap();
    let mut command = generated(&sandbox);
    command.args(["--prompt", "a cup"]);
    let message = Sandbox::failure(command);
    assert!(
        message.contains("--out") && message.contains("is a folder"),
        "{message}"
    );
}

#[test]
fn what_is_absent_or_damaged_is_named() {
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.path("empty")).unwrap();
    let with = |generated: &str| {
        let mut command = score(&sandbox);
        command.arg("--generated").arg(sandbox.path(generated));
        command.arg("--references").arg(sandbox.path("spotted-dog"));
        command.args(["--prompt", "a dog"]);
        command
    };
    for (generated, part) in [("absent", "absent"), ("empty", "no images")] {
        let message = Sandbox::failure(with(generated));
        assert!(message.contains(part), "{message}");
    }
    sandbox.write("damaged/0.png", "no image");
    let message = Sandbox::failure(with("damaged"));
    assert!(message.contains("damaged/0.png"), "{message}");
    let message = Sandbox::failure({
        let mut command = with("striped-cup");
        command.args(["--protocol", "clip"]);
        command
    });
    assert!(message.contains("dreambooth, core"), "{message}");
    assert!(!sandbox.path("out.csv").exists());
}
