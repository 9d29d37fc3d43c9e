//! A bird, seen from the side.

use super::canvas::{Canvas, ellipse, leaf, mix, polygon, polyline, turned_ellipse};
use super::head::Head;
use super::{Thing, View, pattern};

/// Draws a bird, facing right.
pub(super) fn draw(canvas: &mut Canvas, thing: &Thing, view: &View) {
    canvas.shadow([50.0, 90.0], [28.0, 4.5]);
    let [wide, high, big, wing, long_legs, long_tail, beak] = thing.proportions;
    let color = thing.color.rgb();
    let leg = 10.0 * long_legs;
    let (rx, ry) = (22.0 * wide, 18.5 * high);
    let (x, y) = (44.0, 87.0 - leg - ry * 0.85);
    let orange = [244, 150, 40];
    for dx in [-4.0, 7.0] {
        let foot = x + dx + 2.0 * (view.gait - 0.5);
        canvas.line(
            &polyline(&[[x + dx, y + ry * 0.8], [foot, 88.0], [foot + 5.0, 88.0]]),
            orange,
            2.4,
        );
    }
    let tail_x = x - rx * 0.8;
    for spread in [-7.0, 0.0, 7.0] {
        let tip = [tail_x - 17.0 * long_tail, y + spread - 6.0];
        canvas.fill(
            &leaf(
                [tail_x + 6.0, y - 4.0],
                [tail_x - 8.0, y + spread - 12.0],
                tip,
                [tail_x - 4.0, y + spread + 4.0],
            ),
            thing.third,
        );
    }
    let body = ellipse(x, y, rx, ry);
    canvas.fill(&body, color);
    pattern::draw(canvas, thing, &body);
    canvas.outline(&body, 1.0);
    let r = 14.5 * big;
    let head = Head {
        x: x + rx * 0.66,
        y: y - ry * 0.62 - r * 0.42,
        r,
    };
    let lift = 9.0 * (view.gait - 0.4);
    let wing_path = leaf(
        [x + rx * 0.3, y - ry * 0.25],
        [x - rx * 0.2, y - ry * 0.9],
        [x - rx * 0.85 * wing, y + ry * 0.35 - lift],
        [x + rx * 0.1, y + ry * 0.75],
    );
    canvas.fill(&wing_path, mix(color, thing.second, 0.6));
    let r = head.r;
    if thing.variant == 1 {
        for dx in [-0.4, 0.0, 0.4] {
            canvas.fill(
                &turned_ellipse(
                    head.x + dx * r,
                    head.y - r * 1.15,
                    r * 0.17,
                    r * 0.5,
                    dx * 60.0,
                ),
                thing.second,
            );
        }
    }
    let (length, hook) = [(1.0, 0.0), (0.75, 0.1), (1.25, 0.25)][usize::from(thing.variant)];
    let beak_root = head.x + r * 0.7;
    canvas.fill(
        &polygon(&[
            [beak_root, head.y - r * 0.3],
            [
                beak_root + r * 0.95 * length * beak,
                head.y + r * (0.12 + hook),
            ],
            [beak_root, head.y + r * 0.48],
        ]),
        orange,
    );
    head.skull(canvas, thing, r, r * 0.96);
    head.eyes(canvas, thing, [0.36, 0.36], -0.12);
    head.wear(canvas, view);
}
