//! `core-eval score` as the front door: layouts of other tools, JSON, results folders, further metrics and
//! judge commands.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

use crate::common::{Sandbox, checkout, copy, core_eval};

fn score(sandbox: &Sandbox, out: &str) -> Command {
    let mut command = core_eval();
    command.arg("score");
    for (flag, name) in [("--clip", "clip"), ("--dino", "dino"), ("--out", out)] {
        command.arg(flag).arg(sandbox.path(name));
    }
    command
}

/// The cups as images of a dog, all of one prompt.
fn cups(sandbox: &Sandbox) -> Command {
    let mut command = score(sandbox, "out.csv");
    command.arg("--generated").arg(sandbox.path("striped-cup"));
    command.arg("--references").arg(sandbox.path("spotted-dog"));
    command.args(["--prompt", "a photo of a cup"]);
    command
}

/// What a command that must succeed prints, to standard output and standard error.
fn printed(mut command: Command) -> [String; 2] {
    let output = command.output().unwrap();
    let [out, errors] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{errors}");
    [out, errors]
}

/// The header of a CSV and its rows, figures from column `first` on.
fn table(sandbox: &Sandbox, name: &str, first: usize) -> (String, Vec<(String, Vec<f64>)>) {
    let text = sandbox.read(name);
    let mut lines = text.lines();
    let header = lines.next().unwrap().to_string();
    let rows = lines.map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        let figures = fields[first..].iter().map(|field| field.parse().unwrap());
        (fields[0].to_string(), figures.collect())
    });
    (header, rows.collect())
}

/// The figures of a CSV in their order.
fn figures(sandbox: &Sandbox, name: &str) -> Vec<Vec<f64>> {
    let (_, rows) = table(sandbox, name, 2);
    rows.into_iter().map(|(_, figures)| figures).collect()
}

fn place(from: &Path, to: PathBuf) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
}

/// Two concepts as DreamBench++ writes them; every image has the photo of its name.
fn dreambench_plus(sandbox: &Sandbox) -> PathBuf {
    for (concept, photos) in [("kitten", "spotted-dog"), ("cup", "striped-cup")] {
        for index in 0..2 {
            let (photo, image) = (
                format!("{photos}/{index}.png"),
                format!("{photos}/{}.png", index + 2),
            );
            let at = |part: &str, ending: &str| {
                sandbox.path(&format!("samples/{part}/{concept}/{index}_0.{ending}"))
            };
            place(&sandbox.path(&photo), at("src_image", "png"));
            place(&sandbox.path(&image), at("tgt_image", "png"));
            let text = format!("samples/text/{concept}/{index}_0.txt");
            sandbox.write(&text, &format!("a {concept} number {index}\n"));
        }
    }
    sandbox.path("samples")
}

#[test]
fn the_folders_of_dreambench_plus_are_scored_as_a_list_of_the_same_images() {
    let sandbox = Sandbox::new();
    let samples = dreambench_plus(&sandbox);
    let mut command = score(&sandbox, "out.csv");
    command.arg("--generated").arg(&samples);
    command.args(["--protocol", "dreambench-plus"]);
    let [out, errors] = printed(command);
    assert!(
        errors.contains("layout `dreambench-plus`, because it holds src_image, tgt_image and text"),
        "{errors}"
    );
    assert!(out.contains("macro mean of 2 concepts"), "{out}");

    let mut list = String::from("image,concept,prompt,kind\n");
    for concept in ["cup", "kitten"] {
        for index in 0..2 {
            list += &format!("{concept}/{index}_0.png,{concept},a {concept} number {index},\n");
        }
    }
    let list = sandbox.write("samples/tgt_image/list.csv", &list);
    let mut command = score(&sandbox, "list.csv");
    command.arg("--images").arg(list);
    command.arg("--references").arg(samples.join("src_image"));
    command.args(["--protocol", "dreambench-plus"]);
    printed(command);
    let (header, rows) = table(&sandbox, "out.csv", 2);
    assert_eq!(header, "image,concept,clip_t,clip_i,dino");
    assert_eq!(rows[0].0, "cup/0_0.png");
    assert_eq!(figures(&sandbox, "out.csv"), figures(&sandbox, "list.csv"));
    assert_eq!(rows.len(), 4);
}

