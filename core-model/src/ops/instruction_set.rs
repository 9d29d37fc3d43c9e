//! Which instructions the kernels use: the best ones of this processor, or fewer where the variable
//! `CORE_MAX_CPU_ISA` says so.
//!
//! The variable serves measurements on one machine for others, and machines of different kinds that
//! are to compute the same bits.

use std::sync::LazyLock;

/// The variable that lowers the instruction set: `avx512`, `avx2` or `baseline`.
const VARIABLE: &str = "CORE_MAX_CPU_ISA";

/// An instruction set, a larger one before those that it contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// AVX-512 F, VL, BW and DQ.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What the target always has.
    Any,
}

/// The instruction set of the kernels. Where the variable holds no name of one, that is the best of
/// the processor; [`check_instruction_set`] is what refuses such a value.
#[inline]
pub(super) fn level() -> Level {
    static LEVEL: LazyLock<Level> = LazyLock::new(|| {
        let wanted = wanted().ok().flatten();
        best(wanted.unwrap_or(Allowed::Avx512))
    });
    *LEVEL
}

/// The name of the instruction set that the kernels of this crate use on this processor.
pub fn instruction_set() -> &'static str {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => "AVX2 with FMA",
        Level::Any => "baseline of the architecture",
    }
}

/// Refuses a value of the variable that names no instruction set.
pub(crate) fn check_instruction_set() -> Result<(), String> {
    wanted().map(|_| ())
}

/// What the variable allows at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Allowed {
    Baseline,
    Avx2,
    Avx512,
}

fn wanted() -> Result<Option<Allowed>, String> {
    match std::env::var_os(VARIABLE) {
        Some(value) => parse(&value.to_string_lossy()).map(Some),
        None => Ok(None),
    }
}

fn parse(value: &str) -> Result<Allowed, String> {
    match value {
        "avx512" => Ok(Allowed::Avx512),
        "avx2" => Ok(Allowed::Avx2),
        "baseline" => Ok(Allowed::Baseline),
        _ => Err(format!(
            "the environment variable {VARIABLE} is `{value}`; expected avx512, avx2 or baseline: set one of \
             them or none"
        )),
    }
}

#[cfg(target_arch = "x86_64")]
fn best(allowed: Allowed) -> Level {
    if allowed >= Allowed::Avx512
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
    {
        return Level::Avx512;
    }
    let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    if allowed >= Allowed::Avx2 && has_avx2 {
        return Level::Avx2;
    }
    Level::Any
}

#[cfg(not(target_arch = "x86_64"))]
fn best(_: Allowed) -> Level {
    Level::Any
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_lowers_the_instruction_set_and_another_word_is_refused_by_name() {
        assert_eq!(best(parse("baseline").unwrap()), Level::Any);
        assert!(matches!(
            best(parse("avx2").unwrap()),
            level if format!("{level:?}") != "Avx512"
        ));
        let message = parse("sse9").unwrap_err();
        assert!(message.contains("CORE_MAX_CPU_ISA") && message.contains("`sse9`"));
    }
}
