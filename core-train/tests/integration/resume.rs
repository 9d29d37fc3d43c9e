//! A run that was stopped or killed ends with the bytes of one that was not.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use core_train::run::first_stages::{begin_from, first_stages, has_state};
use core_train::run::folder::{RunDir, Unfinished};
use core_train::{RunConfig, RunOptions};

use crate::common::{fixture, photos, train, train_step_by_step, write};

/// Two stages on photos: all terms, rescaling inside the first; accumulation and augmented photos in
/// the second.
fn config(folder: &Path, steps: [usize; 2]) -> std::path::PathBuf {
    photos(&folder.join("photos"));
    let text = format!(
        "seed = 3\n[model]\npath = {:?}\n[concept]\nname = \"robot\"\nimages = \"photos\"\n\
         flip = true\nsuper_category = \"toy dog\"\n\
         [[stages]]\nname = \"embedding\"\ntrain = [\"embedding\"]\nsteps = {}\nbatch_size = 2\n\
         learning_rate = 5e-3\nprompts = [\"a photo of a {{}}\", \"the {{}}\"]\n\
         regularization_prompts = [\"a {{}} on the beach\", \"a red {{}} in the car\"]\n\
         rescale = {{ from = 3, to = 6 }}\n\
         [[stages.regularizers]]\nkind = \"context_embedding\"\nweight = 0.5\n\
         [[stages.regularizers]]\nkind = \"context_attention\"\nweight = 100.0\n\
         [[stages]]\nname = \"identity\"\ntrain = [\"unet\"]\nsteps = {}\nbatch_size = 1\n\
         gradient_accumulation_steps = 2\nlearning_rate = 1e-4\naugmentation = \"rotation\"\n\
         prompts = [\"a photo of a {{}}\"]\n",
        fixture("model"),
        steps[0],
        steps[1],
    );
    write(folder, "run.toml", &text)
}

/// What must be equal, by file name.
fn results(output: &Path) -> BTreeMap<&'static str, String> {
    [
        "metrics.csv",
        "learned_embeds.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "config.toml",
    ]
    .into_iter()
    .map(|name| (name, core_model::files::sha256(&output.join(name)).unwrap()))
    .collect()
}

#[test]
fn a_run_stopped_after_every_single_step_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), [8, 3]);
    let whole = folder.path().join("whole");
    train(&path, &whole, None);

    let parts = folder.path().join("parts");
    assert_eq!(train_step_by_step(&path, &parts), 11);
    assert_eq!(results(&parts), results(&whole));
    assert!(!parts.join("state").exists());
    assert!(!RunDir::scratch_of(&parts).exists());
}

#[test]
fn what_a_kill_left_behind_after_the_saved_state_is_of_no_consequence() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), [8, 2]);
    let whole = folder.path().join("whole");
    train(&path, &whole, None);

    let run = RunConfig::load(&path, &[]).unwrap();
    let output = folder.path().join("killed");
    let stop = AtomicBool::new(true);
    let mut options = RunOptions {
        output: &output,
        scratch: None,
        unfinished: Unfinished::Resume,

        replay: None,
        stop: &stop,
        keep_state: false,
        show_progress: false,
    };
    for _ in 0..5 {
        core_train::run(&run, &options).unwrap_err();
    }
    // Rows of later steps, half a row, half a state.
    let scratch = RunDir::scratch_of(&output);
    let metrics = scratch.join("metrics.csv");
    let mut text = std::fs::read_to_string(&metrics).unwrap();
    text.push_str("embedding,6,1.0,1.0,1.0,1.0,1.0,0.005\nembedding,7,1.");
    std::fs::write(&metrics, text).unwrap();
    let half = scratch.join("state/.scratch-half");
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("embedding.safetensors"), b"half").unwrap();

    let go_on = AtomicBool::new(false);
    options.stop = &go_on;
    core_train::run(&run, &options).unwrap();
    assert_eq!(results(&output), results(&whole));
}