#[test]
fn parts_of_dreambench_plus_that_do_not_fit_together_are_named() {
    let sandbox = Sandbox::new();
    let samples = dreambench_plus(&sandbox);
    let with = |layout: &str| {
        let mut command = score(&sandbox, "out.csv");
        command.arg("--generated").arg(&samples);
        command.args(["--layout", layout, "--protocol", "dreambench-plus"]);
        command
    };
    let message = Sandbox::failure({
        let mut command = with("auto");
        command.args(["--prompt", "a cup"]);
        command
    });
    assert!(message.contains("drop --prompt"), "{message}");
    sandbox.write("samples/text/cup/9_0.txt", "a cup");
    let message = Sandbox::failure(with("auto"));
    assert!(
        message.contains("9_0.txt") && message.contains("no image"),
        "{message}"
    );
    std::fs::remove_file(sandbox.path("samples/text/cup/9_0.txt")).unwrap();
    sandbox.write("samples/text/hat/0_0.txt", "a hat");
    let message = Sandbox::failure(with("dreambench-plus"));
    assert!(message.contains("tgt_image/hat"), "{message}");
    std::fs::remove_dir_all(sandbox.path("samples/text")).unwrap();
    for (layout, part) in [
        ("auto", "fits no layout"),
        ("dreambench-plus", "no folder text"),
    ] {
        let message = Sandbox::failure(with(layout));
        assert!(message.contains(part), "{message}");
    }
    assert!(!sandbox.path("out.csv").exists());
}

#[test]
fn images_below_concept_and_seed_have_their_prompts_in_their_names() {
    let sandbox = Sandbox::new();
    let list = "image,concept,prompt,kind\n\
                dog/0/a_{}_in_snow.png,dog,a {} in snow,\n\
                dog/11/a red {}.png,dog,a red {},\n";
    for (index, name) in ["dog/0/a_{}_in_snow.png", "dog/11/a red {}.png"]
        .iter()
        .enumerate()
    {
        let image = sandbox.path(&format!("striped-cup/{index}.png"));
        place(&image, sandbox.path("images").join(name));
    }
    copy(&sandbox.path("spotted-dog"), &sandbox.path("photos/dog"));
    let list = sandbox.write("images/list.csv", list);
    for (flag, value, out) in [
        ("--generated", sandbox.path("images"), "out.csv"),
        ("--images", list, "list.csv"),
    ] {
        let mut command = score(&sandbox, out);
        command.arg(flag).arg(value);
        command.arg("--references").arg(sandbox.path("photos"));
        if flag == "--generated" {
            command.arg("--results").arg(sandbox.path("folder"));
        }
        let [_, errors] = printed(command);
        assert_eq!(
            errors.contains("`dreambooth`, because dog/0 holds images"),
            flag == "--generated"
        );
    }
    assert_eq!(sandbox.read("out.csv"), sandbox.read("list.csv"));
    // The results folder is that of an experiment with one variant.
    let scores = sandbox.read("folder/scores.csv");
    let rows: Vec<&str> = scores.lines().collect();
    assert_eq!(
        rows[0],
        "variant,concept,seed,group,kind,prompt,image,clip_t,clip_i,dino"
    );
    assert!(
        rows[2].starts_with("images,dog,11,,,a red {},/"),
        "{}",
        rows[2]
    );
    for name in ["summary.csv", "table.md", "protocol.json", "report.html"] {
        assert!(sandbox.path("folder").join(name).is_file(), "{name}");
    }
    let page: Value = serde_json::from_str(&sandbox.read("folder/summary.json")).unwrap();
    assert!(
        page["command"]
            .as_str()
            .unwrap()
            .starts_with("core-eval score --clip "),
        "{page}"
    );
    let text = page.to_string();
    for part in [
        "../images/dog/11/a%20red%20%7B%7D.png",
        "../photos/dog/0.png",
        "a red {}",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        sandbox
            .read("folder/checks.csv")
            .contains("photos,dino_same,")
    );

    place(
        &sandbox.path("striped-cup/2.png"),
        sandbox.path("images/dog/11/00002.png"),
    );
    let mut command = score(&sandbox, "out.csv");
    command.arg("--generated").arg(sandbox.path("images"));
    command.arg("--references").arg(sandbox.path("photos"));
    let message = Sandbox::failure(command);
    assert!(
        message.contains("00002.png: its name is no prompt"),
        "{message}"
    );
}

