//! Markings on a shape, at positions drawn from the thing's own seed.

use core_model::rng::rng;
use rand::RngExt;
use tiny_skia::Path;

use super::canvas::{Canvas, ellipse, polygon, turned_ellipse};
use super::{Pattern, Thing};

/// Draws the markings of a thing inside one of its shapes.
pub(super) fn draw(canvas: &mut Canvas, thing: &Thing, shape: &Path) {
    let bounds = shape.bounds();
    let (left, top, width, height) = (bounds.left(), bounds.top(), bounds.width(), bounds.height());
    let at = |x: f32, y: f32| [left + x * width, top + y * height];
    let mut generator = rng(thing.pattern_seed, "pattern", 0);
    let color = thing.second;
    match thing.pattern {
        Pattern::None => {}
        Pattern::Spots => {
            let size = generator.random_range(3.0..5.0);
            for row in 0..3 {
                for column in 0..4 {
                    let [x, y] = at(
                        (column as f32 + generator.random_range(0.1..0.9)) / 4.0,
                        (row as f32 + generator.random_range(0.1..0.9)) / 3.0,
                    );
                    canvas.mark_inside(&ellipse(x, y, size, size), shape, color);
                }
            }
        }
        Pattern::Stripes => {
            let slant = generator.random_range(-0.3..0.3);
            let count = generator.random_range(4..6);
            for stripe in 0..count {
                let x = (stripe as f32 + 0.3) / count as f32;
                let stripe_width = 0.45 / count as f32;
                let corners = [
                    at(x + slant, -0.1),
                    at(x + stripe_width + slant, -0.1),
                    at(x + stripe_width - slant, 1.1),
                    at(x - slant, 1.1),
                ];
                canvas.mark_inside(&polygon(&corners), shape, color);
            }
        }
        Pattern::Patches => {
            for _ in 0..3 {
                let [x, y] = at(
                    generator.random_range(0.0..1.0),
                    generator.random_range(0.0..1.0),
                );
                let (rx, ry) = (
                    width * generator.random_range(0.16..0.3),
                    height * generator.random_range(0.16..0.3),
                );
                let turn = generator.random_range(0.0..180.0);
                canvas.mark_inside(&turned_ellipse(x, y, rx, ry, turn), shape, color);
            }
        }
        Pattern::Half => {
            let from_side = generator.random::<bool>();
            let corners = if from_side {
                [at(0.5, -0.1), at(1.1, -0.1), at(1.1, 1.1), at(0.5, 1.1)]
            } else {
                [at(-0.1, 0.5), at(1.1, 0.5), at(1.1, 1.1), at(-0.1, 1.1)]
            };
            canvas.mark_inside(&polygon(&corners), shape, color);
        }
        Pattern::Belly => {
            let [x, y] = at(0.5, 0.72);
            canvas.mark_inside(&ellipse(x, y, 0.3 * width, 0.36 * height), shape, color);
        }
    }
}
