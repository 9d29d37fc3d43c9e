//! What the program says about bad input: one message with the thing, the reason and the remedy,
//! a failure as exit code, and no run folder.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

use crate::common::{fixture, photos, write};

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        photos(&folder.path().join("photos"));
        let text = format!(
            "[model]\npath = {:?}\n[concept]\nname = \"robot\"\nimages = \"photos\"\n\
             super_category = \"toy dog\"\n[[stages]]\nname = \"first\"\n\
             train = [\"embedding\"]\nsteps = 2\nbatch_size = 1\nlearning_rate = 5e-3\n\
             prompts = [\"a photo of a {{}}\"]\nregularization_prompts = [\"a {{}} in the car\"]\n\
             [[stages.regularizers]]\nkind = \"context_embedding\"\n",
            fixture("model")
        );
        write(folder.path(), "run.toml", &text);
        Self { folder }
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("core-train").unwrap();
        command.env("HF_HUB_OFFLINE", "1");
        command
            .arg("train")
            .arg(self.folder.path().join("run.toml"));
        command.arg("--output").arg(self.output()).args(arguments);
        command
    }

    /// Fails with a message that holds all `parts`, and leaves no run folder.
    fn fails(&self, arguments: &[&str], parts: &[&str]) {
        let message = self.failure(arguments);
        for part in parts {
            assert!(message.contains(part), "{arguments:?}: {message}");
        }
        assert_eq!(message.matches("error:").count(), 1, "{message}");
        assert!(!self.output().exists(), "{arguments:?}");
        assert!(
            !self.folder.path().join("out.partial").exists(),
            "{arguments:?}"
        );
    }

    fn failure(&self, arguments: &[&str]) -> String {
        let result = self.command(arguments).output().unwrap();
        assert_eq!(result.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(result.stderr).unwrap()
    }
}

#[test]
fn bad_values_are_named_with_reason_and_remedy() {
    let case = Case::new();
    let long = "concept.images='absent'";
    for (set, parts) in [
        (
            "concept.placeholder_token='dog'",
            &["dog", "vocabulary"][..],
        ),
        (
            "concept.super_category=''",
            &["concept.super_category", "empty"],
        ),
        ("stages.0.stpes=3", &["stpes", "steps"]),
        ("stages.0.prompts=['a photo']", &["a photo", "no {}"]),
        (
            "stages.0.prompts=['a a a a a a a a a a a a a a a a a {}']",
            &["too long", "16 tokens", "shorten"],
        ),
        (
            "stages.0.regularization_prompts=['a {} a a a a a a a a a a a a a a a']",
            &["a {} a a", "tokens"],
        ),
        ("model.path='absent'", &["absent", "model_index.json"]),
        ("model.path='owner/name'", &["owner/name", "download"]),
        (long, &["absent", "concept.images"]),
        ("phrase='a dog'", &["phrase", "{token}"]),
        ("phrase='{token} {word}'", &["phrase", "{word}"]),
        (
            "rare_token='red'",
            &["stages.0.train", "embedding", "rare_token"],
        ),
        (
            "stages.0.train=['unet', 'cross_attention']",
            &["stages.0.train", "`unet` and `cross_attention`", "attn2"],
        ),
        (
            "stages.0.train=[{kind='unet', rank=4}]",
            &["`unet`", "rank"],
        ),
        ("initializer={id=999999}", &["initializer", "999999"]),
        ("initializer='word'", &["initializer"]),
        ("stages.0.augmentation='rotate'", &["rotate", "rotation"]),
        ("recipe='absent.toml'", &["absent.toml"]),
        ("device=tpu", &["tpu", "cpu"]),
        ("device='cuda:0'", &["cuda", "cpu"]),
    ] {
        case.fails(&["--set", set], parts);
    }
}

#[test]
fn bad_photos_are_named() {
    let case = Case::new();
    let photos = case.folder.path().join("photos");
    let bytes = std::fs::read(photos.join("1.png")).unwrap();
    std::fs::write(photos.join("1.png"), &bytes[..bytes.len() / 2]).unwrap();
    case.fails(&[], &["1.png"]);
    for entry in std::fs::read_dir(&photos).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    case.fails(&[], &["photos", "holds no images"]);
}

#[test]
fn folders_in_the_way_are_left_alone() {
    let case = Case::new();
    std::fs::create_dir(case.output()).unwrap();
    let message = case.failure(&[]);
    assert!(
        message.contains("there already") && message.contains("--output"),
        "{message}"
    );
    assert_eq!(std::fs::read_dir(case.output()).unwrap().count(), 0);
    std::fs::remove_dir(case.output()).unwrap();

    let message = case.failure(&["--resume"]);
    assert!(message.contains("nothing to resume"), "{message}");

    let file = case.folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let below = file.join("out");
    let message = case.failure_at(&below);
    assert!(message.contains("file"), "{message}");
}

impl Case {
    fn failure_at(&self, output: &Path) -> String {
        let mut command = Command::cargo_bin("core-train").unwrap();
        command
            .arg("train")
            .arg(self.folder.path().join("run.toml"));
        let result = command.arg("--output").arg(output).output().unwrap();
        assert_eq!(result.status.code(), Some(1));
        String::from_utf8(result.stderr).unwrap()
    }
}

