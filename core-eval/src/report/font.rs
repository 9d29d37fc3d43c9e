//! The letters of plots and grids. The font is shipped, so that no system font is needed: DejaVu
//! Sans, see assets/DejaVuSans-LICENSE.txt.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use plotters::style::{FontStyle, register_font};

/// The name under which plots ask for it.
pub(super) const FAMILY: &str = "sans-serif";

static BYTES: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");

/// Makes the font known to the plotting library, once per process.
pub(super) fn register() -> Result<()> {
    static DONE: OnceLock<bool> = OnceLock::new();
    let done = *DONE.get_or_init(|| register_font(FAMILY, FontStyle::Normal, BYTES).is_ok());
    if done {
        Ok(())
    } else {
        Err(anyhow!("the shipped font cannot be read"))
    }
}

/// Words in lines of at most `width` letters; a longer word has a line of its own.
pub(super) fn wrapped(name: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in name.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn long_names_are_wrapped_between_words_by_their_letters() {
        let lines = wrapped("without context embedding regularization", 25);
        assert_eq!(lines, ["without context embedding", "regularization"]);
        assert_eq!(wrapped("CoRe", 25), ["CoRe"]);
        assert_eq!(wrapped("drei größere Gänse", 18), ["drei größere Gänse"]);
    }
}
