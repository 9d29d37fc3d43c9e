//! `core-eval report`, and the page that an experiment writes at its end.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::common::{Sandbox, core_eval, finished};

const HOSTILE: &str = "<img src=x onerror=alert(1)>";

/// A results folder with two variants, two prompts of one concept, and images unless told otherwise.
fn results(sandbox: &Sandbox, name: &str, variants: &[(&str, f64)], with_images: bool) {
    sandbox.write(
        &format!("{name}/protocol.json"),
        r#"{"protocol": {"name": "dreambooth"}, "photos": {"dog": {"0.png": "a"}}}"#,
    );
    let mut scores =
        String::from("variant,concept,seed,group,kind,prompt,image,clip_t,clip_i,dino\n");
    for (variant, score) in variants {
        for (index, (kind, prompt)) in [("plain", "a {}"), ("style", "a <b> {}")]
            .iter()
            .enumerate()
        {
            let image = format!("images/{variant}/dog/0/{index}/00000.png");
            scores += &format!(
                "{variant},dog,0,animate,{kind},{prompt},{image},{score},{score},{score}\n"
            );
            if with_images {
                let path = sandbox.write(&format!("{name}/{image}"), "");
                image::RgbImage::from_pixel(16, 16, image::Rgb([90, 60, 200]))
                    .save(path)
                    .unwrap();
            }
        }
    }
    sandbox.write(&format!("{name}/scores.csv"), &scores);
}

fn report(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    let mut command = core_eval();
    command.arg("report");
    for argument in arguments {
        match argument.starts_with("--") || argument.chars().all(|c| c.is_ascii_digit()) {
            true => command.arg(argument),
            false => command.arg(sandbox.path(argument)),
        };
    }
    command.output().unwrap()
}

