//! Kinds of evaluation prompts, under all the names they go by.

/// The kind of prompts that leave the concept out.
const UNRELATED: &str = "unrelated";

/// Whether prompts of this kind leave the concept out.
pub fn is_unrelated(name: &str) -> bool {
    canonical(name) == Some(UNRELATED)
}

/// The kinds of the paper's evaluation prompts, what faces show, and the unrelated ones, each with
/// other names for it.
const KINDS: [(&str, &[&str]); 8] = [
    ("plain", &[]),
    ("background", &["background change"]),
    ("colour", &["color", "colour change", "color change"]),
    ("style", &["artistic style", "stylisation", "stylization"]),
    ("action", &["action change"]),
    ("outfit", &["outfit change"]),
    ("expression", &["expression change"]),
    (UNRELATED, &[]),
];

/// The kind of a name, whatever its case.
pub(super) fn canonical(name: &str) -> Option<&'static str> {
    let name = name.trim().to_lowercase().replace(['-', '_'], " ");
    KINDS
        .iter()
        .find(|(kind, others)| *kind == name || others.contains(&name.as_str()))
        .map(|(kind, _)| *kind)
}

/// The first names of all kinds.
pub(super) fn names() -> String {
    KINDS.map(|(kind, _)| kind).join(", ")
}
