//! A whole experiment on a tiny model: files, reuse, kills, other results from other settings.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{Finished, Sandbox, TABLES, finished};

fn lines(text: &str) -> usize {
    text.lines().count()
}

fn folders(sandbox: &Sandbox, name: &str) -> usize {
    let entries = std::fs::read_dir(sandbox.path(name)).unwrap();
    entries
        .filter(|entry| entry.as_ref().unwrap().path().is_dir())
        .count()
}

#[test]
fn an_experiment_writes_its_files() {
    let Finished { sandbox, printed } = finished();
    // 5 variants x 2 concepts x 2 prompts x 2 images.
    let scores = sandbox.read("results/small/scores.csv");
    assert_eq!(lines(&scores), 1 + 40);
    assert_eq!(
        scores.lines().next().unwrap(),
        "variant,concept,seed,group,kind,prompt,image,clip_t,clip_i,dino"
    );
    let first = scores.lines().nth(1).unwrap();
    let image =
        "CoRe,spotted-dog,0,animate,plain,a photo of a {},images/CoRe/spotted-dog/0/0/00000.png,";
    assert!(first.starts_with(image), "{first}");
    // Two variants have equal content, one is not trained: 3 recipes x 2 concepts.
    assert_eq!(folders(sandbox, "results/small/runs"), 6);
    let summary = sandbox.read("results/small/summary.csv");
    insta::assert_snapshot!(
        summary.lines().next().unwrap(),
        @"variant,metric,concept,mean,low,high,difference,difference_low,difference_high,n"
    );
    // Variants x scores x (two concepts and all).
    assert_eq!(lines(&summary), 1 + 5 * 3 * 3);
    let tokens = sandbox.read("results/small/tokens.csv");
    insta::assert_snapshot!(
        tokens.lines().next().unwrap(),
        @"variant,concept,seed,prompt,position,token,cosine"
    );
    let effects = sandbox.read("results/small/effects.csv");
    assert!(effects.contains("the norm grows,norm_growth,"), "{effects}");
    let table = sandbox.read("results/small/table.md");
    for part in ["| CoRe again |", "within these fixed concepts", "CLIP-T"] {
        assert!(table.contains(part), "{table}");
    }
    assert!(printed.contains(table.trim_end()), "{printed}");
    let protocol = sandbox.read("results/small/protocol.json");
    assert!(protocol.contains("\"sha256\""), "{protocol}");
    for file in [
        "overview",
        "comparison",
        "grid-spotted-dog",
        "grid-striped-cup",
        "foregrounds",
        "forest",
        "forest-core",
        "tradeoff",
        "losses",
        "norm",
        "tokens",
    ] {
        let [png, svg] = ["png", "svg"].map(|ending| format!("figures/{file}.{ending}"));
        let path = sandbox.path("results/small").join(&png);
        assert!(image::open(&path).unwrap().width() > 400, "{file}");
        let text = sandbox.read(&format!("results/small/{svg}"));
        assert!(text.contains("<text"), "{file}");
        assert!(
            printed.contains(&png) && printed.contains(&svg),
            "{printed}"
        );
    }
    let latex = sandbox.read("results/small/table.tex");
    assert!(
        latex.contains("\\toprule") && latex.contains("CoRe again"),
        "{latex}"
    );

    // Equal variants have equal scores.
    let of = |variant: &str| -> Vec<String> {
        let rows = scores
            .lines()
            .filter(|row| row.starts_with(&format!("{variant},")));
        rows.map(|row| row.rsplit(".png,").next().unwrap().to_string())
            .collect()
    };
    assert_eq!(of("CoRe"), of("CoRe again"));
    assert_ne!(of("CoRe"), of("no rescaling"));
}

