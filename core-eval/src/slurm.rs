//! The job scripts with which Slurm runs an experiment: an array of workers, and a job that scores.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// How long before the time limit a worker gets the signal to stop, in seconds.
const NOTICE: u32 = 120;

/// The most tasks of an array that every cluster takes; Slurm's own limit is 1001.
const MOST_TASKS: usize = 1000;

/// What the scripts say.
#[derive(Debug, Clone)]
pub struct Jobs {
    /// The experiment's name.
    pub name: String,
    /// The program and its arguments, without those that make it a worker.
    pub command: Vec<String>,
    /// Where it starts.
    pub folder: PathBuf,
    /// Where the output of the jobs goes.
    pub logs: PathBuf,
    /// The number of workers altogether, one after another in the same places.
    pub tasks: usize,
    /// How many of them run at once.
    pub max_parallel: usize,
    /// The number of cores of each. It is fixed, since the bits of large models depend on it.
    pub cpus: usize,
    /// The partition.
    pub partition: Option<String>,
    /// Generic resources of each worker, as `gpu:1`.
    pub gres: Option<String>,
    /// Features that a node must have, as of its instruction set.
    pub constraint: Option<String>,
    /// The time limit of each worker in Slurm's form.
    pub time: Option<String>,
}

impl Jobs {
    /// The script of the array of workers.
    ///
    /// # Errors
    /// A word that no shell script can hold.
    pub fn array(&self) -> Result<String> {
        let last = self.tasks.clamp(1, MOST_TASKS) - 1;
        let parallel = self.max_parallel.max(1);
        let mut lines = vec![
            format!("--job-name={}", self.name),
            format!("--array=0-{last}%{parallel}"),
            // A worker that is put off its node continues from its saved state.
            "--requeue".to_string(),
            "--open-mode=append".to_string(),
            // Ctrl-C to the program before the time limit: it saves its state and ends.
            format!("--signal=B:INT@{NOTICE}"),
            format!("--cpus-per-task={}", self.cpus),
            format!("--output={}/%A_%a.log", self.logs.display()),
        ];
        let optional = [
            ("gres", &self.gres),
            ("constraint", &self.constraint),
            ("time", &self.time),
        ];
        for (name, value) in optional {
            lines.extend(value.iter().map(|value| format!("--{name}={value}")));
        }
        self.script(lines, &["--worker"])
    }

    /// The script of the job that scores when all workers have ended, or says what is missing.
    ///
    /// # Errors
    /// As [`array`](Self::array).
    pub fn report(&self) -> Result<String> {
        let mut lines = vec![
            format!("--job-name={}-report", self.name),
            "--requeue".to_string(),
            "--open-mode=append".to_string(),
            format!("--cpus-per-task={}", self.cpus),
            format!("--output={}/report-%j.log", self.logs.display()),
        ];
        // The image encoders compute on the device of the experiment.
        lines.extend(self.gres.iter().map(|gres| format!("--gres={gres}")));
        self.script(lines, &["--score-only"])
    }

    fn script(&self, mut lines: Vec<String>, arguments: &[&str]) -> Result<String> {
        lines.push(format!("--chdir={}", self.folder.display()));
        let partition = self.partition.iter();
        lines.extend(partition.map(|partition| format!("--partition={partition}")));
        let mut script = "#!/bin/sh\n".to_string();
        for line in lines {
            if line.contains(['\n', '"']) {
                bail!("{line:?}: no line of a job script can hold a line break or a quote");
            }
            // Slurm takes a value with spaces in double quotes.
            let line = match line.split_once('=') {
                Some((name, value)) if value.contains(' ') => format!("{name}=\"{value}\""),
                _ => line,
            };
            let _ = writeln!(script, "#SBATCH {line}");
        }
        let words = self.command.iter().map(String::as_str);
        let command = shlex::try_join(words.chain(arguments.iter().copied()))?;
        // In place of the shell, so that signals reach the program.
        let _ = writeln!(script, "exec {command}");
        Ok(script)
    }
}

