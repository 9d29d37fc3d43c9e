//! Who works on something: what a claim says, and whether that process is still there.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;

use core_train::run::environment::{built_revision, burn_version};
use serde::{Deserialize, Serialize};

use crate::plan::RUN_FORMAT;

/// The content of a claim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Owner {
    /// Unlike that of every other claim.
    pub token: String,
    /// The name of the machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// The job of a batch system, if there is one.
    #[serde(default)]
    pub job: Option<String>,
    /// The version of the program.
    pub program: String,
    /// The revision that the program was built from, where it knows that.
    #[serde(default)]
    pub revision: Option<String>,
    /// What tells this process from another one of the same number, where the system says it.
    #[serde(default)]
    process: Option<Process>,
    /// In the entry of a process: the folders of images that it generates, with the digest of how.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
}

/// A process, as Linux tells it from all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    /// Since when the machine runs, and in which container: process numbers are comparable within.
    machine: String,
    /// Whose it is: those of others may be invisible.
    user: u32,
    /// When it was started.
    started: String,
}

impl Owner {
    /// This process, with a new token.
    pub fn this() -> Self {
        let (host, pid) = (host(), std::process::id());
        // Every hasher of the standard library has a random state of its own.
        let random = std::hash::RandomState::new().build_hasher().finish();
        Self {
            token: format!("{host}-{pid}-{:08x}", random >> 32),
            host,
            pid,
            job: job(),
            program: program(),
            revision: built_revision().map(String::from),
            process: process(),
            images: BTreeMap::new(),
        }
    }

    /// Whether the process is certainly gone, which can only be known on its own machine.
    pub fn is_gone(&self) -> bool {
        let (Some(theirs), Some(ours)) = (&self.process, process()) else {
            return false;
        };
        let is_comparable = theirs.machine == ours.machine && theirs.user == ours.user;
        is_comparable && start_of(self.pid).as_ref() != Some(&theirs.started)
    }

    /// A warning about a process whose program has the same version and was built from another revision.
    pub fn differs_in_revision(&self, other: &Self) -> Option<String> {
        if self.revision == other.revision {
            return None;
        }
        let name = |revision: &Option<String>| match revision {
            Some(revision) => format!("revision {revision}"),
            None => "an unknown revision".to_string(),
        };
        Some(format!(
            "{} works here with a program that was built from {}, and this one from {}; if they do not compute the \
             same bits, the results are those of two programs",
            other.describe(),
            name(&other.revision),
            name(&self.revision)
        ))
    }

    /// The process for readers.
    pub fn describe(&self) -> String {
        match &self.job {
            Some(job) => format!("process {} on {} (job {job})", self.pid, self.host),
            None => format!("process {} on {}", self.pid, self.host),
        }
    }
}

/// What has to be equal for two programs to work in one folder.
fn program() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let burn = burn_version().unwrap_or("of unknown version");
    format!("core-eval {version} (runs of format {RUN_FORMAT}, Burn {burn})")
}

/// The machine's name, in characters that a file name may have.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.ok().or_else(|| std::env::var("HOSTNAME").ok());
    let name = name.or_else(|| std::env::var("COMPUTERNAME").ok());
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    let name: String = name.unwrap_or_default().trim().chars().take(64).collect();
    match name.is_empty() {
        true => "unknown".to_string(),
        false => name.replace(|c| !plain(c), "_"),
    }
}

/// The job as Slurm names it: `array_task`, or the job alone.
fn job() -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok();
    match (
        variable("SLURM_ARRAY_JOB_ID"),
        variable("SLURM_ARRAY_TASK_ID"),
    ) {
        (Some(array), Some(task)) => Some(format!("{array}_{task}")),
        _ => variable("SLURM_JOB_ID"),
    }
}

#[cfg(target_os = "linux")]
fn process() -> Option<Process> {
    use std::os::unix::fs::MetadataExt;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let container = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(Process {
        machine: format!("{} {}", boot.trim(), container.display()),
        user: std::fs::metadata("/proc/self").ok()?.uid(),
        started: start_of(std::process::id())?,
    })
}

#[cfg(not(target_os = "linux"))]
fn process() -> Option<Process> {
    None
}

/// When a process was started, in ticks since the machine was; `None` when it is gone or only waits to
/// be cleared away.
fn start_of(pid: u32) -> Option<String> {
    let path = Path::new("/proc").join(pid.to_string()).join("stat");
    let stat = std::fs::read_to_string(path).ok()?;
    // The second field is a name in brackets that may contain anything; the 3rd is the state and the
    // 22nd the start.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let is_dead = ["Z", "X", "x"].contains(fields.first()?);
    (!is_dead).then(|| fields.get(19).map(|start| (*start).to_string()))?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_one_version_and_two_revisions_are_named() {
        let mut owners = [Owner::this(), Owner::this()];
        assert_eq!(owners[0].differs_in_revision(&owners[1]), None);
        for (owner, revision) in owners.iter_mut().zip(["1a2b", "3c4d"]) {
            owner.revision = Some(revision.to_string());
        }
        let warning = owners[0].differs_in_revision(&owners[1]).unwrap();
        for part in ["revision 1a2b", "revision 3c4d", &owners[1].describe()] {
            assert!(warning.contains(part), "{warning}");
        }
        owners[1].revision = None;
        let warning = owners[0].differs_in_revision(&owners[1]).unwrap();
        assert!(warning.contains("an unknown revision"), "{warning}");
    }

    #[test]
    fn tokens_differ_and_this_process_is_there() {
        let [a, b] = [Owner::this(), Owner::this()];
        assert_ne!(a.token, b.token);
        assert!(!a.is_gone());
        let text = serde_json::to_string(&a).unwrap();
        let read: Owner = serde_json::from_str(&text).unwrap();
        assert_eq!(read.token, a.token);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_ended_is_gone_at_once_and_one_elsewhere_is_not() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let mut owner = Owner::this();
        owner.pid = child.id();
        owner.process.as_mut().unwrap().started = start_of(owner.pid).unwrap();
        assert!(!owner.is_gone());
        child.kill().unwrap();
        // Until somebody waits for it, a killed process keeps its number.
        while start_of(owner.pid).is_some() {
            std::thread::yield_now();
        }
        assert!(owner.is_gone());
        child.wait().unwrap();
        assert!(owner.is_gone());
        // A number that was given anew is another process, which began later.
        owner.pid = std::process::id();
        owner.process.as_mut().unwrap().started = "1".to_string();
        assert!(owner.is_gone());
        owner.process.as_mut().unwrap().machine = "another".to_string();
        assert!(!owner.is_gone());
    }
}
