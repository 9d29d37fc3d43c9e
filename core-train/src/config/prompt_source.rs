//! Where prompt templates come from.

use std::path::{Path, PathBuf};

use core_model::files::read_to_string;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::concept::Group;
use super::paths;
use crate::error::{Error, Result};

/// Templates, one per line, for stages that name none.
const ANIMATE: &str = include_str!("../../../experiments/prompts/regularization-animate.txt");
const INANIMATE: &str = include_str!("../../../experiments/prompts/regularization-inanimate.txt");

/// Prompt templates, in which `{}` stands for the concept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a text file with one template per line, a list of templates, or \
                 { animate = FILE, inanimate = FILE }"
)]
pub enum PromptSource {
    /// The templates themselves.
    List(Vec<String>),
    /// A text file with one template per line; empty lines and lines that start with `#` are ignored.
    File(PathBuf),
    /// One file per group of concepts, so that one recipe serves both.
    ByGroup {
        /// The file for animals and people.
        animate: PathBuf,
        /// The file for everything else.
        inanimate: PathBuf,
    },
}

impl PromptSource {
    /// The project's own regularisation prompts for a group.
    pub fn default_regularization(group: Group) -> Self {
        Self::List(lines(match group {
            Group::Animate => ANIMATE,
            Group::Inanimate => INANIMATE,
        }))
    }

    /// The same source with its files read, relative to `base`.
    ///
    /// # Errors
    /// An unreadable file, or a source by group for a concept without group.
    pub(super) fn read(
        &self,
        base: &Path,
        group: Option<Group>,
        refuse: impl Fn(String) -> Error,
    ) -> Result<Self> {
        let file = match (self, group) {
            (Self::List(_), _) => return Ok(self.clone()),
            (Self::File(file), _) => file,
            (Self::ByGroup { animate, .. }, Some(Group::Animate)) => animate,
            (Self::ByGroup { inanimate, .. }, Some(Group::Inanimate)) => inanimate,
            (Self::ByGroup { .. }, None) => {
                let reason = "depends on the concept's group; \
                              give `concept.group` as \"animate\" or \"inanimate\"";
                return Err(refuse(reason.into()));
            }
        };
        let templates = lines(&read_to_string(&paths::resolve(base, file))?);
        if templates.is_empty() {
            return Err(refuse(format!("names {}, which is empty", file.display())));
        }
        Ok(Self::List(templates))
    }

    /// The templates.
    ///
    /// # Panics
    /// When files were not read yet: [`RunConfig::complete`](super::RunConfig::complete) does.
    pub fn templates(&self) -> &[String] {
        match self {
            Self::List(templates) => templates,
            Self::File(_) | Self::ByGroup { .. } => {
                panic!("prompt files are read when the configuration is completed")
            }
        }
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(String::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_groups_have_a_hundred_default_templates() {
        for group in [Group::Animate, Group::Inanimate] {
            let source = PromptSource::default_regularization(group);
            let templates = source.templates();
            assert_eq!(templates.len(), 100);
            for template in templates {
                assert_eq!(template.matches("{}").count(), 1, "{template}");
            }
        }
    }

    #[test]
    fn empty_lines_and_comments_are_no_templates() {
        assert_eq!(lines("# a\n\n a {} \r\nthe {}"), ["a {}", "the {}"]);
    }
}
