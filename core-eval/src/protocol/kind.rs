//! Kinds of evaluation prompts, under all the names they go by.

/// The kinds of the paper's evaluation prompts, each with other names for it.
const KINDS: [(&str, &[&str]); 6] = [
    ("plain", &[]),
    ("background", &["background change"]),
    ("colour", &["color", "colour change", "color change"]),
    ("style", &["artistic style", "stylisation", "stylization"]),
    ("action", &["action change"]),
    ("outfit", &["outfit change"]),
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
