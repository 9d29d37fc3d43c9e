//! Dog, cat, rabbit and bird, and what they wear.

use super::canvas::{
    Canvas, Rgb, curve, ellipse, leaf, mix, polygon, polyline, rounded, turned_ellipse,
};
use super::{Accessory, Category, Identity, View, pattern};

const DARK: Rgb = [28, 22, 28];
const LIGHT: Rgb = [252, 250, 246];
const NOSE: Rgb = [60, 34, 40];

/// Where a head is and how large, in units.
#[derive(Clone, Copy)]
struct Head {
    x: f32,
    y: f32,
    r: f32,
}

/// Draws an animal, facing right.
pub(super) fn draw(canvas: &mut Canvas, identity: &Identity, view: &View) {
    canvas.shadow([50.0, 90.0], [28.0, 4.5]);
    let head = match identity.category {
        Category::Bird => bird(canvas, identity, view),
        _ => four_legged(canvas, identity, view),
    };
    if let Some(accessory) = view.accessory {
        wear(canvas, accessory, head);
    }
}

fn four_legged(canvas: &mut Canvas, identity: &Identity, view: &View) -> Head {
    let [wide, high, big, ears, long_legs, long_tail, _] = identity.proportions;
    let color = identity.color.rgb();
    let shade = mix(color, DARK, 0.18);
    let (body_rx, body_ry) = match identity.category {
        Category::Rabbit => (20.0 * wide, 19.0 * high),
        Category::Cat => (21.0 * wide, 15.0 * high),
        _ => (23.0 * wide, 15.5 * high),
    };
    let leg = 11.0 * long_legs;
    let body_y = 88.0 - leg - 0.75 * body_ry;
    let body_x = 43.0;
    let step = 3.0 * (view.gait - 0.5);

    tail(
        canvas,
        identity,
        [body_x - body_rx * 0.9, body_y - 2.0],
        long_tail,
        view.gait,
    );
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
        canvas.mark(&ellipse(x + 1.0, 86.8, 4.6, 2.6), identity.third);
    }
    let body = ellipse(body_x, body_y, body_rx, body_ry);
    canvas.fill(&body, color);
    pattern::draw(canvas, identity, &body);
    canvas.outline(&body, 1.0);

    let r = 16.5 * big;
    let head = Head {
        x: body_x + body_rx * 0.72,
        y: body_y - body_ry * 0.55 - r * 0.62,
        r,
    };
    match identity.category {
        Category::Dog => dog_head(canvas, identity, head, ears),
        Category::Cat => cat_head(canvas, identity, head, ears),
        _ => rabbit_head(canvas, identity, head, ears),
    }
    head
}

fn tail(canvas: &mut Canvas, identity: &Identity, root: [f32; 2], long: f32, gait: f32) {
    let color = identity.color.rgb();
    let [x, y] = root;
    let wag = 6.0 * (gait - 0.5);
    match identity.category {
        Category::Rabbit => canvas.fill(
            &ellipse(x - 1.0, y + 6.0, 6.0 * long, 6.0 * long),
            mix(color, LIGHT, 0.6),
        ),
        Category::Cat => {
            let path = curve(
                [x + 3.0, y + 4.0],
                [x - 16.0 * long, y + 2.0],
                [x - 9.0 + wag, y - 26.0 * long],
            );
            canvas.line(&path, mix(color, DARK, 0.15), 6.0);
        }
        _ => {
            let tip = [x - 11.0 * long + wag, y - 17.0 * long];
            canvas.fill(
                &leaf(
                    [x + 5.0, y - 4.0],
                    [x - 10.0, y - 8.0],
                    tip,
                    [x - 2.0, y + 6.0],
                ),
                color,
            );
        }
    }
}

fn skull(canvas: &mut Canvas, identity: &Identity, head: Head, rx: f32, ry: f32) {
    let path = ellipse(head.x, head.y, rx, ry);
    canvas.fill(&path, identity.color.rgb());
    if matches!(
        identity.pattern,
        super::Pattern::Patches | super::Pattern::Half | super::Pattern::Stripes
    ) {
        pattern::draw(canvas, identity, &path);
        canvas.outline(&path, 1.0);
    }
}

