//! THIRD-PARTY.md is what `scripts/third-party` writes.

#[cfg(target_os = "linux")]
#[test]
fn the_list_of_packages_of_others_is_up_to_date() {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let checkout = crates.parent().unwrap();
    let mut script = std::process::Command::new(checkout.join("scripts/third-party"));
    let output = script.arg("--print").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let listed = String::from_utf8(output.stdout).unwrap();
    for package in ["| burn-core | 0.22", "| mozjpeg |", "| clap |"] {
        assert!(listed.contains(package), "{listed}");
    }
    let file = std::fs::read_to_string(checkout.join("THIRD-PARTY.md")).unwrap();
    assert!(
        file == listed,
        "THIRD-PARTY.md is out of date; run scripts/third-party"
    );
}
