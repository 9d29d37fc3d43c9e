//! Portraits: a head that turns, on a neck and shoulders, and what is worn.

use super::canvas::{Canvas, Lamp, Rgb, ellipse, leaf, mix, polygon, polyline, rounded};
use super::people::SKINS;
use super::{Accessory, Face, Pose, View, face, hair};

#[cfg(test)]
mod tests;

/// Degrees of a [`Pose::yaw`] of 1.
const YAW: f32 = 80.0;

/// Points beyond this sine of their angle to the middle of the face are not drawn on it.
const RIM: f32 = 0.97;

/// A head in one pose, in units of the canvas.
pub(super) struct Head<'a> {
    pub(super) face: &'a Face,
    pub(super) pose: &'a Pose,
    /// Half of the width and half of the height of the face.
    pub(super) half: [f32; 2],
    /// The middle of the head.
    pub(super) center: [f32; 2],
    /// Sine of the turn: 0 from the front, 1 for a face that looks to the right.
    pub(super) turn: f32,
    angle: f32,
}

/// A point of the face on the canvas.
pub(super) struct Spot {
    pub(super) x: f32,
    pub(super) y: f32,
    /// Cosine of the angle to the observer: 1 for what faces the observer, 0 at the rim.
    pub(super) facing: f32,
}

impl<'a> Head<'a> {
    fn new(face: &'a Face, pose: &'a Pose) -> Self {
        let angle = pose.yaw * YAW.to_radians();
        Self {
            face,
            pose,
            half: [17.0 * face.width, 21.0 * face.height],
            center: [50.0, 43.0 + 0.5 * pose.pitch],
            turn: angle.sin(),
            angle,
        }
    }

    /// The point at `u` half widths to the right of the middle of the face and `v` half heights below.
    pub(super) fn at(&self, u: f32, v: f32) -> Spot {
        let angle = u.clamp(-RIM, RIM).asin() + self.angle;
        // Forehead and chin recede, and what is hidden lies at the rim.
        let radius = 0.96 - 1.8 * (v - 0.5).max(0.0).powi(2) - 0.9 * (-0.3 - v).max(0.0).powi(2);
        let quarter = std::f32::consts::FRAC_PI_2;
        Spot {
            x: self.center[0] + radius * self.half[0] * angle.clamp(-quarter, quarter).sin(),
            y: self.center[1] + 3.0 + v * self.half[1] + 1.6 * self.pose.pitch,
            facing: angle.cos(),
        }
    }

    /// A line across the visible part of the face, from left to right, at the height that a function
    /// gives for every `u`.
    pub(super) fn across(&self, height: impl Fn(f32) -> f32) -> Vec<[f32; 2]> {
        let quarter = std::f32::consts::FRAC_PI_2;
        let seen = |angle: f32| (angle - self.angle).clamp(-quarter, quarter).sin();
        let (left, right) = (seen(-quarter).max(-RIM), seen(quarter).min(RIM));
        let points = (0..=12).map(|step| left + (right - left) * step as f32 / 12.0);
        points
            .map(|u| {
                let Spot { x, y, .. } = self.at(u, height(u));
                [x, y]
            })
            .collect()
    }

    /// The outline of the face at `share` of its size: clockwise from the forehead.
    pub(super) fn oval(&self, share: f32) -> Vec<[f32; 2]> {
        let ([x, y], [w, h], turn) = (self.center, self.half, self.turn);
        let middle = x + 0.40 * w * turn;
        let half = share * w * (0.94 - 0.34 * turn.abs());
        let points = (0..40).map(|step| step as f32 * std::f32::consts::TAU / 40.0);
        points
            .map(|angle| {
                let (across, down) = (angle.sin(), -angle.cos());
                let low = down.max(0.0);
                let narrow = 1.0 - 0.9 * (1.0 - self.face.jaw) * low * low;
                let x = middle + half * narrow * across + 0.10 * w * turn * low;
                [x, y + 3.0 + 0.98 * share * h * down]
            })
            .collect()
    }

    /// Middle and radii of the skull, which stays behind when the face turns.
    pub(super) fn skull(&self) -> ([f32; 2], [f32; 2]) {
        let ([x, y], [w, h], turn) = (self.center, self.half, self.turn);
        (
            [x - 0.19 * w * turn, y - 0.16 * h],
            [w * (1.05 + 0.10 * turn.abs()), h * 0.94],
        )
    }