fn dog_head(canvas: &mut Canvas, identity: &Identity, head: Head, ears: f32) {
    let Head { x, y, r } = head;
    skull(canvas, identity, head, r, r * 0.95);
    let face = identity.proportions[6];
    let muzzle = mix(identity.color.rgb(), LIGHT, 0.55);
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
    eyes(canvas, identity, head, [-0.28, 0.58], -0.2);
    let tone = mix(identity.color.rgb(), identity.second, 0.75);
    for side in [-1.0, 1.0] {
        let root = [x + side * r * 0.72, y - r * 0.72];
        let (dx, dy) = match identity.variant {
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

fn cat_head(canvas: &mut Canvas, identity: &Identity, head: Head, ears: f32) {
    let Head { x, y, r } = head;
    let color = identity.color.rgb();
    let lean = [0.0, 0.22, -0.15][usize::from(identity.variant)];
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
        canvas.mark(&polygon(&inner), identity.third);
    }
    skull(canvas, identity, head, r * 1.05, r * 0.9);
    let face = identity.proportions[6];
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
    eyes(canvas, identity, head, [-0.32, 0.62], -0.12);
}

fn rabbit_head(canvas: &mut Canvas, identity: &Identity, head: Head, ears: f32) {
    let Head { x, y, r } = head;
    let color = identity.color.rgb();
    let tilts = [[-14.0, 12.0], [-34.0, 8.0], [-26.0, 28.0]][usize::from(identity.variant)];
    for (side, tilt) in [-0.42, 0.4].into_iter().zip(tilts) {
        let (cx, cy) = (x + side * r, y - r * (0.75 + 0.75 * ears));
        let shift = tilt * 0.16;
        canvas.fill(
            &turned_ellipse(cx + shift, cy, r * 0.32, r * 0.95 * ears, tilt),
            color,
        );
        canvas.mark(
            &turned_ellipse(cx + shift, cy, r * 0.16, r * 0.7 * ears, tilt),
            mix(identity.third, [255, 180, 190], 0.5),
        );
    }
    skull(canvas, identity, head, r * 0.95, r * 0.92);
    let face = identity.proportions[6];
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
    eyes(canvas, identity, head, [-0.34, 0.62], -0.14);
}

fn bird(canvas: &mut Canvas, identity: &Identity, view: &View) -> Head {
    let [wide, high, big, wing, long_legs, long_tail, beak] = identity.proportions;
    let color = identity.color.rgb();
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
            identity.third,
        );
    }
    let body = ellipse(x, y, rx, ry);
    canvas.fill(&body, color);
    pattern::draw(canvas, identity, &body);
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
    canvas.fill(&wing_path, mix(color, identity.second, 0.6));
    let r = head.r;
    if identity.variant == 1 {
        for dx in [-0.4, 0.0, 0.4] {
            canvas.fill(
                &turned_ellipse(
                    head.x + dx * r,
                    head.y - r * 1.15,
                    r * 0.17,
                    r * 0.5,
                    dx * 60.0,
                ),
                identity.second,
            );
        }
    }
    let (length, hook) = [(1.0, 0.0), (0.75, 0.1), (1.25, 0.25)][usize::from(identity.variant)];
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
    skull(canvas, identity, head, r, r * 0.96);
    eyes(canvas, identity, head, [0.36, 0.36], -0.12);
    head
}

/// Two eyes at the given shares of the head's radius; equal shares are one eye, seen from the side.
fn eyes(canvas: &mut Canvas, identity: &Identity, head: Head, across: [f32; 2], up: f32) {
    let Head { x, y, r } = head;
    let count = if across[0] == across[1] { 1 } else { 2 };
    for share in &across[..count] {
        let (cx, cy) = (x + share * r, y + up * r);
        match identity.eyes {
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

fn wear(canvas: &mut Canvas, accessory: Accessory, head: Head) {
    let Head { x, y, r } = head;
    match accessory {
        Accessory::Hat => {
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
        Accessory::Scarf => {
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
        Accessory::Glasses => {
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
