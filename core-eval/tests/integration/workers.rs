//! Several processes on one results folder: kills, signals, dead claims, a full disk.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use crate::common::{Sandbox, TABLES};

fn program(sandbox: &Sandbox, results: &str) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("core-eval"));
    command
        .arg(sandbox.path("experiment.toml"))
        .arg("--results")
        .arg(sandbox.path(results))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn worker(sandbox: &Sandbox, results: &str) -> Child {
    program(sandbox, results).arg("--worker").spawn().unwrap()
}

/// The output of a process that succeeds.
fn success(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    errors + &String::from_utf8_lossy(&output.stdout)
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Scores what the workers have made, with nothing left to train or to generate, and compares.
fn assert_same_tables(sandbox: &Sandbox, results: &str) {
    let printed = sandbox.run(results);
    assert!(!printed.contains("runs trained"), "{printed}");
    assert!(!printed.contains("images generated"), "{printed}");
    for file in TABLES {
        let [whole, shared] =
            ["results", results].map(|results| sandbox.read(&format!("{results}/small/{file}")));
        assert_eq!(whole, shared, "{file}");
    }
    assert_nothing_is_left(sandbox, results);
}

/// No claims and no scratch folders.
fn assert_nothing_is_left(sandbox: &Sandbox, results: &str) {
    assert!(!sandbox.path(&format!("{results}/small/claims")).exists());
    for entry in std::fs::read_dir(sandbox.path(&format!("{results}/small/runs"))).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.contains("partial"), "{name}");
    }
}

/// The address of some run and its folder.
fn some_run(sandbox: &Sandbox, results: &str) -> (String, std::path::PathBuf) {
    let runs = std::fs::read_dir(sandbox.path(&format!("{results}/small/runs"))).unwrap();
    let mut runs: Vec<_> = runs.map(|entry| entry.unwrap().path()).collect();
    runs.retain(|path| path.is_dir());
    runs.sort();
    let run = runs.remove(0);
    (run.file_name().unwrap().to_str().unwrap().to_string(), run)
}

/// A claim that a process on another machine has left, last touched so long ago.
fn leave_claim(sandbox: &Sandbox, results: &str, name: &str, program: &str, age: Duration) {
    let path = sandbox.write(
        &format!("{results}/small/claims/{name}"),
        &format!(
            "{{\"token\": \"elsewhere-1-{name}\", \"host\": \"elsewhere\", \"pid\": 1, \
             \"program\": \"{program}\"}}"
        ),
    );
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn three_workers_of_which_one_is_killed_again_and_again_end_with_the_same_bytes() {
    let sandbox = Sandbox::finished();
    let others = [worker(&sandbox, "shared"), worker(&sandbox, "shared")];
    for milliseconds in [150, 300, 450, 600, 750] {
        let mut child = worker(&sandbox, "shared");
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    others.into_iter().map(success).for_each(drop);
    assert_same_tables(&sandbox, "shared");
}

#[test]
fn two_whole_experiments_in_one_folder_share_the_work() {
    let sandbox = Sandbox::finished();
    let both = [(); 2].map(|()| program(&sandbox, "shared").spawn().unwrap());
    both.into_iter().map(success).for_each(drop);
    assert_same_tables(&sandbox, "shared");
}

#[test]
fn a_run_of_a_dead_machine_is_taken_over_exactly_once_by_eight_processes() {
    let sandbox = Sandbox::finished();
    let (address, run) = some_run(&sandbox, "results");
    std::fs::remove_dir_all(run).unwrap();
    let age = Duration::from_secs(601);
    leave_claim(&sandbox, "results", &address, "core-eval 0.0.1", age);
    let all: String = [(); 8]
        .map(|()| worker(&sandbox, "results"))
        .map(success)
        .concat();
    assert_eq!(all.matches("taken over").count(), 1, "{all}");
    assert!(all.contains("process 1 on elsewhere"), "{all}");
    assert_eq!(all.matches("\n1 runs trained").count(), 1, "{all}");
    assert_same_tables(&sandbox, "results");
}

#[test]
fn a_living_process_of_another_version_is_not_joined() {
    let sandbox = Sandbox::finished();
    let now = Duration::ZERO;
    leave_claim(&sandbox, "results", "process-x", "core-eval 0.0.1", now);
    let output = worker(&sandbox, "results").wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = errors(&output);
    for part in ["process 1 on elsewhere", "core-eval 0.0.1", "--results"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[cfg(unix)]
#[test]
fn sigterm_ends_a_worker_with_143_and_loses_nothing() {
    let sandbox = Sandbox::finished();
    for milliseconds in [400, 700] {
        let mut child = worker(&sandbox, "shared");
        std::thread::sleep(Duration::from_millis(milliseconds));
        let pid = child.id().to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(kill.unwrap().success());
        let status = child.wait().unwrap();
        // One that has just come to its end, or not yet to its beginning, ends as it would.
        assert!(
            [Some(143), Some(0), None].contains(&status.code()),
            "{status}"
        );
        assert!(!sandbox.path("shared/small/claims").exists() || status.code().is_none());
    }
    success(worker(&sandbox, "shared"));
    assert_same_tables(&sandbox, "shared");
}

/// A limit on the size of files takes the place of a full disk, which the other two do not have.
#[cfg(unix)]
#[test]
fn a_full_disk_of_one_of_three_workers_stops_that_one_only() {
    let sandbox = Sandbox::finished();
    let full = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "sh"])
        .arg(assert_cmd::cargo::cargo_bin("core-eval"))
        .arg(sandbox.path("experiment.toml"))
        .arg("--results")
        .arg(sandbox.path("shared"))
        .arg("--worker")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let others = [worker(&sandbox, "shared"), worker(&sandbox, "shared")];
    let output = full.wait_with_output().unwrap();
    let message = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("File too large"), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    others.into_iter().map(success).for_each(drop);
    assert_same_tables(&sandbox, "shared");
}