#[test]
fn a_second_start_runs_no_network_and_ends_with_the_same_bytes() {
    let first = &finished().printed;
    for work in [
        "6 runs trained, 40 images generated",
        "prompts read by the text encoder",
        // "CoRe again" has the 8 images of CoRe.
        "32 masks made by CLIPSeg",
        // 32 images and 10 photos, whole and as foregrounds.
        "84 images read by CLIP",
        "84 images read by DINO",
        "texts read by CLIP",
    ] {
        assert!(first.contains(work), "{work}: {first}");
    }
    let sandbox = Sandbox::finished();
    let before = sandbox.files("results/small");
    let printed = sandbox.run("results");
    let line = "networks that ran: none, everything was there";
    assert!(printed.contains(line), "{printed}");
    let after = sandbox.files("results/small");
    assert_eq!(before.len(), after.len());
    for (path, bytes) in before {
        assert!(after[&path] == bytes, "{} changed", path.display());
    }
}

#[test]
fn kept_features_are_used_for_the_same_network_and_undamaged_only() {
    let sandbox = Sandbox::finished();
    let before = sandbox.files("results/small");
    let file = sandbox.path("results/small/features/dino.bin");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let printed = sandbox.run("results");
    let line = "networks that ran: 84 images read by DINO\n";
    assert!(printed.contains(line), "{printed}");
    let after = sandbox.files("results/small");
    assert_eq!(before.len(), after.len());
    for (path, bytes) in &before {
        // The page says how long scoring took, which was done again.
        let is_page = path.ends_with("report.html") || path.ends_with("summary.json");
        assert!(
            is_page || after[path] == *bytes,
            "{} changed",
            path.display()
        );
    }

    // The same network under another name is another network; its scores are the same.
    let config = sandbox.read("clip/config.json");
    sandbox.write("clip/config.json", &config.replacen('{', "{ ", 1));
    let printed = sandbox.run("results");
    for part in ["84 images read by CLIP", "texts read by CLIP"] {
        assert!(printed.contains(part), "{printed}");
    }
    assert!(!printed.contains("DINO\n"), "{printed}");
    let scores = sandbox.path("results/small/scores.csv");
    assert_eq!(std::fs::read(&scores).unwrap(), before[&scores]);
}

#[test]
fn a_reference_is_compared_at_the_end() {
    let sandbox = Sandbox::finished();
    let printed = sandbox.run("results");
    assert!(!printed.contains("differ from"), "{printed}");
    let scores = sandbox.read("results/small/scores.csv");
    sandbox.write("results/reference/small/scores.csv", &scores);
    let printed = sandbox.run("results");
    let last = printed.trim_end().lines().last().unwrap();
    assert!(
        last.starts_with("scores of 40 images differ from"),
        "{last}"
    );
    assert!(last.ends_with("by at most 0.0e0"), "{last}");
    let (first, rest) = scores.split_once(".png,").unwrap();
    let (_, rest) = rest.split_once(',').unwrap();
    let other = format!("{first}.png,0.9,{rest}");
    sandbox.write("results/reference/small/scores.csv", &other);
    let printed = sandbox.run("results");
    let last = printed.trim_end().lines().last().unwrap();
    let row = "images/CoRe/spotted-dog/0/0/00000.png: clip_t is";
    assert!(
        last.contains(row) && last.contains("and 0.9000 there"),
        "{last}"
    );
}

