//! Dog, cat and rabbit share one body; each has its own tail and head.

use super::canvas::{
    Canvas, Rgb, curve, ellipse, leaf, mix, polygon, polyline, rounded, turned_ellipse,
};
use super::head::{DARK, Head, LIGHT};
use super::{Thing, View, pattern};

const NOSE: Rgb = [60, 34, 40];

/// What differs between the four-legged animals.
struct FourLegged {
    /// Half of the body's width and height, in units of the canvas.
    body: [f32; 2],
    /// Draws a tail.
    tail: fn(&mut Canvas, &Thing, Tail),
    /// Draws a head; the last argument is the length of the ears, as a factor.
    head: fn(&mut Canvas, &Thing, Head, f32),
}

/// Root of a tail, its length as a factor, and the sideways shift of its tip.
struct Tail {
    root: [f32; 2],
    long: f32,
    wag: f32,
}

const DOG: FourLegged = FourLegged {
    body: [23.0, 15.5],
    tail: dog_tail,
    head: dog_head,
};

const CAT: FourLegged = FourLegged {
    body: [21.0, 15.0],
    tail: cat_tail,
    head: cat_head,
};

const RABBIT: FourLegged = FourLegged {
    body: [20.0, 19.0],
    tail: rabbit_tail,
    head: rabbit_head,
};

pub(super) fn dog(canvas: &mut Canvas, thing: &Thing, view: &View) {
    draw(canvas, thing, view, &DOG);
}

pub(super) fn cat(canvas: &mut Canvas, thing: &Thing, view: &View) {
    draw(canvas, thing, view, &CAT);
}

pub(super) fn rabbit(canvas: &mut Canvas, thing: &Thing, view: &View) {
    draw(canvas, thing, view, &RABBIT);
}

/// Draws an animal, facing right.
fn draw(canvas: &mut Canvas, thing: &Thing, view: &View, animal: &FourLegged) {
    canvas.shadow([50.0, 90.0], [28.0, 4.5]);
    let [wide, high, big, ears, long_legs, long_tail, _] = thing.proportions;
    let color = thing.color.rgb();
    let shade = mix(color, DARK, 0.18);
    let (body_rx, body_ry) = (animal.body[0] * wide, animal.body[1] * high);
    let leg = 11.0 * long_legs;
    let body_y = 88.0 - leg - 0.75 * body_ry;
    let body_x = 43.0;
    let step = 3.0 * (view.gait - 0.5);

    let tail = Tail {
        root: [body_x - body_rx * 0.9, body_y - 2.0],
        long: long_tail,
        wag: 6.0 * (view.gait - 0.5),
    };
    (animal.tail)(canvas, thing, tail);
    for (index, x) in [-0.68, -0.38, 0.4, 0.7].into_iter().enumerate() {
        let swing = if index % 2 == 0 { step } else { -step };
        let x = body_x + x * body_rx + swing;
        let tone = if index % 2 == 0 { color } else { shade };
        let path = rounded(
            x - 4.2,
            body_y + 0.45 * body_ry,
            8.4,
            88.0 - body_y - 0.45 * body_ry,
            3.8,
        );
        canvas.fill(&path, tone);
        canvas.mark(&ellipse(x + 1.0, 86.8, 4.6, 2.6), thing.third);
    }
    let body = ellipse(body_x, body_y, body_rx, body_ry);
    canvas.fill(&body, color);
    pattern::draw(canvas, thing, &body);
    canvas.outline(&body, 1.0);

    let r = 16.5 * big;
    let head = Head {
        x: body_x + body_rx * 0.72,
        y: body_y - body_ry * 0.55 - r * 0.62,
        r,
    };
    (animal.head)(canvas, thing, head, ears);
    head.wear(canvas, view);
}

fn dog_tail(canvas: &mut Canvas, thing: &Thing, tail: Tail) {
    let Tail {
        root: [x, y],
        long,
        wag,
    } = tail;
    let tip = [x - 11.0 * long + wag, y - 17.0 * long];
    canvas.fill(
        &leaf(
            [x + 5.0, y - 4.0],
            [x - 10.0, y - 8.0],
            tip,
            [x - 2.0, y + 6.0],
        ),
        thing.color.rgb(),
    );
}

fn dog_head(canvas: &mut Canvas, thing: &Thing, head: Head, ears: f32) {
    let Head { x, y, r } = head;
    head.skull(canvas, thing, r, r * 0.95);
    let face = thing.proportions[6];
    let muzzle = mix(thing.color.rgb(), LIGHT, 0.55);
    canvas.fill(
        &ellipse(x + r * 0.25, y + r * 0.45, r * 0.62 * face, r * 0.46),
        muzzle,
    );
    canvas.mark(
        &ellipse(x + r * 0.3, y + r * 0.22, r * 0.24, r * 0.17),
        NOSE,
    );
    canvas.line(
        &curve(
            [x + r * 0.02, y + r * 0.62],
            [x + r * 0.3, y + r * 0.85],
            [x + r * 0.6, y + r * 0.58],
        ),
        NOSE,
        1.6,
    );
    head.eyes(canvas, thing, [-0.28, 0.58], -0.2);
    let tone = mix(thing.color.rgb(), thing.second, 0.75);
    for side in [-1.0, 1.0] {
        let root = [x + side * r * 0.72, y - r * 0.72];
        let (dx, dy) = match thing.variant {
            0 => (0.55, 1.35),
            1 => (1.0, 0.55),
            _ => (0.35, 1.75),
        };
        let tip = [
            root[0] + side * r * dx * ears * 0.6,
            root[1] + r * dy * ears,
        ];
        let path = leaf(
            root,
            [root[0] + side * r * 0.85, root[1] + r * 0.1],
            tip,
            [root[0] - side * r * 0.15, root[1] + r * 0.9],
        );
        canvas.fill(&path, tone);
    }
}

