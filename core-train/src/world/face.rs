//! What a face shows: ears, beard, marks, eyes, nose, mouth, and glasses.

use super::canvas::{Canvas, Rgb, curve, ellipse, leaf, mix, polygon, polyline};
use super::people::{IRISES, LIPS};
use super::portrait::{Head, Spot};
use super::{Beard, Mark, hair};

/// What faces the observer less than this is hidden.
const HIDDEN: f32 = 0.12;

const DARK: Rgb = [24, 18, 24];

/// Draws the features of a face onto its skin.
pub(super) fn draw(canvas: &mut Canvas, head: &Head) {
    ears(canvas, head);
    cheeks(canvas, head);
    beard(canvas, head);
    mark(canvas, head);
    for side in [-1.0, 1.0] {
        eye(canvas, head, side);
    }
    mouth(canvas, head);
    moustache(canvas, head);
    nose(canvas, head);
}

fn ears(canvas: &mut Canvas, head: &Head) {
    if hair::covers_ears(head) {
        return;
    }
    let ([x, y], [w, _]) = (head.center, head.half);
    for side in [-1.0_f32, 1.0] {
        let angle = (side * 90.0 + head.pose.yaw * 80.0).to_radians();
        if angle.cos() < -0.2 {
            continue;
        }
        let wide = 2.6 * head.face.ears * (1.0 + 0.5 * angle.cos().max(0.0));
        let high = 4.6 * head.face.ears;
        let x = x + w * angle.sin() - 2.0 * head.turn;
        canvas.fill(&ellipse(x, y + 3.5, wide, high), head.shade());
        let inner = mix(head.shade(), [110, 40, 40], 0.25);
        canvas.mark(&ellipse(x, y + 3.8, 0.45 * wide, 0.55 * high), inner);
    }
}

/// Smiling cheeks are redder.
fn cheeks(canvas: &mut Canvas, head: &Head) {
    let blush = mix(head.skin(), [226, 84, 84], 0.28 * head.pose.smile.max(0.0));
    for side in [-0.55, 0.55] {
        let Spot { x, y, facing } = head.at(side, 0.26);
        if facing > HIDDEN {
            canvas.mark(&ellipse(x, y, 4.2 * facing.max(0.4), 3.0), blush);
        }
    }
}

fn beard(canvas: &mut Canvas, head: &Head) {
    let color = hair::color(head);
    match head.face.beard {
        Beard::None | Beard::Moustache => {}
        Beard::Goatee => {
            let Spot { x, y, facing } = head.at(0.0, 0.86);
            canvas.fill(&ellipse(x, y + 1.0, 5.4 * facing.max(0.55), 5.0), color);
        }
        Beard::Full => {
            let rim = head.oval(1.07);
            // From the right ear along the chin to the left one, then back below nose and cheeks.
            let mut points = rim[9..=31].to_vec();
            points.extend(head.across(|u| 0.42 - 0.50 * u * u));
            canvas.fill(&polygon(&points), color);
        }
    }
}

fn mark(canvas: &mut Canvas, head: &Head) {
    let Spot { x, y, facing } = head.at(head.face.mark_at[0], head.face.mark_at[1]);
    let is_seen = facing > HIDDEN;
    match head.face.mark {
        Mark::Mole if is_seen => canvas.mark(&ellipse(x, y, 1.5, 1.5), [58, 34, 28]),
        Mark::Scar if is_seen => {
            let light = mix(head.skin(), [255, 190, 180], 0.65);
            let line = [[x - 2.0 * facing, y - 4.0], [x + 1.2 * facing, y + 4.0]];
            canvas.line(&polyline(&line), light, 1.5);
        }
        Mark::Freckles => {
            let dark = mix(head.skin(), [70, 24, 16], 0.5);
            for (index, u) in [-0.60, -0.38, -0.16, 0.16, 0.38, 0.60]
                .into_iter()
                .enumerate()
            {
                let spot = head.at(u, if index % 3 == 1 { 0.25 } else { 0.15 });
                if spot.facing > HIDDEN {
                    canvas.mark(&ellipse(spot.x, spot.y, 1.0, 0.9), dark);
                }
            }
        }
        Mark::None | Mark::Mole | Mark::Scar => {}
    }
}