#[test]
fn a_killed_program_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), [56, 2]);
    let whole = folder.path().join("whole");
    train(&path, &whole, None);

    let output = folder.path().join("killed");
    let program = env!("CARGO_BIN_EXE_core-train");
    let command = |extra: &[&str]| {
        let mut command = Command::new(program);
        command
            .arg("train")
            .arg(&path)
            .arg("--output")
            .arg(&output)
            .args(extra);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut child = command(&[]).spawn().unwrap();
    let metrics = RunDir::scratch_of(&output).join("metrics.csv");
    let rows = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    while rows() < 53 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if !output.exists() {
        // Without --resume an unfinished run is left alone.
        assert!(!command(&[]).status().unwrap().success());
        assert!(command(&["--resume"]).status().unwrap().success());
    }
    assert_eq!(results(&output), results(&whole));
}

#[test]
fn an_unfinished_run_is_only_continued_as_it_was_begun() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), [4, 1]);
    let output = folder.path().join("out");
    let stop = AtomicBool::new(true);
    let options = RunOptions {
        output: &output,
        scratch: None,
        unfinished: Unfinished::Resume,

        replay: None,
        stop: &stop,
        keep_state: false,
        show_progress: false,
    };
    let run = RunConfig::load(&path, &[]).unwrap();
    core_train::run(&run, &options).unwrap_err();
    let other = RunConfig::load(&path, &["stages.0.learning_rate=1e-3".to_string()]).unwrap();
    let message = core_train::run(&other, &options).unwrap_err().to_string();
    assert!(
        message.contains("0.005") && message.contains("0.001"),
        "{message}"
    );
}

#[test]
fn a_run_that_goes_on_from_the_first_stage_of_another_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), [8, 3]);
    let whole = folder.path().join("whole");
    train(&path, &whole, None);

    let run = RunConfig::load(&path, &[]).unwrap();
    let [earlier, output] = ["earlier", "output"].map(|name| folder.path().join(name));
    let options = RunOptions {
        output: &earlier,
        scratch: None,
        unfinished: Unfinished::Refuse,
        replay: None,
        stop: &AtomicBool::new(false),
        keep_state: true,
        show_progress: false,
    };
    let first = first_stages(&run, 1);
    core_train::run(&first, &options).unwrap();
    assert!(has_state(&earlier) && !has_state(&whole));

    let refused = begin_from(&whole, &run, &RunDir::scratch_of(&output)).unwrap_err();
    assert!(refused.to_string().contains("no state"), "{refused}");
    begin_from(&earlier, &run, &RunDir::scratch_of(&output)).unwrap();
    let options = RunOptions {
        output: &output,
        scratch: None,
        unfinished: Unfinished::Resume,
        keep_state: false,
        ..options
    };
    core_train::run(&run, &options).unwrap();
    assert_eq!(results(&output), results(&whole));
    assert!(has_state(&earlier) && !has_state(&output));
}

#[test]
fn sigterm_saves_the_step_at_hand_and_ends_with_143_and_the_run_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), [400, 1]);
    let output = folder.path().join("terminated");
    let command = |extra: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_core-train"));
        command.arg("train").arg(&path).arg("--output").arg(&output);
        command
            .args(extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    let mut child = command(&[]).spawn().unwrap();
    let scratch = RunDir::scratch_of(&output);
    let rows = || {
        let text = std::fs::read_to_string(scratch.join("metrics.csv"));
        text.map_or(0, |text| text.lines().count().saturating_sub(1))
    };
    while rows() < 7 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(143));
    // Every step that was logged is in the state.
    assert!(scratch.join(format!("state/{:08}", rows())).is_dir());
    let steps = format!("stages.0.steps={}", rows() + 3);
    let message = command(&["--resume", "--set", &steps]).status().unwrap();
    assert!(!message.success(), "another number of steps is another run");
    assert!(command(&["--resume"]).status().unwrap().success());
    let whole = folder.path().join("whole");
    train(&path, &whole, None);
    assert_eq!(results(&output), results(&whole));
}
