//! Heads of animals: skull, eyes, and what is worn.

use super::canvas::{Canvas, Rgb, ellipse, polyline, rounded};
use super::{Accessory, Pattern, Thing, View, pattern};

pub(super) const DARK: Rgb = [28, 22, 28];
pub(super) const LIGHT: Rgb = [252, 250, 246];

/// Centre and radius of a head, in units of the canvas.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) r: f32,
}

impl Head {
    /// The skull, with the markings that cover the whole animal.
    pub(super) fn skull(self, canvas: &mut Canvas, thing: &Thing, rx: f32, ry: f32) {
        let path = ellipse(self.x, self.y, rx, ry);
        canvas.fill(&path, thing.color.rgb());
        if matches!(
            thing.pattern,
            Pattern::Patches | Pattern::Half | Pattern::Stripes
        ) {
            pattern::draw(canvas, thing, &path);
            canvas.outline(&path, 1.0);
        }
    }

    /// Two eyes, at these fractions of the head's radius from its centre; equal fractions give one
    /// eye, for a head seen from the side.
    pub(super) fn eyes(self, canvas: &mut Canvas, thing: &Thing, across: [f32; 2], up: f32) {
        let Self { x, y, r } = self;
        let count = if across[0] == across[1] { 1 } else { 2 };
        for share in &across[..count] {
            let (cx, cy) = (x + share * r, y + up * r);
            match thing.eyes {
                0 => canvas.mark(&ellipse(cx, cy, r * 0.15, r * 0.19), DARK),
                1 => {
                    canvas.mark(&ellipse(cx, cy, r * 0.26, r * 0.28), LIGHT);
                    canvas.mark(
                        &ellipse(cx + r * 0.05, cy + r * 0.03, r * 0.16, r * 0.19),
                        DARK,
                    );
                }
                _ => {
                    canvas.mark(&ellipse(cx, cy, r * 0.21, r * 0.24), [60, 150, 90]);
                    canvas.mark(&ellipse(cx, cy, r * 0.09, r * 0.22), DARK);
                }
            }
            canvas.mark(
                &ellipse(cx - r * 0.05, cy - r * 0.08, r * 0.06, r * 0.06),
                LIGHT,
            );
        }
    }

    /// What the animal wears in this view.
    pub(super) fn wear(self, canvas: &mut Canvas, view: &View) {
        let Self { x, y, r } = self;
        match view.accessory {
            None => {}
            Some(Accessory::Hat) => {
                let black = [38, 34, 52];
                canvas.fill(
                    &rounded(x - r * 0.68, y - r * 1.85, r * 1.36, r * 1.15, 2.0),
                    black,
                );
                canvas.mark(
                    &rounded(x - r * 0.68, y - r * 1.12, r * 1.36, r * 0.3, 0.4),
                    [222, 60, 60],
                );
                canvas.fill(&ellipse(x, y - r * 0.76, r * 1.25, r * 0.24), black);
            }
            Some(Accessory::Scarf) => {
                let (red, cream) = ([206, 34, 58], [250, 240, 220]);
                let top = y + r * 0.78;
                canvas.fill(&rounded(x - r * 0.98, top, r * 1.86, r * 0.55, 3.0), red);
                canvas.fill(
                    &rounded(x - r * 0.85, top + r * 0.4, r * 0.62, r * 1.3, 2.0),
                    red,
                );
                for share in [0.55, 0.95, 1.35] {
                    canvas.mark(
                        &rounded(x - r * 0.85, top + r * share, r * 0.62, r * 0.17, 0.4),
                        cream,
                    );
                }
                for share in [-0.6, -0.05, 0.5] {
                    canvas.mark(&rounded(x + r * share, top, r * 0.2, r * 0.55, 0.4), cream);
                }
            }
            Some(Accessory::Glasses) => {
                let frame = [20, 20, 24];
                for share in [-0.36, 0.6] {
                    let lens = ellipse(x + share * r, y - r * 0.14, r * 0.42, r * 0.4);
                    canvas.mark(&lens, [150, 206, 236]);
                    canvas.line(&lens, frame, 2.8);
                }
                canvas.line(
                    &polyline(&[[x + r * 0.05, y - r * 0.16], [x + r * 0.2, y - r * 0.16]]),
                    frame,
                    2.6,
                );
            }
        }
    }
}
