//! The letters of figures. The font is shipped, so that no system font is needed: DejaVu Sans, see
//! assets/DejaVuSans-LICENSE.txt.

use std::sync::OnceLock;

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};
use anyhow::{Context, Result, anyhow};
use plotters::style::{FontStyle, register_font};

/// The name under which figures ask for it.
pub(super) const FAMILY: &str = "sans-serif";

/// How many pixels of a text's size one em has, as in the plotting library's SVG files.
const SIZE_PER_EM: f64 = 1.24;

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

/// A line of text whose letters stand where the font says, at fractions of pixels and with kerning.
pub(super) struct Line {
    font: FontRef<'static>,
    glyphs: Vec<Glyph>,
    /// Its length in pixels.
    pub(super) width: f32,
    /// Pixels of one em.
    pub(super) em: f32,
}

impl Line {
    /// Sets a text of a size as the plotting library counts it.
    pub(super) fn set(text: &str, size: f64) -> Result<Self> {
        let font = FontRef::try_from_slice(BYTES).context("the shipped font")?;
        let em = (size / SIZE_PER_EM) as f32;
        let units = font.units_per_em().unwrap_or(2048.0);
        let scale = PxScale::from(em * font.height_unscaled() / units);
        let scaled = font.as_scaled(scale);
        let (mut glyphs, mut x) = (Vec::new(), 0.0);
        let mut last = None;
        for letter in text.chars() {
            let id = font.glyph_id(letter);
            if let Some(last) = last {
                x += scaled.kern(last, id);
            }
            glyphs.push(id.with_scale_and_position(scale, point(x, 0.0)));
            x += scaled.h_advance(id);
            last = Some(id);
        }
        Ok(Self {
            font,
            glyphs,
            width: x,
            em,
        })
    }

    /// Calls back with the coverage of every pixel that a letter touches; the baseline begins at the
    /// origin.
    pub(super) fn draw(&self, mut on_pixel: impl FnMut(i32, i32, f32)) {
        for glyph in &self.glyphs {
            let Some(outline) = self.font.outline_glyph(glyph.clone()) else {
                continue;
            };
            let corner = outline.px_bounds().min;
            outline.draw(|x, y, coverage| {
                on_pixel(
                    corner.x as i32 + x as i32,
                    corner.y as i32 + y as i32,
                    coverage,
                );
            });
        }
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
    use super::*;

    #[test]
    fn long_names_are_wrapped_between_words_by_their_letters() {
        let lines = wrapped("without context embedding regularization", 25);
        assert_eq!(lines, ["without context embedding", "regularization"]);
        assert_eq!(wrapped("CoRe", 25), ["CoRe"]);
        assert_eq!(wrapped("drei größere Gänse", 18), ["drei größere Gänse"]);
    }

    #[test]
    fn letters_are_kerned_and_stand_at_fractions_of_pixels() {
        let width = |text: &str| Line::set(text, 14.0).expect("a line").width;
        assert!(width("AV") < width("A") + width("V"));
        let sum: f32 = "class".chars().map(|c| width(&c.to_string())).sum();
        assert!((width("class") - sum).abs() < 0.5, "no pixel is rounded");
    }
}
