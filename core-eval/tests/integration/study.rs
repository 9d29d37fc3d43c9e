//! `core-eval study`: from a results folder to a page, and from votes to figures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use assert_cmd::Command;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::{Sandbox, core_eval};

const HOSTILE: &str = "<img src=x onerror=alert(1)>|\"B\", & <b>";
const VARIANTS: [&str; 4] = ["CoRe", HOSTILE, "Textual Inversion", "class word"];
const CONCEPTS: [(&str, &str); 2] = [("spotted-dog", "dog"), ("striped-cup", "cup")];
const PROMPTS: [&str; 3] = ["a {}", "a {} in the snow", "a <i>red</i> {}"];

/// A results folder with eight-pixel images of three variants and the untuned model, three prompts of two
/// concepts, two images each. The names of files and folders tell everything.
fn results(sandbox: &Sandbox) -> PathBuf {
    let folder = sandbox.path("shown");
    let mut scores =
        String::from("variant,concept,seed,group,kind,prompt,image,clip_t,clip_i,dino\n");
    let mut photos = serde_json::Map::new();
    for (concept, word) in CONCEPTS {
        let mut digests = serde_json::Map::new();
        for photo in 0..5u8 {
            let path = sandbox.path(&format!("photos/{concept}/{photo}.png"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let image = image::RgbImage::from_pixel(12, 8, image::Rgb([photo, 100, 200]));
            image.save(&path).unwrap();
            let digest = Sha256::digest(std::fs::read(&path).unwrap());
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            digests.insert(format!("{photo}.png"), hex.into());
        }
        photos.insert(concept.into(), Value::Object(digests));
        for (index, variant) in VARIANTS.into_iter().enumerate() {
            let own = folder.join(format!("images/secret-{index}/{concept}/0"));
            std::fs::create_dir_all(&own).unwrap();
            let run = (variant != "class word").then(|| format!("run{index}"));
            let source = serde_json::json!({ "run": run, "super_category": word });
            std::fs::write(own.join("source.json"), source.to_string()).unwrap();
            for (prompt, template) in PROMPTS.into_iter().enumerate() {
                for image in 0..2 {
                    let name =
                        format!("images/secret-{index}/{concept}/0/{prompt}/0000{image}.png");
                    std::fs::create_dir_all(own.join(prompt.to_string())).unwrap();
                    let color = [index, prompt, image].map(|value| value as u8 * 40);
                    let pixels = image::RgbImage::from_pixel(8, 8, image::Rgb(color));
                    pixels.save(folder.join(&name)).unwrap();
                    let quoted = variant.replace('"', "\"\"");
                    let score = 0.8 - 0.1 * index as f64;
                    scores += &format!(
                        "\"{quoted}\",{concept},0,animate,plain,{template},{name},{score},{score},{}\n",
                        1.0 - score
                    );
                }
            }
        }
    }
    std::fs::write(folder.join("scores.csv"), scores).unwrap();
    let protocol = serde_json::json!({ "protocol": { "name": "dreambooth" }, "photos": photos });
    std::fs::write(folder.join("protocol.json"), protocol.to_string()).unwrap();
    folder
}

fn make(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    let mut command = core_eval();
    command.args(["study", "make"]).arg(sandbox.path("shown"));
    command.arg("--photos").arg(sandbox.path("photos"));
    command.args(["--compare", VARIANTS[0], VARIANTS[1], VARIANTS[2]]);
    command.args(["--people", "6", "--per-person", "12"]);
    command
        .args(["--question", "identity,prompt"])
        .args(arguments);
    command
}

/// Makes the study and returns what was printed.
fn made(sandbox: &Sandbox, arguments: &[&str]) -> String {
    results(sandbox);
    let output = make(sandbox, arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The data in the page.
fn data(page: &str) -> Value {
    let start = page.split("id=\"data\">").nth(1).unwrap();
    serde_json::from_str(start.split("</script>").next().unwrap()).unwrap()
}

fn key(sandbox: &Sandbox) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(sandbox.path("shown/study/key.csv")).unwrap();
    let rows = reader.deserialize::<BTreeMap<String, String>>();
    rows.map(|row| row.unwrap())
        .map(|row| (row["pair"].clone(), row))
        .collect()
}

/// The votes of a person who always prefers the variant that comes first in the list, recognises the
/// photo, and cannot tell anything about sentences.
fn votes(sandbox: &Sandbox, page: &Value, design: &str, person: &str) -> String {
    let key = key(sandbox);
    let mut csv = String::from(
        "study,person,trial,pair,question,left,right,answer,milliseconds,catch,repeat_of,viewport,time\n",
    );
    for (index, trial) in page["people"][design]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let text = |name: &str| trial[name].as_str().unwrap();
        let row = &key[text("pair")];
        let first = if row["first_image"] == text("left") {
            "A"
        } else {
            "B"
        };
        for (question, answer) in [("identity", first), ("prompt", "cannot_tell")] {
            csv += &format!(
                "{},{person},{},{},{question},{},{},{answer},3000,{},{},800x600,2026-01-01T00:00:00Z\n",
                page["study"].as_str().unwrap(),
                index + 1,
                text("pair"),
                text("left"),
                text("right"),
                trial["catch"],
                trial["repeat_of"]
                    .as_u64()
                    .map_or(String::new(), |of| of.to_string()),
            );
        }
    }
    csv
}

/// A study with the votes of three people.
fn voted(sandbox: &Sandbox) {
    made(sandbox, &[]);
    let page = data(&sandbox.read("shown/study/index.html"));
    for (design, person) in [("1", "anna"), ("2", "ben"), ("3", "cleo")] {
        let votes = votes(sandbox, &page, design, person);
        sandbox.write(&format!("votes/{person}.csv"), &votes);
    }
}

fn analyse(sandbox: &Sandbox, files: &[&str]) -> Command {
    let mut command = core_eval();
    command
        .args(["study", "analyse"])
        .arg(sandbox.path("shown/study"));
    command.args(
        files
            .iter()
            .map(|file| sandbox.path(&format!("votes/{file}.csv"))),
    );
    command
}

fn rows(sandbox: &Sandbox) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(sandbox.path("shown/study/study.csv")).unwrap();
    reader.deserialize().map(|row| row.unwrap()).collect()
}

#[test]
fn the_page_holds_no_name_of_a_variant_of_a_file_or_of_a_concept_and_no_score() {
    let sandbox = Sandbox::empty();
    let printed = made(&sandbox, &[]);
    let page = sandbox.read("shown/study/index.html");
    for name in VARIANTS
        .into_iter()
        .chain(["secret-", ".png", "images/", "dino", "clip_"])
    {
        assert!(!page.contains(name), "`{name}` is in the page");
    }
    for (concept, _) in CONCEPTS {
        assert!(!page.contains(concept), "`{concept}` is in the page");
    }
    let data = data(&page);
    let sentences: Vec<&str> = data["sentences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s.as_str().unwrap())
        .collect();
    assert!(sentences.contains(&"a dog in the snow"), "{sentences:?}");
    assert!(sentences.contains(&"a <i>red</i> cup"), "{sentences:?}");
    assert!(!page.contains("<i>"), "sentences are data");
    assert!(printed.contains("| 0.647 | 89 | 13 |"), "{printed}");
    assert!(printed.contains("key.csv: keep it back"), "{printed}");
    let code = printed.split("of 30 votes: ").nth(1).unwrap();
    assert_eq!(
        code.split_whitespace().next().unwrap().len(),
        8,
        "{printed}"
    );
}

#[test]
fn images_are_pixels_alone_under_random_names() {
    let sandbox = Sandbox::empty();
    made(&sandbox, &[]);
    let page = sandbox.read("shown/study/index.html");
    let ids: BTreeSet<&str> = page
        .split("id=\"image-")
        .skip(1)
        .map(|text| &text[..16])
        .collect();
    let named: BTreeSet<String> = key(&sandbox)
        .into_values()
        .flat_map(|row| [row["first_image"].clone(), row["second_image"].clone()])
        .collect();
    assert!(named.iter().all(|name| ids.contains(name.as_str())));
    // PNG's signature and header in base64; chunks of text would begin with tEXt, zTXt, iTXt or eXIf.
    for script in page.split("type=\"text/plain\"").skip(1) {
        assert!(script.contains(">iVBORw0KGgo"), "not a PNG file");
    }
}

#[test]
fn every_person_sees_all_comparisons_catch_trials_and_repetitions() {
    let sandbox = Sandbox::empty();
    made(&sandbox, &[]);
    let data = data(&sandbox.read("shown/study/index.html"));
    let key = key(&sandbox);
    let mut sides: BTreeMap<String, i64> = BTreeMap::new();
    for trials in data["people"].as_object().unwrap().values() {
        let trials = trials.as_array().unwrap();
        assert_eq!(trials.len(), 15, "12 pairs, a catch trial, 2 repetitions");
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (index, trial) in trials.iter().enumerate() {
            let row = &key[trial["pair"].as_str().unwrap()];
            assert_eq!(trial["catch"], row["kind"] == "catch");
            if let Some(of) = trial["repeat_of"].as_u64() {
                let earlier = &trials[of as usize - 1];
                assert_eq!(trial["pair"], earlier["pair"]);
                assert_eq!(trial["left"], earlier["right"], "sides are swapped");
            } else if trial["catch"] == false {
                *counts
                    .entry((row["first"].clone(), row["second"].clone()))
                    .or_default() += 1;
                let first_is_left = trial["left"] == row["first_image"].as_str();
                *sides.entry(row["pair"].clone()).or_default() +=
                    if first_is_left { 1 } else { -1 };
            } else {
                assert_eq!(
                    (row["first"].as_str(), row["second"].as_str()),
                    ("photo", "class word")
                );
            }
            if index > 0 {
                assert_ne!(
                    trial["references"],
                    trials[index - 1]["references"],
                    "neighbours"
                );
            }
        }
        assert_eq!(counts.into_values().collect::<Vec<_>>(), [4, 4, 4]);
    }
    assert!(sides.values().all(|sum| sum.abs() <= 1), "{sides:?}");
}

#[test]
fn votes_become_shares_strengths_and_the_agreement_of_metrics() {
    let sandbox = Sandbox::empty();
    voted(&sandbox);
    let output = analyse(&sandbox, &["anna", "ben", "cleo"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let rows = rows(&sandbox);
    let find = |question: &str, measure: &str| {
        let found = rows.iter().filter(|row| {
            row["question"] == question
                && row["measure"] == measure
                && row["exclusions"] == "applied"
        });
        found.collect::<Vec<_>>()
    };
    let value = |row: &BTreeMap<String, String>| row["value"].parse::<f64>().unwrap();
    let shares = find("identity", "share");
    assert_eq!(shares.len(), 3);
    assert_eq!(shares[0]["second"], HOSTILE);
    for share in &shares {
        assert_eq!(
            (
                value(share),
                share["votes"].as_str(),
                share["people"].as_str()
            ),
            (1.0, "12", "3")
        );
        let low: f64 = share["low"].parse().unwrap();
        assert!(low < 0.8, "three people who agree prove little: {low}");
    }
    assert!(find("prompt", "share").iter().all(|row| value(row) == 0.5));
    assert!(
        find("prompt", "share_decided")
            .iter()
            .all(|row| row["value"].is_empty())
    );
    assert_eq!(value(find("identity", "repeat_agreement")[0]), 1.0);
    let agreement: BTreeMap<&str, f64> = find("identity", "metric_agreement")
        .into_iter()
        .map(|row| (row["metric"].as_str(), value(row)))
        .collect();
    assert_eq!((agreement["clip_t"], agreement["dino"]), (1.0, 0.0));
    let table = sandbox.read("shown/study/table.md");
    assert!(table.contains("CoRe over &lt;img src=x"), "{table}");
    assert!(!table.contains("<img"), "{table}");
    assert_eq!(sandbox.read("shown/study/people.csv").lines().count(), 4);
}

#[test]
fn the_same_votes_give_the_same_files() {
    let sandbox = Sandbox::empty();
    voted(&sandbox);
    let run = || {
        assert!(
            analyse(&sandbox, &["anna", "ben"])
                .output()
                .unwrap()
                .status
                .success()
        );
        ["study.csv", "table.md"].map(|file| sandbox.read(&format!("shown/study/{file}")))
    };
    assert_eq!(run(), run());
}

#[test]
fn files_that_are_not_votes_of_the_study_are_refused_and_nothing_is_written() {
    let sandbox = Sandbox::empty();
    voted(&sandbox);
    let anna = sandbox.read("votes/anna.csv");
    let line = anna.lines().nth(1).unwrap().to_string();
    let pair = line.split(',').nth(3).unwrap();
    for (text, part) in [
        (
            anna.replace("milliseconds", "ms"),
            "there is no column `milliseconds`",
        ),
        (
            anna.replacen(line.split(',').next().unwrap(), "0123", 1),
            "line 2: a vote of study `0123`",
        ),
        (
            anna.replacen(pair, "<script>", 1),
            "the pair `<script>` is not in the key",
        ),
        (anna.replacen(",A,", ",left,", 1), "columns study,person"),
        (format!("{anna}{line}\n"), "a second time"),
        (
            anna.lines().next().unwrap().to_string() + "\n",
            "holds no votes",
        ),
        (anna.replacen(",1,", ",99,", 1), "trial 99"),
        (
            anna.replacen(",identity,", ",overall,", 1),
            "`overall` was not asked",
        ),
    ] {
        sandbox.write("votes/bad.csv", &text);
        let output = analyse(&sandbox, &["bad"]).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(
            message.contains(part) && message.contains("bad.csv"),
            "{message}"
        );
    }
    sandbox.write("votes/again.csv", &anna);
    let message = Sandbox::failure(analyse(&sandbox, &["anna", "again"]));
    assert!(
        message.contains("both hold votes of person `anna`"),
        "{message}"
    );
    assert!(!sandbox.path("shown/study/study.csv").exists());

    let settings = sandbox.read("shown/study/study.toml");
    sandbox.write("shown/study/study.toml", &settings.replace("0.9", "1.0"));
    let message = Sandbox::failure(analyse(&sandbox, &["anna"]));
    assert!(message.contains("restore the files"), "{message}");
}

#[test]
fn studies_that_cannot_be_made_are_refused_with_the_reason() {
    let sandbox = Sandbox::empty();
    results(&sandbox);
    let consent = sandbox.write("consent.txt", "We compare CoRe with others.\n");
    let scores = sandbox.read("shown/scores.csv");
    for (arguments, part) in [
        (vec!["--per-person", "37"], "there are 36 pairs"),
        (vec!["--people", "0"], "--people is 0"),
        (vec!["--one-side", "2"], "--one-side is 2"),
        (
            vec!["--per-person", "12", "--consent", consent.to_str().unwrap()],
            "names the variant `CoRe`",
        ),
        (vec!["--question", "taste"], "invalid value 'taste'"),
    ] {
        let mut command = core_eval();
        command.args(["study", "make"]).arg(sandbox.path("shown"));
        command.arg("--photos").arg(sandbox.path("photos"));
        command
            .args(["--compare", VARIANTS[0], VARIANTS[1], VARIANTS[2]])
            .args(arguments);
        let message = Sandbox::failure(command);
        assert!(message.contains(part), "{message}");
    }
    let mut unknown = core_eval();
    unknown.args(["study", "make"]).arg(sandbox.path("shown"));
    unknown.args(["--compare", "CoRe", "DreamBooth"]);
    let message = Sandbox::failure(unknown);
    assert!(
        message.contains("no variant `DreamBooth`; expected some of"),
        "{message}"
    );

    let fewer: Vec<&str> = scores
        .lines()
        .filter(|line| !(line.contains("Textual") && line.contains("snow")))
        .collect();
    sandbox.write("shown/scores.csv", &fewer.join("\n"));
    let message = Sandbox::failure(make(&sandbox, &[]));
    assert!(
        message.contains("only variants with the same images can be compared"),
        "{message}"
    );

    sandbox.write("shown/scores.csv", &scores);
    image::RgbImage::new(9, 9)
        .save(sandbox.path("photos/spotted-dog/0.png"))
        .unwrap();
    let message = Sandbox::failure(make(&sandbox, &[]));
    assert!(
        message.contains("is not one of the photos of spotted-dog"),
        "{message}"
    );
    assert!(!sandbox.path("shown/study").exists());
}

#[test]
fn a_study_is_never_overwritten_and_pages_can_be_made_for_each_person() {
    let sandbox = Sandbox::empty();
    made(&sandbox, &["--page-per-person"]);
    let page = data(&sandbox.read("shown/study/person-3.html"));
    let people: Vec<&String> = page["people"].as_object().unwrap().keys().collect();
    assert_eq!(people, ["3"]);
    assert!(!sandbox.path("shown/study/index.html").exists());
    let before = sandbox.read("shown/study/key.csv");
    let message = Sandbox::failure(make(&sandbox, &["--seed", "1"]));
    assert!(message.contains("exists already"), "{message}");
    assert_eq!(sandbox.read("shown/study/key.csv"), before);
}

#[test]
fn a_results_folder_without_images_or_runs_says_what_is_missing() {
    let sandbox = Sandbox::empty();
    results(&sandbox);
    let mut command = core_eval();
    command.args(["study", "make"]).arg(sandbox.path("shown"));
    command.args(["--compare", "CoRe", "Textual Inversion"]);
    let message = Sandbox::failure(command);
    assert!(message.contains("--photos"), "{message}");
    std::fs::remove_dir_all(sandbox.path("shown/images")).unwrap();
    let message = Sandbox::failure(make(&sandbox, &[]));
    assert!(message.contains("source.json"), "{message}");
    assert!(!sandbox.path("shown/study").exists());
}