/// An eye that is seen: its middle, half of its width and half of its height.
struct Eye {
    x: f32,
    y: f32,
    wide: f32,
    high: f32,
    /// Its width as a share of that from the front.
    narrow: f32,
}

impl Eye {
    /// The eye on the left (-1) or on the right (1) of a face seen from the front.
    fn seen(head: &Head, side: f32) -> Option<Self> {
        let size = head.face.eyes;
        let (u, half) = (side * 0.42 * head.face.gap, 3.9 * size);
        let [left, right] = [-1.0, 1.0].map(|end| head.at(u + end * half / head.half[0], -0.08));
        let wide = (right.x - left.x) / 2.0;
        let eye = Self {
            x: (left.x + right.x) / 2.0,
            y: left.y,
            wide,
            high: 2.7 * size,
            narrow: wide / half,
        };
        (eye.narrow > 0.3).then_some(eye)
    }
}

fn eye(canvas: &mut Canvas, head: &Head, side: f32) {
    let Some(Eye {
        x,
        y,
        wide,
        high,
        narrow,
    }) = Eye::seen(head, side)
    else {
        return;
    };
    canvas.mark(&ellipse(x, y, wide, high), [252, 250, 246]);
    let iris = IRISES[usize::from(head.face.iris)];
    let (ix, size) = (x + 1.1 * narrow * head.turn, 0.8 * high);
    canvas.mark(&ellipse(ix, y, size * narrow, size), iris);
    canvas.mark(&ellipse(ix, y, 0.5 * size * narrow, 0.5 * size), DARK);
    let shine = ix + 0.9 * narrow * head.pose.light_from;
    canvas.mark(&ellipse(shine, y - 0.9, 0.7, 0.7), [255; 3]);
    let lid = curve([x - wide, y], [x, y - 2.0 * high], [x + wide, y]);
    canvas.line(&lid, mix(head.skin(), DARK, 0.75), 1.1);
    brow(canvas, head, side);
}

fn brow(canvas: &mut Canvas, head: &Head, side: f32) {
    let (face, pose) = (head.face, head.pose);
    let frown = (-pose.smile).max(0.0);
    let tilt = side * (6.0 * face.brow_tilt + 2.4 * frown);
    let up = 5.4 * face.eyes + 1.4 * pose.lift - 1.2 * frown;
    let at = |across: f32, lift: f32| {
        let Spot { x, y, .. } = head.at(side * 0.42 * face.gap + across, -0.08);
        [x, y - up - lift]
    };
    let line = curve(at(-0.29, -tilt), at(0.0, 1.4), at(0.29, tilt));
    let color = mix(hair::color(head), [30, 20, 20], 0.3);
    canvas.line(&line, color, 1.9 * face.brows);
}

/// A nose is seen by its shadow, and beyond the outline when the face turns.
fn nose(canvas: &mut Canvas, head: &Head) {
    let Spot { x, y, facing } = head.at(0.0, 0.02 + 0.20 * head.face.nose_length);
    let turn = head.turn;
    let (wide, far, lift) = match head.face.nose {
        0 => (2.5, 6.0, 0.0),
        1 => (2.3, 9.0, 1.2),
        _ => (4.1, 6.5, -0.6),
    };
    let long = 7.0 * head.face.nose_length;
    let tip = [x + far * turn, y + 1.2 + lift];
    let bridge = [x - 0.5 * turn, y - long];
    if turn.abs() > 0.3 {
        let under = [x - 0.5 * turn, y + 4.0];
        let shape = leaf(bridge, [x + 0.15 * far * turn, y - 0.3 * long], tip, under);
        canvas.mark(&polygon(&[bridge, tip, under]), head.skin());
        canvas.mark(&shape, head.skin());
    }
    let ridge = curve(bridge, [x + 0.2 * far * turn, y - 0.3 * long], tip);
    canvas.line(&ridge, head.shade(), 1.1);
    let wide = wide * facing.max(0.5);
    let x = x + 0.55 * far * turn;
    let shadow = mix(head.skin(), [70, 20, 30], 0.3);
    canvas.mark(&ellipse(x, y + 2.4, wide, 1.7), shadow);
    for side in [-0.5, 0.5] {
        let nostril = ellipse(x + side * wide, y + 2.9, 0.7, 0.6);
        canvas.mark(&nostril, mix(head.skin(), DARK, 0.65));
    }
}