#[test]
fn a_killed_experiment_ends_with_the_same_bytes() {
    let sandbox = Sandbox::finished();
    for milliseconds in [150, 300, 450, 600, 750, 900] {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("core-eval"))
            .arg(sandbox.path("experiment.toml"))
            .arg("--results")
            .arg(sandbox.path("killed"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    sandbox.run("killed");
    for file in TABLES {
        let [whole, killed] =
            ["results", "killed"].map(|results| sandbox.read(&format!("{results}/small/{file}")));
        assert_eq!(whole, killed, "{file}");
    }
}

#[test]
fn other_sampling_draws_again_and_other_training_trains_again() {
    let sandbox = Sandbox::finished();
    let scores = sandbox.read("results/small/scores.csv");
    sandbox.edit("guidance_scale = 5.0", "guidance_scale = 2.0");
    let printed = sandbox.run("results");
    let drawn = "networks that ran: 40 images generated, 32 masks made by CLIPSeg, ";
    assert!(printed.contains(drawn), "{printed}");
    assert_ne!(scores, sandbox.read("results/small/scores.csv"));
    assert_eq!(folders(&sandbox, "results/small/runs"), 6);
    let recipe = sandbox.read("recipe.toml");
    sandbox.write(
        "recipe.toml",
        &recipe.replace("weight = 1.0", "weight = 3.0"),
    );
    let printed = sandbox.run("results");
    // CoRe and the variant without rescaling changed; that without terms did not.
    assert!(
        printed.contains("4 runs trained, 24 images generated"),
        "{printed}"
    );
    assert_eq!(folders(&sandbox, "results/small/runs"), 10);
}

#[test]
fn a_variant_with_its_own_guidance_shares_the_run_and_draws_other_images() {
    let sandbox = Sandbox::finished();
    let image = |variant: &str| {
        let file = format!("results/small/images/{variant}/spotted-dog/0/0/00000.png");
        std::fs::read(sandbox.path(&file)).unwrap()
    };
    assert_eq!(image("CoRe"), image("CoRe again"));
    let again = "name = \"CoRe again\"\n";
    sandbox.edit(again, &format!("{again}guidance_scale = 2.0\n"));
    let printed = sandbox.run("results");
    let drawn = "networks that ran: 8 images generated";
    assert!(printed.contains(drawn), "{printed}");
    assert_ne!(image("CoRe"), image("CoRe again"));
    let source = |variant: &str| -> serde_json::Value {
        let file = format!("results/small/images/{variant}/spotted-dog/0/source.json");
        serde_json::from_str(&sandbox.read(&file)).unwrap()
    };
    let (own, common) = (source("CoRe again"), source("CoRe"));
    assert_eq!(own["run"], common["run"]);
    assert_eq!(
        (&own["guidance_scale"], &common["guidance_scale"]),
        (&2.0.into(), &5.0.into())
    );
}

#[test]
fn quick_walks_the_whole_path_into_another_folder() {
    let sandbox = Sandbox::new();
    let output = sandbox.command("results").arg("--quick").output().unwrap();
    assert!(output.status.success());
    assert!(!sandbox.path("results/small").exists());
    let scores = sandbox.read("results/small-quick/scores.csv");
    // 5 variants x 2 concepts x 2 prompts x 1 image.
    assert_eq!(lines(&scores), 1 + 20);
    assert!(
        sandbox
            .path("results/small-quick/figures/overview.png")
            .exists()
    );
    assert!(sandbox.path("results/small-quick/effects.csv").exists());
}

#[test]
fn variants_can_be_chosen_and_the_first_stays_the_baseline() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command("results");
    let output = command
        .args(["--quick", "--variant", "class word"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let table = sandbox.read("results/small-quick/table.md");
    assert!(
        table.contains("| CoRe |") && table.contains("| class word |"),
        "{table}"
    );
    assert!(!table.contains("no rescaling"), "{table}");
}

#[test]
fn a_dry_run_tells_runs_time_and_memory_and_writes_nothing() {
    let sandbox = Sandbox::new();
    let output = sandbox
        .command("results")
        .arg("--dry-run")
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "CoRe / spotted-dog / seed 0: run ",
        "to train",
        "as above",
        "nothing to train",
        "6 runs to train, about",
        "40 images to draw, about",
        "peak memory",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!sandbox.path("results").exists());
}

#[test]
fn what_is_wrong_is_said_before_anything_is_trained() {
    for (from, to, parts) in [
        (
            "protocol = \"dreambooth\"",
            "protocol = \"core\"",
            ["masks", "`clipseg` below [evaluation]"],
        ),
        ("clip = \"clip\"", "clip = \"dino\"", ["dino", "vocab.json"]),
        (
            "concepts = [\"spotted-dog\"",
            "concepts = [\"spotted-dog\", \"spotted-dog\"",
            ["two concepts", "spotted-dog"],
        ),
        (
            "metric = \"dino\"",
            "metric = \"dinos\"",
            ["dinos", "clip_i"],
        ),
        ("steps = 4", "steps = 0", ["sampling.steps", "1 or more"]),
        (
            "guidance_scale = 5.0",
            "guidance_scale = inf",
            ["`sampling.guidance_scale` is inf", "at least 0"],
        ),
        (
            "name = \"CoRe again\"\n",
            "name = \"CoRe again\"\nguidance_scale = -1.0\n",
            [
                "`guidance_scale` of variant `CoRe again` is -1",
                "at least 0",
            ],
        ),
        (
            "protocol = \"dreambooth\"",
            "protocol = \"dreambooth\"\nclipseg = \"x\"",
            ["CLIPSeg", "uses no masks"],
        ),
    ] {
        let sandbox = Sandbox::new();
        sandbox.edit(from, to);
        let message = Sandbox::failure(sandbox.command("results"));
        for part in parts {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!sandbox.path("results/small/images").exists());
        let runs = sandbox.path("results/small/runs");
        assert!(!runs.exists() || folders(&sandbox, "results/small/runs") == 0);
    }
}

#[test]
fn a_damaged_encoder_is_found_before_anything_is_trained() {
    for (file, from, to, part) in [
        (
            "dino/config.json",
            "\"num_hidden_layers\": 1",
            "\"num_hidden_layers\": 2",
            "encoder",
        ),
        ("dino/preprocessor_config.json", "32", "16", "image_size"),
        (
            "clip/config.json",
            "\"projection_dim\": 8",
            "\"projection_dim\": 9",
            "text_projection",
        ),
    ] {
        let sandbox = Sandbox::new();
        let text = sandbox.read(file);
        assert!(text.contains(from), "{from}: {text}");
        sandbox.write(file, &text.replace(from, to));
        let message = Sandbox::failure(sandbox.command("results"));
        assert!(message.contains(part), "{part}: {message}");
        assert!(!sandbox.path("results").exists());
    }
}

#[test]
fn prompts_and_placeholders_that_do_not_fit_are_named() {
    let sandbox = Sandbox::new();
    let long = "very ".repeat(20);
    let prompts = sandbox.read("prompts.csv") + &format!("animate,plain,{long}{{}}\n");
    sandbox.write("prompts.csv", &prompts);
    let message = Sandbox::failure(sandbox.command("results"));
    assert!(
        message.contains("too long") && message.contains("spotted-dog"),
        "{message}"
    );

    let sandbox = Sandbox::new();
    let concept = sandbox.read("spotted-dog/concept.toml") + "placeholder_token = \"beach\"\n";
    sandbox.write("spotted-dog/concept.toml", &concept);
    let message = Sandbox::failure(sandbox.command("results"));
    assert!(
        message.contains("beach") && message.contains("vocabulary"),
        "{message}"
    );

    let sandbox = Sandbox::new();
    sandbox.write("spotted-dog/1.png", "no image");
    let message = Sandbox::failure(sandbox.command("results"));
    assert!(message.contains("1.png"), "{message}");
}

#[test]
fn masked_and_whole_images_are_scored_side_by_side() {
    let sandbox = &finished().sandbox;
    let rows = |name: &str| -> Vec<Vec<String>> {
        let text = sandbox.read(&format!("results/small/{name}"));
        let rows = text.lines().skip(1);
        rows.map(|row| row.split(',').map(String::from).collect())
            .collect()
    };
    let (whole, masked) = (rows("scores.csv"), rows("scores-core.csv"));
    assert_eq!(whole.len(), masked.len());
    for (whole, masked) in whole.iter().zip(&masked) {
        assert_eq!(whole[..8], masked[..8], "CLIP-T is of whole images");
        if whole[4] == "style" {
            assert_eq!(masked[8..], ["", ""]);
        } else {
            assert_ne!(whole[8..], masked[8..]);
        }
    }
    let measures = |name: &str| -> Vec<String> {
        let rows = rows(name);
        rows.into_iter().map(|row| row[1].clone()).collect()
    };
    for measure in ["nothing_found", "small_foregrounds"] {
        assert!(measures("checks-core.csv").contains(&measure.to_string()));
        assert!(!measures("checks.csv").contains(&measure.to_string()));
    }
    // image,closest,photo,foreground,mask
    let of_images = rows("images-core.csv");
    let small = |variant: &str| {
        let of_variant = of_images
            .iter()
            .filter(|row| row[0].split('/').nth(1) == Some(variant));
        let shares = of_variant.map(|row| row[3].parse::<f64>().unwrap());
        shares.filter(|share| *share < 0.03).count()
    };
    for row in rows("checks-core.csv")
        .iter()
        .filter(|row| row[1] == "small_foregrounds")
    {
        assert_eq!(
            row[2].parse::<f64>().unwrap(),
            small(&row[0]) as f64,
            "{}",
            row[0]
        );
    }
    assert!(
        sandbox
            .path("results/small/figures/foregrounds.png")
            .exists()
    );
    let protocol = sandbox.read("results/small/protocol-core.json");
    assert!(protocol.contains("clipseg"), "{protocol}");
}

#[test]
fn a_photo_without_foreground_is_found_before_anything_is_trained() {
    let sandbox = Sandbox::new();
    sandbox.compare_foregrounds();
    sandbox.mask_photos("spotted-dog", &image::GrayImage::new(64, 64));
    let message = Sandbox::failure(sandbox.command("results"));
    assert!(
        message.contains("0.png") && message.contains("no foreground"),
        "{message}"
    );
    assert!(!sandbox.path("results").exists());
}

#[test]
fn scored_validation_images_stand_in_a_table_of_all_runs() {
    let sandbox = Sandbox::new();
    sandbox.edit(
        "[sampling]",
        "[validation]\nevery = 1\nprompts = [\"a {} in the snow\"]\nscores = true\n\n[sampling]",
    );
    let printed = sandbox.run("results");
    assert!(printed.contains("validation.csv"), "{printed}");
    let table = sandbox.read("results/small/validation.csv");
    let mut rows = table.lines();
    assert_eq!(
        rows.next().unwrap(),
        "variant,concept,seed,stage,step,metric,mean"
    );
    let curves = sandbox.read("results/small/curves.csv");
    // Every step of every run has an image, which has three scores.
    assert_eq!(lines(&table) - 1, 3 * (lines(&curves) - 1));
    for metric in ["clip_t", "clip_i", "dino"] {
        assert!(table.contains(&format!(",1,{metric},")), "{table}");
    }
}

#[test]
fn variants_that_begin_with_the_same_stage_train_it_once_and_end_with_the_same_bytes() {
    let sandbox = Sandbox::new();
    sandbox.edit(
        "name = \"no rescaling\"\nset = { \"stages.0.rescale\" = false }",
        "name = \"faster second stage\"\nset = { \"stages.1.learning_rate\" = 2e-3 }",
    );
    let printed = sandbox.run("shared");
    // For each of two concepts: the first stage, twice a second stage, and both stages without terms.
    let work = format!("{} optimiser steps", 2 * (12 + 6 + 6 + 18));
    assert!(printed.contains(&work), "{work}: {printed}");
    assert!(printed.contains("8 runs trained"), "{printed}");

    let mut command = sandbox.command("alone");
    let output = command.args(["--variant", "CoRe"]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let work = format!("{} optimiser steps", 2 * 18);
    assert!(printed.contains(&work), "{work}: {printed}");
    let mut compared = 0;
    for (path, bytes) in sandbox.files("alone/small/runs") {
        // Its date and duration are no part of a run.
        if path.is_file() && !path.ends_with("environment.json") && !path.ends_with(".lock") {
            let run = path.strip_prefix(sandbox.path("alone")).unwrap();
            let shared = std::fs::read(sandbox.path("shared").join(run)).unwrap();
            assert!(shared == bytes, "{}", run.display());
            compared += 1;
        }
    }
    assert!(compared >= 8, "{compared}");
}
