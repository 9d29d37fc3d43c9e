//! The machine on pickles written by hand.
#![allow(clippy::unwrap_used)]

use super::machine::unpickle;
use super::values::Value;

fn refused(bytes: &[u8]) -> String {
    unpickle(bytes).unwrap_err()
}

#[test]
fn plain_containers_are_read() {
    // {"a": [1, -2, 2.5, True, None]}, protocol 2.
    let pickle = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffG@\x04\x00\x00\x00\x00\x00\x00\x88Nes.";
    let values = unpickle(pickle).unwrap();
    let Value::Dict(entries) = values.get(values.root) else {
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
fn objects_of_unknown_names_are_skipped_with_all_that_is_in_them() {
    for (pickle, name) in [
        // os.system("ls")
        (
            &b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."[..],
            "os.system",
        ),
        (
            b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
            "builtins.eval",
        ),
        // INST, the old way to make an object.
        (b"\x80\x02(S'ls'\nios\nsystem\n.", "os.system"),
        // An object whose class is a dictionary, with a state.
        (b"\x80\x02cmy\nDict\n)\x81K\x01K\x02s}b.", "my.Dict"),
    ] {
        let values = unpickle(pickle).unwrap();
        assert_eq!(values.get(values.root), &Value::Unknown, "{name}");
        assert!(values.unknown.contains(name), "{:?}", values.unknown);
    }
}

#[test]
fn numbers_of_numpy_are_skipped_beside_what_is_read() {
    // {"a": numpy.float64(..), "b": 3}: a name, a call of two arguments, bytes.
    let pickle = b"\x80\x02}(X\x01\0\0\0acnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\0\0\0f8\x85RC\x0800000000\x86RX\x01\0\0\0bK\x03u.";
    let values = unpickle(pickle).unwrap();
    let Value::Dict(entries) = values.get(values.root) else {
        panic!("no dictionary");
    };
    let found: Vec<&Value> = entries.iter().map(|(_, id)| values.get(*id)).collect();
    assert_eq!(found, [&Value::Unknown, &Value::Int(3)]);
}

#[test]
fn protocol_zero_is_read() {
    // {'a': [1, 2.5, True]} as text.
    let values = unpickle(b"(dp0\nS'a'\np1\n(lp2\nI1\naF2.5\naI01\nas.").unwrap();
    let Value::Dict(entries) = values.get(values.root) else {
        panic!("no dictionary");
    };
    let Value::List(items) = values.get(entries[0].1) else {
        panic!("no list");
    };
    let items: Vec<&Value> = items.iter().map(|id| values.get(*id)).collect();
    let expected = [&Value::Int(1), &Value::Float(2.5), &Value::Bool(true)];
    assert_eq!(items, expected);
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
