//! Which networks ran, and how often.

use std::fmt;

use indexmap::IndexMap;

/// Counts by kind of work, such as `images read by DINO`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage(IndexMap<String, u64>);

impl Usage {
    /// Adds to the count of a kind of work.
    pub fn count(&mut self, what: &str, count: u64) {
        if count > 0 {
            *self.0.entry(what.to_string()).or_default() += count;
        }
    }

    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            self.count(what, *count);
        }
    }

    /// Whether no network ran.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none, everything was there");
        }
        let counts: Vec<String> = self
            .0
            .iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        f.write_str(&counts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_by_kind_and_none_is_said() {
        let mut usage = Usage::default();
        usage.count("images generated", 0);
        assert_eq!(usage.to_string(), "none, everything was there");
        usage.count("images generated", 2);
        let mut other = Usage::default();
        other.count("texts read by CLIP", 1);
        other.count("images generated", 3);
        usage.add(&other);
        assert_eq!(
            usage.to_string(),
            "5 images generated, 1 texts read by CLIP"
        );
    }
}
