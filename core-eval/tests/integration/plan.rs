//! Plans, parts of the work, and job scripts.

use crate::common::{Sandbox, core_eval, finished};

fn plan(sandbox: &Sandbox, results: &str) -> serde_json::Value {
    let mut command = core_eval();
    command
        .args(["plan", "--json", "--results"])
        .arg(sandbox.path(results))
        .arg(sandbox.path("experiment.toml"));
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the program says when it succeeds.
fn success(sandbox: &Sandbox, arguments: &[&str]) -> String {
    let output = sandbox.command("parts").args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_plan_says_what_is_left_with_time_memory_and_disk() {
    let sandbox = Sandbox::new();
    let plan = plan(&sandbox, "results");
    assert_eq!(plan["images_to_generate"], 40);
    let cells = plan["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 10);
    let first = &cells[0];
    assert_eq!(
        [&first["variant"], &first["concept"]],
        ["CoRe", "spotted-dog"]
    );
    assert_eq!(first["state"], "to-train");
    assert_eq!([&first["steps_done"], &first["steps"]], [0, 18]);
    assert!(first["seconds"].as_f64().unwrap() > 0.0);
    let state = |variant: &str| {
        let of_variant = |cell: &&serde_json::Value| cell["variant"] == variant;
        cells.iter().find(of_variant).unwrap()["state"].clone()
    };
    assert_eq!(state("CoRe again"), "as-above");
    assert_eq!(state("class word"), "nothing-to-train");
    for number in [
        "memory_bytes",
        "disk_bytes",
        "training_seconds",
        "image_seconds",
    ] {
        assert!(plan[number].as_f64().unwrap() > 0.0, "{number}: {plan}");
    }
    assert!(!sandbox.path("results").exists());
}

#[test]
fn the_plan_of_a_finished_experiment_has_nothing_left() {
    let plan = plan(&finished().sandbox, "results");
    assert_eq!(plan["runs_to_train"], 0);
    assert_eq!(plan["images_to_generate"], 0);
    assert_eq!(plan["cells"][0]["state"], "done");
    assert_eq!(plan["cells"][0]["images_done"], 4);
}

#[test]
fn parts_are_worked_on_alone_and_make_the_whole_together() {
    let sandbox = Sandbox::finished();
    let plan = plan(&sandbox, "results");
    let address = plan["cells"][0]["address"].as_str().unwrap();
    let printed = success(&sandbox, &["--only", &address[..6]]);
    // CoRe and "CoRe again" of one concept.
    assert!(printed.contains("8 images generated"), "{printed}");
    let images = |printed: &str| -> usize {
        let (before, _) = printed.split_once(" images generated").unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let parts = ["0/3", "1/3", "2/3"].map(|part| images(&success(&sandbox, &["--shard", part])));
    assert_eq!(parts.iter().sum::<usize>(), 32, "{parts:?}");
    assert!(parts.iter().all(|part| *part > 0), "{parts:?}");
    success(&sandbox, &["--score-only"]);
    for file in ["scores.csv", "summary.csv", "curves.csv"] {
        let [whole, parts] =
            ["results", "parts"].map(|results| sandbox.read(&format!("{results}/small/{file}")));
        assert_eq!(whole, parts, "{file}");
    }
}

#[test]
fn parts_that_there_are_not_are_named() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command("results");
    command.args(["--only", "zzzz"]);
    let message = Sandbox::failure(command);
    assert!(
        message.contains("--only zzzz") && message.contains("core-eval plan"),
        "{message}"
    );
    let output = sandbox
        .command("results")
        .args(["--shard", "3/3"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("0/4"));
}

#[test]
fn job_scripts_are_printed_and_a_machine_without_slurm_is_named() {
    let sandbox = Sandbox::new();
    let submit = || {
        let mut command = core_eval();
        command
            .args([
                "submit",
                "--slurm",
                "--max-parallel",
                "2",
                "--cpus",
                "3",
                "--results",
            ])
            .arg(sandbox.path("results"))
            .arg(sandbox.path("experiment.toml"));
        command
    };
    let output = submit()
        .args(["--print", "--time", "auto"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    for part in [
        // One task for each variant, concept and seed without images.
        "#SBATCH --array=0-9%2",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:INT@120",
        "#SBATCH --cpus-per-task=3",
        "#SBATCH --time=00:10:00",
        " --worker\n",
        " --score-only\n",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert!(sandbox.path("results/small/slurm/small.sbatch").exists());

    let mut command = submit();
    command.env("PATH", sandbox.path("nothing"));
    let message = Sandbox::failure(command);
    assert!(
        message.contains("login node") && message.contains("--print"),
        "{message}"
    );
}
