//! The eight hair styles. Hair lies behind the face, around it and over the forehead.

use tiny_skia::Path;

use super::Hair;
use super::canvas::{Canvas, Rgb, ellipse, mix, polygon, rounded};
use super::people::HAIRS;
use super::portrait::Head;

/// Angles of spikes and curls about the middle of the head, in degrees from the crown.
const SPIKES: [f32; 7] = [-78.0, -54.0, -30.0, -8.0, 14.0, 36.0, 56.0];

/// The colour of a person's hair.
pub(super) fn color(head: &Head) -> Rgb {
    HAIRS[usize::from(head.face.hair_color)]
}

/// Whether the hair falls over the ears.
pub(super) fn covers_ears(head: &Head) -> bool {
    matches!(head.face.hair, Hair::Bob | Hair::Long)
}

/// The hair behind neck and shoulders.
pub(super) fn behind(canvas: &mut Canvas, head: &Head, under_hat: bool) {
    let ([x, y], [w, h], color) = (head.center, head.half, color(head));
    let (back, half) = (
        x - 0.42 * w * head.turn,
        w * (1.28 - 0.28 * head.turn.abs()),
    );
    match head.face.hair {
        Hair::Bob => canvas.fill(&ellipse(back, y + 4.0, 1.02 * half, 1.06 * h), color),
        Hair::Long => canvas.fill(
            &rounded(back - half, y - 0.9 * h, 2.0 * half, 2.9 * h, 0.85 * half),
            color,
        ),
        Hair::Bun if !under_hat => {
            let knot = ellipse(x - 11.0 * head.turn, y - 1.10 * h, 9.0, 8.5);
            canvas.fill(&knot, color);
        }
        Hair::Curled => {
            let curls = curls(head, 13, [-118.0, 118.0], [1.12, 1.06], 6.6);
            canvas.fill_together(&curls, color);
        }
        _ => {}
    }
}

/// Circles around the skull, from one angle to another.
fn curls(head: &Head, count: usize, angles: [f32; 2], far: [f32; 2], radius: f32) -> Vec<Path> {
    let ([x, y], [w, h]) = head.skull();
    let step = (angles[1] - angles[0]) / (count - 1) as f32;
    let around = (0..count).map(|index| (angles[0] + step * index as f32).to_radians());
    around
        .map(|angle| {
            ellipse(
                x + far[0] * w * angle.sin(),
                y - far[1] * h * angle.cos(),
                radius,
                radius,
            )
        })
        .collect()
}

/// The skull, of hair or bare, and the face before it.
pub(super) fn skull_and_face(canvas: &mut Canvas, head: &Head) {
    let ([x, y], [w, h]) = head.skull();
    let skull = ellipse(x, y, w, h);
    let oval = polygon(&head.oval(1.0));
    match head.face.hair {
        Hair::Bald => canvas.fill_together(&[skull, oval], head.skin()),
        Hair::Crest => {
            canvas.fill_together(&[skull, oval.clone()], stubble(head));
            canvas.mark(&oval, head.skin());
        }
        _ => {
            canvas.fill(&skull, color(head));
            canvas.fill(&oval, head.skin());
        }
    }
}

/// Skin under shaved hair.
fn stubble(head: &Head) -> Rgb {
    mix(head.skin(), color(head), 0.4)
}

/// The hair over the forehead and beside the face.
pub(super) fn front(canvas: &mut Canvas, head: &Head, under_hat: bool) {
    let color = color(head);
    match head.face.hair {
        Hair::Bald => {}
        Hair::Cropped => canvas.fill(&cap(head, 1.0, |u| -0.68 + 0.40 * u.powi(4)), color),
        Hair::Parted => canvas.fill(&cap(head, 1.18, parted), color),
        Hair::Curled => {
            let mut shapes = vec![cap(head, 1.0, |u| -0.60 + 0.25 * u * u)];
            shapes.extend(curls(head, 7, [-66.0, 66.0], [0.90, 0.80], 5.6));
            for point in head.across(|u| -0.62 + 0.25 * u * u).iter().step_by(2) {
                shapes.push(ellipse(point[0], point[1], 4.6, 4.6));
            }
            canvas.fill_together(&shapes, color);
        }
        Hair::Bob => {
            locks(canvas, head, 0.72, color);
            canvas.fill(&cap(head, 1.06, |_| -0.40), color);
        }
        Hair::Long => {
            locks(canvas, head, 1.75, color);
            canvas.fill(&cap(head, 1.04, |u| -0.88 + 0.76 * u.abs()), color);
        }
        Hair::Bun => canvas.fill(&cap(head, 1.0, |u| -0.78 + 0.50 * u * u), color),
        Hair::Crest => {
            canvas.mark(&cap(head, 1.0, |u| -0.72 + 0.45 * u * u), stubble(head));
            if !under_hat {
                canvas.fill_together(&spikes(head), color);
            }
        }
    }
}

/// The hairline of hair combed from a parting to one side.
fn parted(u: f32) -> f32 {
    let parting = 0.45;
    match u < parting {
        true => -0.90 + 0.62 * ((parting - u) / 1.4).powf(0.8),
        false => -0.90 + 0.95 * (u - parting),
    }
}

/// The hair between the hairline, given for every place across the face, and the top of the skull,
/// which is `volume` times as high as the bare one.
fn cap(head: &Head, volume: f32, hairline: impl Fn(f32) -> f32) -> Path {
    let mut points = head.across(hairline);
    let ([x, y], [w, h]) = head.skull();
    let (w, h) = (1.02 * w, 1.03 * h * volume);
    let angle_at = |height: f32| ((y - height) / h).clamp(-1.0, 1.0).acos();
    let ends = [points.first(), points.last()].map(|end| end.map_or(0.0, |point| point[1]));
    let (left, right) = (-angle_at(ends[0]), angle_at(ends[1]));
    points.extend((0..=14).map(|step| {
        let angle = right + (left - right) * step as f32 / 14.0;
        [x + w * angle.sin(), y - h * angle.cos()]
    }));
    polygon(&points)
}

/// Hair that falls beside the face, to this many half heights below the middle of the head.
fn locks(canvas: &mut Canvas, head: &Head, length: f32, color: Rgb) {
    let ([x, y], [w, h]) = (head.center, head.half);
    // The near side covers the far one.
    let near = if head.turn < 0.0 { 1.0_f32 } else { -1.0 };
    for side in [-near, near] {
        let angle = (side * 78.0 + head.pose.yaw * 80.0).to_radians();
        if angle.cos() < -0.35 {
            continue;
        }
        // From the side it reaches to the back of the head.
        let near = angle.cos().max(0.0);
        let half = w * (0.14 + 0.60 * near);
        let middle = x + w * angle.sin() - 0.50 * w * near * head.turn;
        let top = y - 0.5 * h;
        let path = rounded(middle - half, top, 2.0 * half, (length + 0.5) * h, half);
        canvas.fill(&path, color);
    }
}

/// Spikes along the middle of the head: one behind the other from the front, a fan from the side.
fn spikes(head: &Head) -> Vec<Path> {
    let ([x, y], [w, h]) = head.skull();
    let spikes = SPIKES.iter().map(|degrees| degrees.to_radians());
    spikes
        .map(|angle| {
            // Positive angles lie towards the face.
            let (out, up) = (angle.sin() * head.turn, angle.cos());
            let point = |far: f32, aside: f32| {
                [
                    x + w * far * out + aside * up,
                    y - h * far * up + aside * out,
                ]
            };
            polygon(&[point(0.80, -5.0), point(1.0 + 0.42, 0.0), point(0.80, 5.0)])
        })
        .collect()
}
