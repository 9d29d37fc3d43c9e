//! Damage of files, and many inputs for one reader. Property tests of all crates include this file.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngSeed, TestCaseError, TestRunner};

/// No input may take longer, also on a busy machine.
const LONGEST: Duration = Duration::from_secs(20);

/// What stands where files hold a value of another kind.
const VALUES: [&str; 36] = [
    "0",
    "1",
    "-1",
    "3",
    "1e30",
    "1e999",
    "-1e-400",
    "nan",
    "inf",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "null",
    "true",
    "false",
    "\"\"",
    "\"a\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "'",
    "'''",
    "\"",
    "[]",
    "{}",
    "[[[[[[[[",
    "{\"a\":",
    "[[stages]]",
    "[stages]",
    "=",
    ",",
    ";",
    "\n",
    "\u{feff}",
    "\u{0}",
    "2026-11-29T12:00:00Z",
    "\u{1F600}",
];

/// One thing that happens to a file.
#[derive(Debug, Clone)]
pub(crate) enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    /// Eight bytes as one number, where sizes and offsets are.
    Number(Index, u64),
    /// A word becomes a value of another kind.
    Word(Index, &'static str),
    /// A few bytes come again and again: nesting, long keys, long lines.
    Repeat(Index, usize, usize),
    /// A line comes again elsewhere, or in the place of another.
    Line(Index, Index, bool),
}

fn at() -> impl Strategy<Value = Index> {
    any::<Index>()
}

/// What happens to any file.
pub(crate) fn damage() -> BoxedStrategy<Damage> {
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(i, byte)| Damage::Set(i, byte)),
        (at(), 0..8_u8).prop_map(|(i, bit)| Damage::Flip(i, bit)),
        at().prop_map(Damage::Cut),
        (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(i, v)| Damage::Insert(i, v)),
        (at(), any::<u64>()).prop_map(|(i, n)| Damage::Number(i, n)),
    ]
    .boxed()
}

/// What happens to a text: the same, and words, lines and repetitions.
pub(crate) fn damage_of_text() -> BoxedStrategy<Damage> {
    prop_oneof![
        3 => damage(),
        4 => (at(), prop::sample::select(VALUES.to_vec())).prop_map(|(i, v)| Damage::Word(i, v)),
        2 => (at(), at(), any::<bool>()).prop_map(|(i, j, instead)| Damage::Line(i, j, instead)),
        1 => (at(), 1..6_usize, prop_oneof![9 => 2..40_usize, 1 => 40..4000_usize])
            .prop_map(|(i, length, times)| Damage::Repeat(i, length, times)),
    ]
    .boxed()
}

impl Damage {
    /// `reach` bytes from the start are where damage matters most.
    pub(crate) fn apply(&self, bytes: &mut Vec<u8>, reach: usize) {
        let reach = reach.min(bytes.len());
        if reach == 0 {
            return;
        }
        match self {
            Self::Set(i, byte) => bytes[i.index(reach)] = *byte,
            Self::Flip(i, bit) => bytes[i.index(reach)] ^= 1 << bit,
            Self::Cut(i) => bytes.truncate(i.index(reach)),
            Self::Insert(i, more) => {
                let at = i.index(reach);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Number(i, number) => {
                let at = i.index(reach);
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
            Self::Word(i, value) => {
                let at = i.index(reach);
                let is_end = |byte: &u8| b" \t\r\n,;:=[]{}".contains(byte);
                let start = bytes[..at]
                    .iter()
                    .rposition(is_end)
                    .map_or(0, |end| end + 1);
                let length = bytes[at..].iter().position(is_end);
                let end = length.map_or(bytes.len(), |length| at + length);
                bytes.splice(start..end, value.bytes());
            }
            Self::Repeat(i, length, times) => {
                let at = i.index(reach);
                let end = (at + length).min(bytes.len());
                let again = bytes[at..end].repeat(*times);
                bytes.splice(at..at, again);
            }
            Self::Line(from, to, instead) => {
                let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
                let line = lines[from.index(lines.len())];
                let to = to.index(lines.len());
                match instead {
                    true => lines[to] = line,
                    false => lines.insert(to, line),
                }
                *bytes = lines.join(&b'\n');
            }
        }
    }
}

/// The bytes after all that happens to them.
pub(crate) fn damaged(source: &[u8], reach: usize, damages: &[Damage]) -> Vec<u8> {
    let mut bytes = source.to_vec();
    damages.iter().for_each(|one| one.apply(&mut bytes, reach));
    bytes
}

/// The files that a fuzz target begins with.
pub(crate) fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus");
    let entries = std::fs::read_dir(std::path::Path::new(folder).join(target)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "the corpus of {target} is empty");
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// Damaged copies of texts.
pub(crate) fn damaged_texts(sources: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damages = prop::collection::vec(damage_of_text(), 1..4);
    (0..sources.len(), damages)
        .prop_map(move |(which, damages)| damaged(&sources[which], usize::MAX, &damages))
}

/// Gives the same inputs in every run to `check`; as many as `CORE_CASES` says, for long runs
/// (`scripts/million-inputs`). A panic fails the test, and so does an input that takes too long.
#[expect(clippy::print_stdout, reason = "figures for long runs")]
pub(crate) fn inputs<S: Strategy>(strategy: S, check: impl Fn(S::Value)) {
    let wanted = std::env::var("CORE_CASES").ok();
    let cases = wanted.map_or(300, |text| text.parse().expect("CORE_CASES is a number"));
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(0),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let slowest = std::cell::Cell::new(Duration::ZERO);
    let result = runner.run(&strategy, |input| {
        let start = Instant::now();
        check(input);
        let took = start.elapsed();
        slowest.set(slowest.get().max(took));
        match took < LONGEST {
            true => Ok(()),
            false => Err(TestCaseError::fail(format!("it took {took:?}"))),
        }
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
    println!(
        "{cases} inputs, the slowest took {} ms",
        slowest.get().as_millis()
    );
}