#[test]
fn replays_that_do_not_fit_are_refused() {
    let case = Case::new();
    let replay = fixture("replay.safetensors");
    let replay = replay.to_str().unwrap();
    case.fails(
        &["--replay", replay],
        &["replay.safetensors", "latents", "[2, 1, 4, h, w]"],
    );
    let sets = [
        "--set",
        "stages.0.steps=12",
        "--set",
        "stages.0.batch_size=2",
    ];
    let arguments = [&["--replay", replay][..], &sets].concat();
    case.fails(&arguments, &["template_index"]);
    case.fails(&["--replay", "absent.safetensors"], &["absent.safetensors"]);
    let broken = write(case.folder.path(), "broken.safetensors", "not one");
    case.fails(
        &["--replay", broken.to_str().unwrap()],
        &["broken.safetensors"],
    );
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_there() {
    let case = Case::new();
    let message = case.failure(&["--set", "stages.0.learning_rate=1e30"]);
    for part in ["stage `first`, step 2", "kept", "learning rate"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!case.output().exists());
    let partial = case.folder.path().join("out.partial");
    let metrics = std::fs::read_to_string(partial.join("metrics.csv")).unwrap();
    assert_eq!(metrics.lines().count(), 2);
    assert!(partial.join("learned_embeds.safetensors").exists());
    assert!(partial.join("state/00000001").is_dir());
    std::fs::remove_dir_all(&partial).unwrap();

    let message = case.failure(&["--set", "stages.0.learning_rate=1e60"]);
    assert!(
        message.contains("step 1: the norm of the embedding"),
        "{message}"
    );
    assert!(partial.join("learned_embeds.safetensors").exists());
}

#[test]
fn a_dry_run_says_what_would_run_and_writes_nothing() {
    let case = Case::new();
    let result = case.command(&["--dry-run"]).output().unwrap();
    assert!(result.status.success());
    let text = String::from_utf8(result.stdout).unwrap();
    for part in [
        "<robot>",
        "stage first",
        "2 steps",
        "context_embedding",
        "time: about",
        "memory",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!case.output().exists());
    for (set, reason) in [
        ("model.path='absent'", "no estimate: model not present"),
        (
            "concept.images='absent'",
            "no estimate: concept folder not present",
        ),
    ] {
        let result = case.command(&["--dry-run", "--set", set]).output().unwrap();
        assert!(result.status.success());
        assert!(String::from_utf8(result.stdout).unwrap().contains(reason));
    }
}

#[test]
fn a_complete_run_has_the_files_of_the_contract_and_draws() {
    let case = Case::new();
    let sets = [
        "--set",
        "validation={every=2,prompts=['a {} on the beach']}",
    ];
    case.command(&sets).assert().success();
    let output = case.output();
    let mut names: Vec<_> = std::fs::read_dir(&output)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "config.toml",
            "environment.json",
            "learned_embeds.safetensors",
            "metrics.csv",
            "validation"
        ]
    );
    assert!(output.join("validation/first-00002-00.png").exists());
    let environment = std::fs::read_to_string(output.join("environment.json")).unwrap();
    for part in [
        "unet/diffusion_pytorch_model.safetensors",
        "burn",
        "git_revision",
        "instruction_set",
        "\"gpu\": null",
    ] {
        assert!(environment.contains(part), "{environment}");
    }

    // The resolved configuration runs again as it is, to the same numbers.
    let again = case.folder.path().join("again");
    let mut command = Command::cargo_bin("core-train").unwrap();
    command
        .arg("train")
        .arg(output.join("config.toml"))
        .arg("--output")
        .arg(&again);
    command.assert().success();
    for name in ["metrics.csv", "learned_embeds.safetensors", "config.toml"] {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert_eq!(read(&again), read(&output), "{name}");
    }

    // Drawing from the run, with and without test-time optimisation.
    let draw = |name: &str, extra: &[&str]| {
        let images = case.folder.path().join(name);
        let mut command = Command::cargo_bin("core-train").unwrap();
        command
            .arg("generate")
            .arg("--run")
            .arg(&output)
            .arg("--out")
            .arg(&images);
        command
            .args(["--prompt", "a red <robot> at the beach", "--steps", "3"])
            .args(extra);
        command.assert().success();
        let image = image::open(images.join("00000.png")).unwrap();
        image.into_rgb8().into_raw()
    };
    let plain = draw("plain", &[]);
    assert_eq!(draw("same", &[]), plain);
    let optimised = ["--optimize-steps", "2", "--optimize-learning-rate", "0.5"];
    assert_ne!(draw("optimised", &optimised), plain);
}

#[cfg(unix)]
#[test]
fn signals_end_a_run_with_their_exit_code_and_the_state_of_the_last_step() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let case = Case::new();
        let steps = "stages.0.steps=100000";
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("core-train"))
            .arg("train")
            .arg(case.folder.path().join("run.toml"))
            .arg("--output")
            .arg(case.output())
            .args(["--set", steps])
            .spawn()
            .unwrap();
        let partial = case.folder.path().join("out.partial");
        let rows = || {
            let text = std::fs::read_to_string(partial.join("metrics.csv"));
            text.map_or(0, |text| text.lines().count().saturating_sub(1))
        };
        while rows() < 3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let pid = child.id().to_string();
        let mut kill = std::process::Command::new("kill");
        kill.args([&format!("-{signal}"), &pid]);
        assert!(kill.status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let state = partial.join(format!("state/{:08}", rows()));
        assert!(state.is_dir(), "{}", state.display());
    }
}