/// A time limit in Slurm's form for a worker whose longest run takes so many seconds: half as much again
/// and five minutes to start, in steps of ten minutes.
pub fn time_limit(seconds: f64) -> String {
    let minutes = (seconds * 1.5 / 60.0 + 5.0).max(10.0);
    let minutes = (minutes / 10.0).ceil() as u64 * 10;
    let (days, hours) = (minutes / 1440, minutes / 60 % 24);
    match days {
        0 => format!("{hours:02}:{:02}:00", minutes % 60),
        _ => format!("{days}-{hours:02}:{:02}:00", minutes % 60),
    }
}

/// Gives a script to `sbatch`; the number of the job.
///
/// # Errors
/// No Slurm on this machine; what Slurm says against the script, as of a partition that it does not have.
pub fn submit(script: &Path, after: Option<&str>) -> Result<String> {
    let mut command = std::process::Command::new("sbatch");
    command.arg("--parsable");
    // After success alone would leave it waiting for ever when one task fails.
    command.args(after.map(|job| format!("--dependency=afterany:{job}")));
    let output = command.arg(script).output().with_context(|| {
        format!(
            "sbatch does not start; submit on a login node of a Slurm cluster, or only write {} \
             with --print",
            script.display()
        )
    })?;
    if !output.status.success() {
        bail!(
            "{}: Slurm refuses it: {} (`sinfo` lists partitions with their limits)",
            script.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    // On several clusters `;cluster` follows.
    let job = String::from_utf8_lossy(&output.stdout).into_owned();
    let job = job.trim().split(';').next().unwrap_or_default().to_string();
    Ok(job)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn jobs() -> Jobs {
        Jobs {
            name: "ablation".to_string(),
            command: [
                "/opt/core eval/core-eval",
                "it's.toml",
                "--results",
                "results",
            ]
            .map(String::from)
            .to_vec(),
            folder: "/home/me/my work".into(),
            logs: "/home/me/logs".into(),
            tasks: 12,
            max_parallel: 4,
            cpus: 2,
            partition: Some("gpu".to_string()),
            gres: Some("gpu:1".to_string()),
            constraint: None,
            time: Some("04:00:00".to_string()),
        }
    }

    #[test]
    fn the_array_is_throttled_requeued_and_told_before_the_limit() {
        insta::assert_snapshot!(jobs().array().unwrap(), @r#"
        #!/bin/sh
        #SBATCH --job-name=ablation
        #SBATCH --array=0-11%4
        #SBATCH --requeue
        #SBATCH --open-mode=append
        #SBATCH --signal=B:INT@120
        #SBATCH --cpus-per-task=2
        #SBATCH --output=/home/me/logs/%A_%a.log
        #SBATCH --gres=gpu:1
        #SBATCH --time=04:00:00
        #SBATCH --chdir="/home/me/my work"
        #SBATCH --partition=gpu
        exec '/opt/core eval/core-eval' "it's.toml" --results results --worker
        "#);
    }

    #[test]
    fn the_report_only_scores() {
        let script = jobs().report().unwrap();
        assert!(
            script.ends_with(" --results results --score-only\n"),
            "{script}"
        );
        assert!(
            !script.contains("--array") && !script.contains("--time"),
            "{script}"
        );
    }

    #[test]
    fn words_that_no_script_can_hold_are_refused() {
        let mut jobs = jobs();
        jobs.partition = Some("a\n#SBATCH --exclusive".to_string());
        assert!(jobs.array().is_err());
    }

    #[test]
    fn time_limits_are_generous_and_in_steps_of_ten_minutes() {
        assert_eq!(time_limit(1.0), "00:10:00");
        assert_eq!(time_limit(3600.0), "01:40:00");
        assert_eq!(time_limit(24.0 * 3600.0), "1-12:10:00");
    }
}