#[test]
fn everything_is_printed_as_json_with_the_texts_that_images_were_compared_with() {
    let sandbox = Sandbox::new();
    let mut command = cups(&sandbox);
    command.args(["--json"]);
    let [out, _] = printed(command);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["protocol"]["protocol"]["name"], "dreambooth");
    assert_eq!(
        json["columns"],
        serde_json::json!(["clip_t", "clip_i", "dino"])
    );
    let images = json["images"].as_array().unwrap();
    let (_, rows) = table(&sandbox, "out.csv", 1);
    assert_eq!(images.len(), 5);
    let mut mean = 0.0;
    for (image, (name, figures)) in images.iter().zip(&rows) {
        assert_eq!(image["image"], **name);
        assert_eq!(image["text"], "a photo of a cup");
        // Reading JSON rounds the last digit otherwise than reading CSV.
        let dino = image["dino"].as_f64().unwrap();
        assert!((dino - figures[2]).abs() < 1e-15, "{dino}: {figures:?}");
        mean += figures[2] / 5.0;
    }
    for means in ["macro", "pooled"] {
        let found = json["means"][means]["dino"].as_f64().unwrap();
        assert!((found - mean).abs() < 1e-12, "{found}: {mean}");
    }
}

#[test]
fn drift_and_direction_need_images_of_the_base_model() {
    let sandbox = Sandbox::new();
    let mut command = cups(&sandbox);
    command.arg("--base").arg(sandbox.path("striped-cup"));
    printed(command);
    let (header, rows) = table(&sandbox, "out.csv", 1);
    assert_eq!(header, "image,clip_t,clip_i,dino,drift");
    for (name, figures) in rows {
        assert!(figures[3].abs() < 1e-6, "{name} did not move: {figures:?}");
    }

    let mut command = cups(&sandbox);
    command.arg("--base").arg(sandbox.path("spotted-dog"));
    command.args(["--base-prompt", "a photo of a {}"]);
    printed(command);
    let (header, rows) = table(&sandbox, "out.csv", 1);
    assert_eq!(header, "image,clip_t,clip_i,dino,drift,clip_direction");
    for (name, figures) in rows {
        assert!(
            figures[3] > 1e-4 && figures[3] <= 2.0,
            "{name}: {figures:?}"
        );
        assert!(figures[4].abs() <= 1.0, "{name}: {figures:?}");
    }
    assert!(
        sandbox
            .read("out.protocol.json")
            .contains("\"base_prompt\": \"a photo of a {}\"")
    );

    let mut command = cups(&sandbox);
    command.arg("--base").arg(sandbox.path("clip"));
    let message = Sandbox::failure(command);
    assert!(
        message.contains("clip/0.png: no such file, for image `0.png`"),
        "{message}"
    );
}