fn cat_tail(canvas: &mut Canvas, thing: &Thing, tail: Tail) {
    let Tail {
        root: [x, y],
        long,
        wag,
    } = tail;
    let path = curve(
        [x + 3.0, y + 4.0],
        [x - 16.0 * long, y + 2.0],
        [x - 9.0 + wag, y - 26.0 * long],
    );
    canvas.line(&path, mix(thing.color.rgb(), DARK, 0.15), 6.0);
}

fn cat_head(canvas: &mut Canvas, thing: &Thing, head: Head, ears: f32) {
    let Head { x, y, r } = head;
    let color = thing.color.rgb();
    let lean = [0.0, 0.22, -0.15][usize::from(thing.variant)];
    for side in [-1.0, 1.0] {
        let tip = [x + side * r * (0.78 + lean), y - r * (1.0 + 0.6 * ears)];
        let ear = [
            [x + side * r * 0.98, y - r * 0.25],
            tip,
            [x + side * r * 0.12, y - r * 0.8],
        ];
        canvas.fill(&polygon(&ear), color);
        let inner = ear.map(|p| {
            [
                p[0] * 0.55 + (x + side * r * 0.62) * 0.45,
                p[1] * 0.55 + (y - r * 0.72) * 0.45,
            ]
        });
        canvas.mark(&polygon(&inner), thing.third);
    }
    head.skull(canvas, thing, r * 1.05, r * 0.9);
    let face = thing.proportions[6];
    canvas.mark(
        &ellipse(x + r * 0.02, y + r * 0.42, r * 0.3 * face, r * 0.22),
        LIGHT,
    );
    canvas.mark(
        &ellipse(x + r * 0.36, y + r * 0.42, r * 0.3 * face, r * 0.22),
        LIGHT,
    );
    canvas.mark(
        &polygon(&[
            [x + r * 0.06, y + r * 0.16],
            [x + r * 0.34, y + r * 0.16],
            [x + r * 0.2, y + r * 0.36],
        ]),
        [226, 110, 130],
    );
    for dy in [-0.08, 0.14] {
        canvas.line(
            &polyline(&[
                [x + r * 0.5, y + r * 0.42],
                [x + r * 1.3, y + r * (0.4 + 2.0 * dy)],
            ]),
            DARK,
            1.0,
        );
        canvas.line(
            &polyline(&[
                [x - r * 0.12, y + r * 0.42],
                [x - r * 0.92, y + r * (0.4 + 2.0 * dy)],
            ]),
            DARK,
            1.0,
        );
    }
    head.eyes(canvas, thing, [-0.32, 0.62], -0.12);
}

fn rabbit_tail(canvas: &mut Canvas, thing: &Thing, tail: Tail) {
    let Tail {
        root: [x, y], long, ..
    } = tail;
    canvas.fill(
        &ellipse(x - 1.0, y + 6.0, 6.0 * long, 6.0 * long),
        mix(thing.color.rgb(), LIGHT, 0.6),
    );
}

fn rabbit_head(canvas: &mut Canvas, thing: &Thing, head: Head, ears: f32) {
    let Head { x, y, r } = head;
    let color = thing.color.rgb();
    let tilts = [[-14.0, 12.0], [-34.0, 8.0], [-26.0, 28.0]][usize::from(thing.variant)];
    for (side, tilt) in [-0.42, 0.4].into_iter().zip(tilts) {
        let (cx, cy) = (x + side * r, y - r * (0.75 + 0.75 * ears));
        let shift = tilt * 0.16;
        canvas.fill(
            &turned_ellipse(cx + shift, cy, r * 0.32, r * 0.95 * ears, tilt),
            color,
        );
        canvas.mark(
            &turned_ellipse(cx + shift, cy, r * 0.16, r * 0.7 * ears, tilt),
            mix(thing.third, [255, 180, 190], 0.5),
        );
    }
    head.skull(canvas, thing, r * 0.95, r * 0.92);
    let face = thing.proportions[6];
    canvas.mark(
        &ellipse(x + r * 0.02, y + r * 0.42, r * 0.3 * face, r * 0.26),
        LIGHT,
    );
    canvas.mark(
        &ellipse(x + r * 0.4, y + r * 0.42, r * 0.3 * face, r * 0.26),
        LIGHT,
    );
    canvas.mark(
        &ellipse(x + r * 0.22, y + r * 0.22, r * 0.15, r * 0.11),
        [232, 110, 130],
    );
    canvas.mark(
        &rounded(x + r * 0.1, y + r * 0.56, r * 0.26, r * 0.3, 0.8),
        [255; 3],
    );
    head.eyes(canvas, thing, [-0.34, 0.62], -0.14);
}