    pub(super) fn skin(&self) -> Rgb {
        SKINS[usize::from(self.face.skin)]
    }

    /// Skin in shadow.
    pub(super) fn shade(&self) -> Rgb {
        mix(self.skin(), [50, 20, 30], 0.2)
    }

    fn lamp(&self) -> Lamp {
        let ([x, y], [w, h]) = (self.center, self.half);
        Lamp {
            at: [x + 2.2 * w * self.pose.light_from, y - 0.5 * h],
            reach: 82.0,
        }
    }
}

/// Draws head and shoulders.
pub(super) fn draw(canvas: &mut Canvas, face: &Face, view: &View) {
    let head = Head::new(face, &view.pose);
    canvas.begin_portrait(view, head.lamp());
    let under_hat = view.accessory == Some(Accessory::Hat);
    hair::behind(canvas, &head, under_hat);
    shoulders(canvas, &head);
    hair::skull_and_face(canvas, &head);
    hair::front(canvas, &head, under_hat);
    face::draw(canvas, &head);
    match view.accessory {
        None => {}
        Some(Accessory::Hat) => hat(canvas, &head),
        Some(Accessory::Scarf) => scarf(canvas, &head),
        Some(Accessory::Glasses) => face::glasses(canvas, &head),
    }
}

fn shoulders(canvas: &mut Canvas, head: &Head) {
    let ([x, y], [_, h]) = (head.center, head.half);
    let x = x - 2.5 * head.turn;
    let neck = [
        [x - 7.0, y + 0.5 * h],
        [x + 7.0, y + 0.5 * h],
        [x + 8.5, 84.0],
        [x - 8.5, 84.0],
    ];
    canvas.fill(&polygon(&neck), head.shade());
    let clothes = head.pose.clothes.rgb();
    canvas.fill(&ellipse(50.0, 97.0, 37.0, 25.0), clothes);
    match head.pose.cut {
        0 => canvas.mark(
            &leaf([x - 10.0, 73.0], [x, 69.0], [x + 10.0, 73.0], [x, 86.0]),
            head.shade(),
        ),
        1 => {
            let light = mix(clothes, [255; 3], 0.55);
            for side in [-1.0, 1.0] {
                let flap = [
                    [x + side, 79.0],
                    [x + side * 8.0, 69.0],
                    [x + side * 14.0, 76.0],
                    [x + side * 5.0, 86.0],
                ];
                canvas.fill(&polygon(&flap), light);
            }
        }
        _ => canvas.fill(
            &rounded(x - 11.5, 69.5, 23.0, 8.0, 3.5),
            mix(clothes, [0; 3], 0.25),
        ),
    }
}

fn hat(canvas: &mut Canvas, head: &Head) {
    let ([x, y], [w, h]) = (head.center, head.half);
    let x = x - 3.0 * head.turn;
    let black = [38, 34, 52];
    let (wide, top, brim) = (0.84 * w, y - 1.46 * h, y - 0.60 * h);
    canvas.fill(&rounded(x - wide, top, 2.0 * wide, brim - top, 2.5), black);
    canvas.mark(
        &rounded(x - wide, brim - 6.5, 2.0 * wide, 5.5, 0.4),
        [222, 60, 60],
    );
    canvas.fill(&ellipse(x + 3.0 * head.turn, brim, 1.42 * w, 3.6), black);
}

fn scarf(canvas: &mut Canvas, head: &Head) {
    let (red, cream) = ([206, 34, 58], [250, 240, 220]);
    let x = head.center[0] - 2.5 * head.turn;
    let top = 68.0;
    canvas.fill(&rounded(x + 2.0, top + 4.0, 10.5, 34.0, 2.5), red);
    for share in [9.0, 15.0, 21.0, 27.0] {
        canvas.mark(&rounded(x + 2.0, top + share, 10.5, 2.4, 0.4), cream);
    }
    canvas.fill(&rounded(x - 16.0, top, 32.0, 9.0, 4.0), red);
    for share in [-11.0, -2.0, 7.0] {
        let stripe = [[x + share, top + 0.6], [x + share + 2.0, top + 8.4]];
        canvas.line(&polyline(&stripe), cream, 2.0);
    }
}