#[test]
fn dinov2_and_siglip_are_columns_where_their_folders_are_named() {
    let sandbox = Sandbox::new();
    let fixtures = checkout().join("core-model/tests/fixtures");
    copy(&fixtures.join("dino/dinov2"), &sandbox.path("dinov2"));
    sandbox.write(
        "dinov2/preprocessor_config.json",
        r#"{"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 24},
            "crop_size": {"height": 20, "width": 20}}"#,
    );
    let with = |dinov2: &str| {
        let mut command = cups(&sandbox);
        command.arg("--dinov2").arg(sandbox.path(dinov2));
        command.arg("--siglip").arg(fixtures.join("siglip/default"));
        command
    };
    printed(with("dinov2"));
    let (header, rows) = table(&sandbox, "out.csv", 1);
    assert_eq!(header, "image,clip_t,clip_i,dino,dinov2,siglip_t,siglip_i");
    for (name, figures) in &rows {
        assert!(
            figures.iter().all(|figure| figure.abs() <= 1.0),
            "{name}: {figures:?}"
        );
    }
    printed(cups(&sandbox));
    let (header, alone) = table(&sandbox, "out.csv", 1);
    assert_eq!(header, "image,clip_t,clip_i,dino");
    for ((_, with), (_, without)) in rows.iter().zip(&alone) {
        assert_eq!(with[..3], without[..]);
    }
    let message = Sandbox::failure(with("dino"));
    assert!(message.contains("`model_type` is \"vit\""), "{message}");
}

#[cfg(unix)]
#[test]
fn a_judge_command_adds_a_column_and_is_kept_with_its_digest() {
    let sandbox = Sandbox::new();
    let script = sandbox.write(
        "judge.sh",
        "while read -r line; do\n\
         case \"$line\" in *'/3.png\",\"concept\"'*) echo 0.25;; *spotted-dog/0.png*) echo 1;; esac\n\
         done\n",
    );
    let mut command = cups(&sandbox);
    command
        .arg("--judge-command")
        .arg(format!("sh {}", script.display()));
    let [out, _] = printed(command);
    assert!(out.trim().ends_with("judge 0.850000"), "{out}");
    let (header, rows) = table(&sandbox, "out.csv", 1);
    assert_eq!(header, "image,clip_t,clip_i,dino,judge");
    let judged: Vec<f64> = rows.iter().map(|(_, figures)| figures[3]).collect();
    assert_eq!(judged, [1.0, 1.0, 1.0, 0.25, 1.0]);
    let protocol: Value = serde_json::from_str(&sandbox.read("out.protocol.json")).unwrap();
    let files = protocol["judge"]["files"].as_object().unwrap();
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        [&script.display().to_string()]
    );
    assert_eq!(protocol["judge"]["sha256"].as_str().unwrap().len(), 64);
}

#[cfg(unix)]
#[test]
fn a_judge_command_that_fails_loses_nothing_that_was_scored() {
    let sandbox = Sandbox::new();
    for (script, part) in [
        (
            "echo 0.5; exit 1",
            "ended (exit status: 1) after 1 of 5 answers",
        ),
        ("echo 0.5; echo good; cat", "line 2 is \"good\""),
        ("echo 0.5; exec sleep 60", "no answer for 2 seconds"),
    ] {
        let mut command = cups(&sandbox);
        command
            .arg("--judge-command")
            .arg(format!("sh -c '{script}'"));
        command.args(["--judge-seconds", "2"]);
        let message = Sandbox::failure(command);
        assert!(message.contains(part), "{message}");
        assert!(message.contains("out.partial.csv"), "{message}");
        assert!(!sandbox.path("out.csv").exists());
        let text = sandbox.read("out.partial.csv");
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], "image,clip_t,clip_i,dino,judge");
        assert_eq!(rows.len(), 6);
        assert!(
            rows[1].ends_with(",0.5") && rows[2].ends_with(','),
            "{text}"
        );
        assert_eq!(rows[5].matches(',').count(), 4);
    }
    let mut command = cups(&sandbox);
    command.args(["--judge-command", "no-such-judge"]);
    let message = Sandbox::failure(command);
    assert!(message.contains("no program `no-such-judge`"), "{message}");
}
