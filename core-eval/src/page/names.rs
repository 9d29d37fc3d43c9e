//! Names that are numbers in the data of a page.

use indexmap::IndexSet;

/// Names in order of first appearance.
#[derive(Debug, Default)]
pub(super) struct Names(IndexSet<String>);

impl Names {
    /// The number of a name, which is added when it is new.
    pub(super) fn number(&mut self, name: &str) -> usize {
        match self.0.get_index_of(name) {
            Some(number) => number,
            None => self.0.insert_full(name.to_string()).0,
        }
    }

    /// All names by number.
    pub(super) fn list(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}
