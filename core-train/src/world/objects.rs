//! Cup, car, house and clock.

use super::canvas::{Canvas, Rgb, ellipse, mix, polygon, polyline, rounded};
use super::{Thing, View, pattern};

const DARK: Rgb = [32, 28, 34];
const GLASS: Rgb = [176, 216, 238];
const LIGHT: Rgb = [252, 250, 244];

/// The shadow on the ground below an object.
fn ground(canvas: &mut Canvas) {
    canvas.shadow([50.0, 89.0], [30.0, 4.5]);
}

pub(super) fn cup(canvas: &mut Canvas, thing: &Thing, _: &View) {
    ground(canvas);
    let [wide, high, rim, handle, saucer, _, _] = thing.proportions;
    let color = thing.color.rgb();
    canvas.fill(&ellipse(46.0, 85.5, 30.0 * saucer, 5.0), thing.third);
    let (half, top) = (22.0 * wide, 84.0 - 46.0 * high);
    let foot = half * [0.95, 0.6, 0.75][usize::from(thing.variant)];
    let (hx, hy) = (46.0 + half * 0.95, top + 0.42 * (84.0 - top));
    let ring = ellipse(hx + 4.0, hy, 10.0 * handle, 12.0 * handle);
    canvas.line(&ring, mix(color, DARK, 0.22), 6.0);
    let body = polygon(&[
        [46.0 - half, top],
        [46.0 + half, top],
        [46.0 + (half + foot) * 0.52, top + 0.6 * (84.0 - top)],
        [46.0 + foot, 85.0],
        [46.0 - foot, 85.0],
        [46.0 - (half + foot) * 0.52, top + 0.6 * (84.0 - top)],
    ]);
    canvas.fill(&body, color);
    pattern::draw(canvas, thing, &body);
    canvas.outline(&body, 1.0);
    let mouth = ellipse(46.0, top, half, 5.5 * rim);
    canvas.fill(&mouth, mix(color, LIGHT, 0.35));
    canvas.mark(
        &ellipse(46.0, top + 0.8, half * 0.82, 3.8 * rim),
        [84, 48, 28],
    );
    if thing.eyes == 1 {
        for x in [38.0, 47.0, 55.0] {
            canvas.line(
                &polyline(&[[x, top - 6.0], [x + 2.0, top - 11.0], [x - 1.0, top - 16.0]]),
                [235, 235, 240],
                2.0,
            );
        }
    }
}

pub(super) fn car(canvas: &mut Canvas, thing: &Thing, _: &View) {
    ground(canvas);
    let [long, high, cabin, wheel, _, hood, _] = thing.proportions;
    let color = thing.color.rgb();
    let half = 36.0 * long.min(1.12);
    let r = 9.5 * wheel;
    let base = 88.0 - r * 0.85;
    let deck = base - 19.0 * high;
    let roof = deck - 19.0 * cabin;
    let (a, b, c, d) = match thing.variant {
        0 => (-0.62, -0.36, 0.24, 0.56 * hood),
        1 => (-0.94, -0.82, 0.26, 0.6 * hood),
        _ => (-0.5, -0.18, 0.16, 0.74),
    };
    let at = |share: f32| 50.0 + share * half;
    canvas.fill(
        &polygon(&[
            [at(a), deck + 2.0],
            [at(b), roof],
            [at(c), roof],
            [at(d), deck + 2.0],
        ]),
        mix(color, DARK, 0.12),
    );
    let middle = (b + c) / 2.0;
    canvas.mark(
        &polygon(&[
            [at(a + 0.12), deck],
            [at(b + 0.05), roof + 4.0],
            [at(middle - 0.03), roof + 4.0],
            [at(middle - 0.03), deck],
        ]),
        GLASS,
    );
    canvas.mark(
        &polygon(&[
            [at(middle + 0.05), deck],
            [at(middle + 0.05), roof + 4.0],
            [at(c - 0.03), roof + 4.0],
            [at(d - 0.12), deck],
        ]),
        GLASS,
    );
    let body = rounded(50.0 - half, deck, 2.0 * half, base - deck, 6.0);
    canvas.fill(&body, color);
    pattern::draw(canvas, thing, &body);
    canvas.outline(&body, 1.0);
    canvas.mark(&ellipse(at(0.93), deck + 6.0, 2.6, 3.2), [255, 240, 150]);
    canvas.mark(&ellipse(at(-0.95), deck + 6.0, 2.0, 3.0), [230, 40, 40]);
    for x in [at(-0.56), at(0.56)] {
        canvas.fill(&ellipse(x, 88.0 - r, r, r), DARK);
        canvas.mark(&ellipse(x, 88.0 - r, r * 0.55, r * 0.55), thing.third);
    }
}

