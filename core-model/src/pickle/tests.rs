//! The machine on pickles written by hand.
#![allow(clippy::unwrap_used)]

use super::machine::{Value, unpickle};

fn refused(bytes: &[u8]) -> String {
    unpickle(bytes).unwrap_err()
}

#[test]
fn plain_containers_are_read() {
    // {"a": [1, -2, 2.5, True, None]}, protocol 2.
    let pickle = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffG@\x04\x00\x00\x00\x00\x00\x00\x88Nes.";
    let values = unpickle(pickle).unwrap();
    let Value::Dict(entries) = values.get(values.root()) else {
        panic!("no dictionary");
    };
    let [(key, list)] = entries[..] else {
        panic!("one entry");
    };
    assert_eq!(values.get(key), &Value::Text("a".into()));
    let Value::List(items) = values.get(list) else {
        panic!("no list");
    };
    let items: Vec<&Value> = items.iter().map(|id| values.get(*id)).collect();
    let expected = [
        &Value::Int(1),
        &Value::Int(-2),
        &Value::Float(2.5),
        &Value::Bool(true),
        &Value::None,
    ];
    assert_eq!(items, expected);
}

#[test]
fn names_and_operations_that_could_run_something_are_refused() {
    let message = refused(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.");
    assert!(message.contains("`os.system`"), "{message}");
    let message = refused(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.");
    assert!(message.contains("`builtins.eval`"), "{message}");
    // INST, the old way to make an object.
    let message = refused(b"\x80\x02(ios\nsystem\n.");
    assert!(message.contains("0x69"), "{message}");
}

#[test]
fn a_bomb_of_repeated_references_takes_no_memory() {
    // [x] * 1000 again and again: each level refers to the one before.
    let mut pickle = b"\x80\x02]q\x00".to_vec();
    for level in 0..50_u8 {
        pickle.extend(b"](");
        for _ in 0..1000 {
            pickle.extend([b'h', level]);
        }
        pickle.extend([b'e', b'q', level + 1]);
    }
    pickle.push(b'.');
    assert!(unpickle(&pickle).is_ok(), "50 lists");
}

#[test]
fn what_is_cut_off_or_out_of_order_is_damaged() {
    for pickle in [
        &b"\x80\x02"[..],
        b"\x80\x02t.",
        b"\x80\x02h\x05.",
        b"\x80\x02}K\x01s.",
        b".",
    ] {
        assert!(refused(pickle).contains("damaged"), "{pickle:?}");
    }
    assert!(refused(b"\x80\x09N.").contains("protocol 9"));
}
