//! Tells the program the revision of the sources that it is built from, for `environment.json`.
//!
//! `CORE_REVISION`, where it is set, is the revision: packages and container images are built from sources
//! without git. Otherwise git is asked, and without it there is none.

#![allow(
    clippy::print_stdout,
    reason = "cargo reads what a build script prints"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the revision depends on beside the commit: changes that are not committed.
const SOURCES: [&str; 6] = [
    "Cargo.toml",
    "Cargo.lock",
    "core-model/src",
    "core-losses/src",
    "core-train/src",
    "core-eval/src",
];

fn main() {
    println!("cargo:rerun-if-env-changed=CORE_REVISION");
    let given = std::env::var("CORE_REVISION").ok();
    let revision = given
        .filter(|revision| !revision.trim().is_empty())
        .or_else(|| of_checkout(&checkout()));
    if let Some(revision) = revision {
        println!("cargo:rustc-env=CORE_REVISION={}", revision.trim());
    }
}

fn checkout() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    Path::new(&package).join("..")
}

/// The commit of a checkout, with `+changes` behind it where files differ from it.
fn of_checkout(checkout: &Path) -> Option<String> {
    // A folder of sources below somebody else's repository is no checkout of this one.
    if !checkout.join(".git").exists() {
        return None;
    }
    let head = git(checkout, &["rev-parse", "HEAD"])?;
    let branch = git(checkout, &["symbolic-ref", "--quiet", "HEAD"]);
    for name in [Some("HEAD"), branch.as_deref(), Some("packed-refs")] {
        let path = name.and_then(|name| git(checkout, &["rev-parse", "--git-path", name]));
        let path = path.map(|path| checkout.join(path));
        // A path that does not exist would run this script at every build.
        if let Some(path) = path.filter(|path| path.exists()) {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", checkout.join(source).display());
    }
    let status = ["status", "--porcelain", "--untracked-files=no", "--"];
    let changes = git(checkout, &[&status[..], &SOURCES].concat())?;
    Some(match changes.is_empty() {
        true => head,
        false => format!("{head}+changes"),
    })
}

/// What git prints, if it is there and succeeds.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}