pub(super) fn house(canvas: &mut Canvas, thing: &Thing, _: &View) {
    ground(canvas);
    let [wide, high, steep, door, chimney, windows, _] = thing.proportions;
    let color = thing.color.rgb();
    let half = 25.0 * wide;
    let eaves = 88.0 - 36.0 * high;
    let peak = eaves - 25.0 * steep;
    let roof = thing.third;
    canvas.fill(
        &rounded(50.0 + half * 0.42, peak + 2.0, 8.0 * chimney, 18.0, 0.8),
        mix(roof, DARK, 0.35),
    );
    let wall = rounded(50.0 - half, eaves, 2.0 * half, 88.0 - eaves, 1.0);
    canvas.fill(&wall, color);
    pattern::draw(canvas, thing, &wall);
    canvas.outline(&wall, 1.0);
    let over = half * 1.22;
    let corners: Vec<[f32; 2]> = match thing.variant {
        0 => vec![
            [50.0 - over, eaves + 1.5],
            [50.0, peak],
            [50.0 + over, eaves + 1.5],
        ],
        1 => vec![
            [50.0 - over, eaves + 1.5],
            [50.0 - half * 0.6, peak + 5.0],
            [50.0 + half * 0.6, peak + 5.0],
            [50.0 + over, eaves + 1.5],
        ],
        _ => vec![
            [50.0 - over, eaves + 1.5],
            [50.0 - half * 0.75, peak + 9.0],
            [50.0, peak - 2.0],
            [50.0 + half * 0.75, peak + 9.0],
            [50.0 + over, eaves + 1.5],
        ],
    };
    canvas.fill(&polygon(&corners), roof);
    let brown = [110, 66, 40];
    canvas.fill(
        &rounded(
            50.0 - 5.5 * door,
            88.0 - 19.0 * door,
            11.0 * door,
            19.0 * door,
            2.0,
        ),
        brown,
    );
    canvas.mark(
        &ellipse(50.0 + 3.0 * door, 88.0 - 9.0 * door, 1.1, 1.1),
        [250, 214, 90],
    );
    for x in [50.0 - half * 0.62, 50.0 + half * 0.62] {
        let (w, h) = (9.0 * windows, 10.0 * windows);
        canvas.fill(
            &rounded(x - w / 2.0, eaves + 6.0, w, h, 0.8),
            [255, 236, 150],
        );
        canvas.mark(&rounded(x - 0.7, eaves + 6.0, 1.4, h, 0.2), brown);
        canvas.mark(
            &rounded(x - w / 2.0, eaves + 5.3 + h / 2.0, w, 1.4, 0.2),
            brown,
        );
    }
}

pub(super) fn clock(canvas: &mut Canvas, thing: &Thing, view: &View) {
    ground(canvas);
    let [big, _, rim, feet, bells, hands, _] = thing.proportions;
    let color = thing.color.rgb();
    let r = 27.0 * big.min(1.1);
    let (x, y) = (50.0, 86.0 - r);
    for side in [-1.0, 1.0] {
        let foot = [x + side * r * 0.72, y + r * 0.78];
        canvas.line(
            &polyline(&[foot, [foot[0] + side * 5.0 * feet, 88.0]]),
            thing.third,
            5.0,
        );
        if thing.variant != 2 {
            let bell = ellipse(x + side * r * 0.58, y - r * 1.0, 9.0 * bells, 7.5 * bells);
            canvas.fill(
                &bell,
                if thing.variant == 0 {
                    thing.third
                } else {
                    thing.second
                },
            );
        }
    }
    if thing.variant == 0 {
        canvas.line(&polyline(&[[x, y - r], [x, y - r * 1.28]]), DARK, 3.0);
    }
    let case = if thing.variant == 2 {
        rounded(x - r, y - r, 2.0 * r, 2.0 * r, 9.0)
    } else {
        ellipse(x, y, r, r)
    };
    canvas.fill(&case, color);
    pattern::draw(canvas, thing, &case);
    canvas.outline(&case, 1.0);
    let inner = r * 0.7 / rim.max(0.9);
    canvas.fill(&ellipse(x, y, inner, inner), LIGHT);
    for hour in 0..12 {
        let angle = hour as f32 * std::f32::consts::TAU / 12.0;
        let mark = inner * if hour % 3 == 0 { 0.16 } else { 0.09 };
        canvas.mark(
            &ellipse(
                x + angle.sin() * inner * 0.8,
                y - angle.cos() * inner * 0.8,
                mark * 0.6,
                mark * 0.6,
            ),
            DARK,
        );
    }
    let hour = view.gait * std::f32::consts::TAU;
    for (angle, long, width) in [(hour, 0.45, 3.4), (hour * 12.0, 0.72, 2.4)] {
        let tip = [
            x + angle.sin() * inner * long * hands,
            y - angle.cos() * inner * long * hands,
        ];
        canvas.line(&polyline(&[[x, y], tip]), DARK, width);
    }
    canvas.mark(&ellipse(x, y, 2.2, 2.2), [214, 50, 50]);
}