/// The left corner of the mouth, its middle and its right corner; `wide` is 1 for the lips.
fn lips(head: &Head, wide: f32) -> [[f32; 2]; 3] {
    [-1.0, 0.0, 1.0].map(|side: f32| {
        let Spot { x, y, .. } = head.at(side * wide * 0.42 * head.face.mouth, 0.54);
        let rise = 1.9 * side.abs() - 3.4 * (1.0 - side.abs());
        [x - lips_back(head), y - rise * head.pose.smile]
    })
}

/// The mouth lies a little behind the roundest part of the face.
fn lips_back(head: &Head) -> f32 {
    0.05 * head.half[0] * head.turn
}

fn mouth(canvas: &mut Canvas, head: &Head) {
    let [left, middle, right] = lips(head, 1.0);
    let (smile, open) = (head.pose.smile, head.pose.open);
    let color = LIPS[usize::from(head.face.lips)];
    if open > 0.1 {
        let drop = |far: f32| [middle[0] - 1.5 * head.turn, middle[1] + far];
        let low = drop(3.0 + 9.0 * open + 2.0 * (-smile).max(0.0));
        canvas.mark(&leaf(left, middle, right, low), [96, 22, 34]);
        if smile > 0.0 {
            let teeth = leaf(left, middle, right, drop(3.0 + 2.0 * open));
            canvas.mark(&teeth, [252, 248, 240]);
        }
        canvas.line(&curve(left, low, right), color, 1.7);
    }
    canvas.line(&curve(left, middle, right), color, 2.1);
}

fn moustache(canvas: &mut Canvas, head: &Head) {
    if !matches!(head.face.beard, Beard::Moustache | Beard::Full) {
        return;
    }
    let [left, _, right] = lips(head, 1.15);
    let Spot { x, y, .. } = head.at(0.0, 0.54);
    let root = [x - lips_back(head), y - 3.6];
    for end in [left, right] {
        let pull = [(root[0] + end[0]) / 2.0, root[1] - 1.4];
        let line = curve(root, pull, [end[0], end[1] - 1.2]);
        canvas.line(&line, hair::color(head), 2.8);
    }
}

pub(super) fn glasses(canvas: &mut Canvas, head: &Head) {
    let frame = [20, 20, 24];
    let mut inner = Vec::new();
    for side in [-1.0, 1.0] {
        let Some(Eye { x, y, narrow, .. }) = Eye::seen(head, side) else {
            continue;
        };
        let wide = (4.7 + 1.4 * head.face.eyes) * narrow.max(0.45);
        canvas.line(&ellipse(x, y, wide, 6.2), frame, 1.7);
        inner.push([x - side * wide, y]);
        // The arm reaches back to the ear.
        let ear = head.at(side * 0.97, -0.1);
        if ear.facing > 0.0 {
            canvas.line(
                &polyline(&[[x + side * wide, y], [ear.x, ear.y]]),
                frame,
                1.4,
            );
        }
    }
    if inner.len() == 1 {
        let bridge = head.at(0.0, -0.08);
        inner.push([bridge.x + head.turn, bridge.y]);
    }
    canvas.line(&polyline(&inner), frame, 1.6);
}
