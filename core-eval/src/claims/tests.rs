//! Claims of one process and of others, living and dead.

use std::fs::File;
use std::sync::Barrier;
use std::time::Duration;

use super::takeover::DEAD;
use super::*;

fn enter(results: &Path) -> Claims {
    Claims::enter(results, BTreeMap::new()).unwrap()
}

/// A claim of a process on another machine, last touched so long ago.
fn foreign(results: &Path, name: &str, age: Duration, edit: impl Fn(&mut Owner)) -> PathBuf {
    let mut owner = Owner::this();
    owner.host = "elsewhere".to_string();
    owner.token = format!("elsewhere-1-{name}");
    edit(&mut owner);
    let mut value = serde_json::to_value(&owner).unwrap();
    value["process"] = serde_json::Value::Null;
    let path = results.join(FOLDER).join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, value.to_string()).unwrap();
    touch(&path, SystemTime::now() - age);
    path
}

fn touch(path: &Path, time: SystemTime) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn something_is_claimed_once_until_it_is_released() {
    let results = tempfile::tempdir().unwrap();
    let [one, other] = [enter(results.path()), enter(results.path())];
    let claim = one.claim("a").unwrap().unwrap();
    assert!(claim.is_held());
    assert!(other.claim("a").unwrap().is_none() && one.claim("a").unwrap().is_none());
    assert_eq!(other.holder("a").unwrap().unwrap().pid, std::process::id());
    drop(claim);
    assert!(other.claim("a").unwrap().is_some());
    drop((one, other));
    assert!(!results.path().join(FOLDER).exists());
}

#[test]
fn a_claim_with_an_old_beat_is_taken_over_exactly_once() {
    let results = tempfile::tempdir().unwrap();
    let old = DEAD + Duration::from_secs(5);
    for round in 0..20 {
        let name = format!("run{round}");
        foreign(results.path(), &name, old, |_| {});
        let start = Barrier::new(8);
        let taken: Vec<Option<Claim>> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let claims = enter(results.path());
                        start.wait();
                        let claim = claims.claim(&name).unwrap();
                        start.wait();
                        claim
                    })
                })
                .collect();
            racers
                .into_iter()
                .map(|racer| racer.join().unwrap())
                .collect()
        });
        let taken: Vec<Claim> = taken.into_iter().flatten().collect();
        assert_eq!(taken.len(), 1, "round {round}");
        assert!(taken[0].is_held());
    }
}

#[test]
fn a_claim_that_beats_elsewhere_is_left_alone() {
    let results = tempfile::tempdir().unwrap();
    foreign(results.path(), "a", DEAD / 2, |_| {});
    let claims = enter(results.path());
    assert!(claims.claim("a").unwrap().is_none());
    claims.sweep().unwrap();
    assert_eq!(claims.holder("a").unwrap().unwrap().host, "elsewhere");
}

#[test]
fn a_claim_from_the_future_is_watched_and_neither_lost_nor_taken() {
    let results = tempfile::tempdir().unwrap();
    let path = foreign(results.path(), "a", Duration::ZERO, |_| {});
    touch(&path, SystemTime::now() + DEAD * 6);
    let claims = enter(results.path());
    assert!(claims.claim("a").unwrap().is_none());
    // As if it had been watched for longer than ten minutes.
    let long_ago = Instant::now().checked_sub(DEAD * 2).unwrap();
    for seen in claims.watched.lock().unwrap().values_mut() {
        seen.1 = long_ago;
    }
    assert!(claims.claim("a").unwrap().is_some());
}

#[test]
fn a_claim_of_a_process_killed_as_it_began_is_taken_over_when_it_is_old() {
    let results = tempfile::tempdir().unwrap();
    let claims = enter(results.path());
    let path = results.path().join(FOLDER).join("a");
    std::fs::write(&path, "").unwrap();
    assert!(claims.claim("a").unwrap().is_none());
    touch(&path, SystemTime::now() - DEAD * 2);
    assert!(claims.claim("a").unwrap().is_some());
}

#[test]
fn who_was_taken_for_dead_does_not_remove_the_claim_of_the_other() {
    let results = tempfile::tempdir().unwrap();
    let [one, other] = [enter(results.path()), enter(results.path())];
    let lost = one.claim("a").unwrap().unwrap();
    touch(
        &results.path().join(FOLDER).join("a"),
        SystemTime::now() - DEAD * 2,
    );
    let taken = other.claim("a").unwrap().unwrap();
    assert!(!lost.is_held() && taken.is_held());
    drop(lost);
    assert!(taken.is_held());
}

#[test]
fn another_version_and_other_images_are_refused_while_they_live() {
    let results = tempfile::tempdir().unwrap();
    let images = |how: &str| BTreeMap::from([("images/a".to_string(), how.to_string())]);
    let age = Duration::ZERO;
    let path = foreign(results.path(), "process-x", age, |owner| {
        owner.program = "core-eval 0.0.9".to_string();
    });
    let error = Claims::enter(results.path(), images("1")).unwrap_err();
    assert!(error.to_string().contains("core-eval 0.0.9"), "{error}");
    touch(&path, SystemTime::now() - DEAD * 2);
    Claims::enter(results.path(), images("1")).unwrap();

    foreign(results.path(), "process-y", age, |owner| {
        owner.images = images("2")
    });
    let error = Claims::enter(results.path(), images("1")).unwrap_err();
    assert!(
        error.to_string().contains("generates other images"),
        "{error}"
    );
    Claims::enter(results.path(), images("2")).unwrap();
}