/// What the command printed.
fn written(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = report(sandbox, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = report(sandbox, arguments);
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

fn summary(sandbox: &Sandbox, folder: &str) -> Value {
    serde_json::from_str(&sandbox.read(&format!("{folder}/summary.json"))).unwrap()
}

#[test]
fn the_page_holds_the_scores_of_the_csv_and_a_verdict_for_every_difference() {
    let sandbox = Sandbox::empty();
    results(&sandbox, "one", &[("CoRe", 0.5), ("theirs", 0.25)], true);
    written(&sandbox, &["one"]);
    let data = summary(&sandbox, "one");
    assert_eq!(data["variants"], serde_json::json!(["CoRe", "theirs"]));
    let protocol = &data["protocols"][0];
    // In the order of the gallery: by prompt, then by variant.
    assert_eq!(
        protocol["scores"]["dino"],
        serde_json::json!([0.5, 0.25, 0.5, 0.25])
    );
    let rows = protocol["summary"].as_array().unwrap();
    let theirs = |kind: &str| {
        let row = rows.iter().find(|row| {
            row["variant"] == "theirs"
                && row["metric"] == "dino"
                && row["concept"] == "all"
                && row["kind"] == kind
        });
        row.unwrap_or_else(|| panic!("no row of {kind}"))
    };
    for kind in ["all", "plain", "style"] {
        assert_eq!(theirs(kind)["difference"], -0.25, "{kind}");
        assert_eq!(theirs(kind)["verdict"], "lower", "{kind}");
    }
    let page = sandbox.read("one/report.html");
    assert!(page.contains("id=\"images-0\""));
    assert_eq!(data["images"]["file"][0], "images/CoRe/dog/0/0/00000.png");
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    let sandbox = Sandbox::empty();
    results(&sandbox, "one", &[("CoRe", 0.5), ("theirs", 0.25)], true);
    written(&sandbox, &["one"]);
    let first = sandbox.read("one/report.html");
    written(&sandbox, &["one"]);
    assert!(sandbox.read("one/report.html") == first);
}

#[test]
fn a_folder_with_tokens_alone_gives_a_page_that_says_what_is_missing() {
    let sandbox = Sandbox::empty();
    sandbox.write(
        "part/tokens.csv",
        "variant,concept,seed,prompt,position,token,cosine\nCoRe,dog,0,a {},0,a,0.5\n\
         CoRe,cup,0,a {},0,a,0.7\n",
    );
    let printed = written(&sandbox, &["part"]);
    for text in ["No scores.csv", "No curves.csv", "No training runs"] {
        assert!(printed.contains(text), "{printed}");
    }
    let data = summary(&sandbox, "part");
    assert_eq!(data["tokens"][0]["mean"][0], 0.6);
    assert!(data["missing"].as_array().unwrap().len() >= 3);
}

#[test]
fn images_photos_and_variants_that_are_not_there_are_listed() {
    let sandbox = Sandbox::empty();
    results(&sandbox, "one", &[("CoRe", 0.5), ("theirs", 0.25)], false);
    let half: Vec<String> = sandbox
        .read("one/scores.csv")
        .lines()
        .map(String::from)
        .collect();
    sandbox.write("one/scores.csv", &(half[..4].join("\n") + "\n"));
    let printed = written(&sandbox, &["one"]);
    for text in [
        "theirs has scores of 1 of 2 images",
        "3 of 3 image files are not where scores.csv says",
        "Photos of dog were not found",
        "No images.csv",
    ] {
        assert!(printed.contains(text), "{text}: {printed}");
    }
    assert!(!sandbox.read("one/report.html").contains("id=\"images-0\""));
}

#[test]
fn a_damaged_image_leaves_a_gap_and_is_no_failure() {
    let sandbox = Sandbox::empty();
    results(&sandbox, "one", &[("CoRe", 0.5)], true);
    sandbox.write("one/images/CoRe/dog/0/0/00000.png", "not an image");
    written(&sandbox, &["one"]);
    let data = summary(&sandbox, "one");
    assert_eq!(
        data["thumbnails"]["images"]["absent"],
        serde_json::json!([0])
    );
}

#[test]
fn a_folder_of_another_version_is_refused_and_its_old_page_stays() {
    let sandbox = Sandbox::empty();
    results(&sandbox, "one", &[("CoRe", 0.5)], false);
    let scores = sandbox.read("one/scores.csv");
    sandbox.write("one/scores.csv", &scores.replace("clip_t", "clip_text"));
    sandbox.write("one/report.html", "an old page");
    let message = refused(&sandbox, &["one"]);
    assert!(
        message.contains("scores.csv") && message.contains("run the experiment again"),
        "{message}"
    );
    assert_eq!(sandbox.read("one/report.html"), "an old page");

    let message = refused(&sandbox, &["absent"]);
    assert!(message.contains("no such folder"), "{message}");
    fs::create_dir(sandbox.path("empty")).unwrap();
    let message = refused(&sandbox, &["empty"]);
    assert!(message.contains("expected scores.csv"), "{message}");
    assert!(!sandbox.path("empty/report.html").exists());
}

#[test]
fn a_protocol_that_is_damaged_or_unknown_is_refused_by_the_name_of_its_file() {
    for (name, other) in [
        ("dreambooth", "{"),
        ("dreambooth", r#"{"protocol": {}}"#),
        ("theirs", r#"{"protocol": {"name": "theirs"}}"#),
    ] {
        let sandbox = Sandbox::empty();
        results(&sandbox, "one", &[("CoRe", 0.5)], false);
        sandbox.write("one/protocol.json", other);
        let message = refused(&sandbox, &["one"]);
        assert!(message.contains("one/protocol.json: "), "{message}");
        match name {
            "theirs" => assert!(
                message.contains("protocol `theirs` is none of"),
                "{message}"
            ),
            _ => assert!(message.contains("run the experiment again"), "{message}"),
        }
        assert!(!sandbox.path("one/report.html").exists());
    }
}

#[test]
fn a_protocol_without_scores_is_left_out_and_named() {
    let sandbox = Sandbox::empty();
    results(&sandbox, "one", &[("CoRe", 0.5)], false);
    sandbox.write(
        "one/protocol-core.json",
        r#"{"protocol": {"name": "core"}}"#,
    );
    let printed = written(&sandbox, &["one"]);
    let text = "No scores-core.csv beside protocol-core.json: protocol core is left out.";
    assert!(printed.contains(text), "{printed}");
    assert_eq!(
        summary(&sandbox, "one")["protocols"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn names_that_look_like_markup_are_data() {
    let sandbox = Sandbox::empty();
    results(&sandbox, "one", &[("CoRe", 0.5), (HOSTILE, 0.25)], true);
    written(&sandbox, &["one"]);
    let page = sandbox.read("one/report.html");
    assert!(!page.contains("<img src=x") && !page.contains("<b>"));
    let data = summary(&sandbox, "one");
    assert_eq!(data["variants"][1], HOSTILE);
    assert_eq!(
        data["images"]["file"][1],
        "images/%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E/dog/0/0/00000.png"
    );
}

#[test]
fn several_folders_of_one_protocol_are_joined_and_others_are_refused() {
    let sandbox = Sandbox::empty();
    results(&sandbox, "one", &[("CoRe", 0.5), ("untuned", 0.2)], true);
    results(&sandbox, "two", &[("untuned", 0.2), ("theirs", 0.3)], true);
    let message = refused(&sandbox, &["one", "two"]);
    assert!(message.contains("--out"), "{message}");
    written(&sandbox, &["one", "two", "--out", "both"]);
    let data = summary(&sandbox, "both");
    assert_eq!(
        data["variants"],
        serde_json::json!(["CoRe", "untuned", "theirs"])
    );
    assert_eq!(data["name"], "one and two");
    let files = data["images"]["file"].as_array().unwrap();
    assert!(files.iter().all(|file| file.is_string()), "{files:?}");
    assert!(files.contains(&"../two/images/theirs/dog/0/0/00000.png".into()));

    let protocol = sandbox
        .read("two/protocol.json")
        .replace("\"a\"", "\"other\"");
    sandbox.write("two/protocol.json", &protocol);
    let message = refused(&sandbox, &["one", "two", "--out", "other"]);
    assert!(
        message.contains("`photos.dog.0.png` is not the same"),
        "{message}"
    );
    assert!(!sandbox.path("other").exists());
}

#[test]
fn a_study_and_scores_of_validation_images_are_in_the_page_where_they_are() {
    let sandbox = Sandbox::empty();
    results(&sandbox, "one", &[("CoRe", 0.5), ("theirs", 0.25)], false);
    sandbox.write(
        "one/study/study.csv",
        "question,measure,first,second,value\nidentity,share,CoRe,theirs,0.75\n",
    );
    sandbox.write(
        "one/validation.csv",
        "variant,concept,seed,stage,step,metric,mean\nCoRe,dog,0,embedding,10,dino,0.25\n\
         CoRe,dog,1,embedding,10,dino,0.75\nCoRe,dog,0,embedding,20,dino,0.5\n",
    );
    written(&sandbox, &["one"]);
    let data = summary(&sandbox, "one");
    assert_eq!(data["study"][0]["value"], 0.75);
    assert_eq!(data["study"][0]["first"], "CoRe");
    let curve = &data["validation"][0];
    assert_eq!(curve["step"], serde_json::json!([10, 20]));
    assert_eq!(curve["value"], serde_json::json!([0.5, 0.5]));
}

#[test]
fn embedding_stops_at_the_limit_and_says_what_it_leaves_out() {
    let sandbox = Sandbox::empty();
    results(&sandbox, "one", &[("CoRe", 0.5), ("theirs", 0.25)], true);
    written(&sandbox, &["one", "--embed=full"]);
    let full = sandbox.read("one/report.html");
    assert_eq!(full.matches("id=\"file-").count(), 4);
    let image = sandbox.path("one/images/CoRe/dog/0/0/00000.png");
    let two = fs::metadata(image).unwrap().len() as f64 * 2.5 / 1e6;
    let limit = format!("--embed-limit={two}");
    let printed = written(&sandbox, &["one", "--embed=full", &limit]);
    let text = "2 of 4 image files are not in this page";
    assert!(printed.contains(text), "{printed}");
    let some = sandbox.read("one/report.html");
    assert_eq!(some.matches("id=\"file-").count(), 2);
    written(&sandbox, &["one", "--embed=none"]);
    let none = sandbox.read("one/report.html");
    assert!(!none.contains("id=\"images-0\"") && none.len() < full.len());
    let message = refused(&sandbox, &["one", "--embed-limit=-1"]);
    assert!(message.contains("0 or more"), "{message}");
}

#[test]
fn an_experiment_writes_the_page_at_its_end_with_photos_runs_and_masks() {
    let finished = finished();
    let printed = &finished.printed;
    for file in [
        "report.html",
        "summary.json",
        "images.csv",
        "images-core.csv",
    ] {
        assert!(printed.contains(file), "{printed}");
    }
    let data = summary(&finished.sandbox, "results/small");
    assert_eq!(data["name"], "small");
    assert_eq!(data["photos"]["file"].as_array().unwrap().len(), 10);
    assert_eq!(data["photos"]["file"][0], "../../spotted-dog/0.png");
    assert_eq!(data["concepts"][0]["word"], "dog");
    assert_eq!(
        data["thumbnails"]["photos"]["absent"],
        serde_json::json!([])
    );
    assert_eq!(data["runs"].as_array().unwrap().len(), 10);
    let rescaled = data["curves"]
        .as_array()
        .unwrap()
        .iter()
        .find(|curve| !curve["rescale"].is_null());
    assert_eq!(rescaled.unwrap()["rescale"], serde_json::json!([4, 8]));
    let [plain, masked] = [0, 1].map(|index| &data["protocols"][index]);
    assert_eq!(
        (&plain["masked"], &masked["masked"]),
        (&false.into(), &true.into())
    );
    assert!(plain["closest"][0].as_f64().unwrap() <= 1.0 + 1e-6);
    assert!(plain["foreground"][0].is_null());
    let share = masked["foreground"][0].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&share), "{share}");
    assert_eq!(masked["mask"][0].as_str().unwrap().len(), 256);
    assert_eq!(data["missing"], serde_json::json!([]));
}

#[test]
fn an_experiment_whose_page_cannot_be_written_keeps_its_results() {
    let sandbox = Sandbox::finished();
    let folder = sandbox.path("results/small");
    fs::remove_file(folder.join("report.html")).unwrap();
    fs::remove_file(folder.join("scores.csv")).unwrap();
    fs::create_dir(folder.join("report.html")).unwrap();
    fs::write(folder.join("report.html/in the way"), "").unwrap();
    let output = sandbox.command("results").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("no report.html was written, all other results are there"),
        "{errors}"
    );
    assert!(Path::new(&folder).join("scores.csv").is_file());
}
