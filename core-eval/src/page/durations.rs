//! How long work took, by the times at which its files were written. A pause in between counts.

use std::path::Path;
use std::time::SystemTime;

use core_train::run::folder::{CONFIG, METRICS};

/// The folder of features in a results folder.
const FEATURES: &str = "features";

/// Seconds from one time to another; none where a file is gone, and where it is less than one second, as
/// after a copy that does not keep the times of files.
pub(super) fn between(first: Option<SystemTime>, last: Option<SystemTime>) -> Option<u64> {
    let duration = last?.duration_since(first?).ok()?;
    Some(duration.as_secs_f64().round() as u64).filter(|seconds| *seconds > 0)
}

/// When a file was written.
pub(super) fn written(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|file| file.modified()).ok()
}

/// A run writes its configuration first, and a row of metrics after every step.
pub(super) fn training(run: &Path) -> Option<u64> {
    between(written(&run.join(CONFIG)), written(&run.join(METRICS)))
}

/// Features are written after all images were there; scores are made of them in no time.
pub(super) fn scoring(results: &Path, newest_image: Option<SystemTime>) -> Option<u64> {
    between(newest_image, newest(&results.join(FEATURES)))
}

/// When the last image below a folder of one variant, concept and seed was written.
pub(super) fn newest_image(folder: &Path) -> Option<SystemTime> {
    let prompts = std::fs::read_dir(folder).into_iter().flatten().flatten();
    prompts.filter_map(|prompt| newest(&prompt.path())).max()
}

/// When the last file of a folder was written.
fn newest(folder: &Path) -> Option<SystemTime> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| written(&file.path())).max()
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir_all};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn file(path: &Path, seconds: f64) {
        create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let file = File::create(path).expect("a file");
        let time = UNIX_EPOCH + Duration::from_secs_f64(1e9 + seconds);
        file.set_modified(time).expect("a time");
    }

    #[test]
    fn work_takes_from_the_first_file_to_the_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        file(&at("run/config.toml"), 0.0);
        file(&at("run/metrics.csv"), 61.7);
        assert_eq!(training(&at("run")), Some(62));
        file(&at("images/0/00000.png"), 70.0);
        file(&at("images/1/00000.png"), 75.0);
        let images = newest_image(&at("images"));
        assert_eq!(between(written(&at("run/metrics.csv")), images), Some(13));
        file(&at("features/clip.bin"), 80.0);
        file(&at("features/dino.bin"), 79.0);
        assert_eq!(scoring(folder.path(), images), Some(5));
    }

    #[test]
    fn files_that_are_gone_or_were_copied_at_once_tell_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        assert_eq!(training(&at("run")), None);
        file(&at("run/config.toml"), 0.0);
        assert_eq!(training(&at("run")), None);
        file(&at("run/metrics.csv"), 0.4);
        assert_eq!(training(&at("run")), None);
        file(&at("run/metrics.csv"), -5.0);
        assert_eq!(training(&at("run")), None);
    }
}
