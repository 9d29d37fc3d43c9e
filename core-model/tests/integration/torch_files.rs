//! Checkpoints that `torch.save` wrote, read as data (tests/generate_fixtures/weights.py).

use std::path::Path;

use core_model::checkpoint::Checkpoint;

#[test]
fn of_a_snapshot_of_a_training_the_weights_are_read_in_row_major_order() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights/snapshot.ckpt");
    let file = Checkpoint::open(&path, |key| Some(key.to_string())).unwrap();
    let keys: Vec<&str> = file.keys().collect();
    assert_eq!(keys, ["a.weight", "b", "part", "turned"]);
    let floats = |key| file.read_f32(key).unwrap().unwrap();
    assert_eq!(
        floats("a.weight"),
        (vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0], vec![2, 3])
    );
    assert_eq!(
        floats("turned"),
        (vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0], vec![3, 2])
    );
    assert_eq!(floats("part"), (vec![3.0, 4.0], vec![2]));
    assert_eq!(file.read_i64("b").unwrap().unwrap(), (vec![7], vec![1]));
    assert!(file.read_f32("b").is_err());
    assert_eq!(file.metadata()["global_step"], "875000");
}
