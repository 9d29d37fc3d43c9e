//! The nine backgrounds.

use core_model::rng::rng;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::canvas::{Canvas, Rgb, ellipse, leaf, mix, polygon, rounded};
use super::{Background, View};

/// Draws the background of a view over the whole image.
pub(super) fn draw(canvas: &mut Canvas, view: &View) {
    let mut generator = rng(view.seed, "background", 0);
    match view.background {
        Background::Plain => plain(canvas, &mut generator),
        Background::Desert => desert(canvas, &mut generator),
        Background::Beach => beach(canvas, &mut generator),
        Background::Snow => snow(canvas, &mut generator),
        Background::Forest => forest(canvas, &mut generator),
        Background::City => city(canvas, &mut generator),
        Background::Meadow => meadow(canvas, &mut generator),
        Background::Room => room(canvas, &mut generator),
        Background::Space => space(canvas, &mut generator),
    }
}

/// Horizontal bands from one colour to another between two heights.
fn gradient(canvas: &mut Canvas, top: f32, bottom: f32, from: Rgb, to: Rgb) {
    let bands = 16;
    let step = (bottom - top) / bands as f32;
    for band in 0..bands {
        let share = (band as f32 + 0.5) / bands as f32;
        let y = top + band as f32 * step;
        canvas.fill(
            &rounded(-1.0, y, 102.0, bottom - y, 0.0),
            mix(from, to, share),
        );
    }
}

fn plain(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    let tones = [
        [226, 218, 206],
        [206, 216, 224],
        [222, 208, 220],
        [208, 220, 206],
        [196, 196, 200],
    ];
    let tone = tones[generator.random_range(0..tones.len())];
    gradient(canvas, 0.0, 78.0, mix(tone, [255; 3], 0.25), tone);
    gradient(
        canvas,
        78.0,
        101.0,
        mix(tone, [90; 3], 0.22),
        mix(tone, [90; 3], 0.1),
    );
}

fn desert(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    gradient(canvas, 0.0, 62.0, [255, 196, 120], [255, 236, 190]);
    let sun = generator.random_range(12.0..88.0);
    canvas.fill(&ellipse(sun, 16.0, 8.0, 8.0), [255, 250, 214]);
    let far = generator.random_range(10.0..40.0);
    canvas.fill(
        &leaf([-20.0, 66.0], [far, 40.0], [80.0, 66.0], [20.0, 80.0]),
        [226, 166, 92],
    );
    canvas.fill(
        &leaf(
            [30.0, 68.0],
            [far + 50.0, 44.0],
            [130.0, 66.0],
            [70.0, 80.0],
        ),
        [212, 150, 80],
    );
    gradient(canvas, 64.0, 101.0, [236, 184, 106], [208, 146, 74]);
    let x = if generator.random() {
        generator.random_range(5.0..14.0)
    } else {
        generator.random_range(86.0..95.0)
    };
    let green = [58, 128, 66];
    canvas.fill(&rounded(x - 2.8, 38.0, 5.6, 34.0, 2.6), green);
    canvas.fill(&rounded(x - 9.0, 46.0, 4.4, 12.0, 2.0), green);
    canvas.fill(&rounded(x - 9.0, 55.0, 9.0, 4.0, 1.6), green);
    canvas.fill(&rounded(x + 4.8, 42.0, 4.4, 12.0, 2.0), green);
    canvas.fill(&rounded(x, 51.0, 9.0, 4.0, 1.6), green);
}

fn beach(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    gradient(canvas, 0.0, 40.0, [96, 182, 250], [196, 232, 252]);
    gradient(canvas, 40.0, 66.0, [16, 108, 190], [70, 190, 214]);
    for wave in 0..4 {
        let (x, y) = (generator.random_range(-5.0..90.0), 45.0 + 5.5 * wave as f32);
        canvas.fill(&ellipse(x, y, 9.0, 0.8), [214, 242, 250]);
    }
    canvas.fill(&rounded(-1.0, 65.0, 102.0, 4.0, 0.0), [250, 252, 250]);
    gradient(canvas, 68.0, 101.0, [248, 226, 168], [232, 200, 132]);
    let x = if generator.random() { 10.0 } else { 90.0 };
    canvas.fill(&rounded(x - 0.9, 36.0, 1.8, 40.0, 0.4), [150, 110, 80]);
    canvas.fill(
        &leaf([x - 17.0, 40.0], [x, 14.0], [x + 17.0, 40.0], [x, 34.0]),
        [236, 70, 60],
    );
    canvas.fill(
        &leaf([x - 6.0, 38.0], [x, 14.0], [x + 6.0, 38.0], [x, 35.0]),
        [255, 246, 226],
    );
}

fn fir(canvas: &mut Canvas, x: f32, base: f32, size: f32, color: Rgb, cap: Option<Rgb>) {
    canvas.fill(
        &rounded(
            x - size * 0.1,
            base - size * 0.2,
            size * 0.2,
            size * 0.3,
            0.2,
        ),
        [86, 58, 44],
    );
    for tier in 0..3 {
        let y = base - size * (0.15 + 0.33 * tier as f32);
        let half = size * (0.48 - 0.11 * tier as f32);
        let tip = y - size * 0.55;
        canvas.fill(&polygon(&[[x - half, y], [x, tip], [x + half, y]]), color);
        if let Some(cap) = cap {
            canvas.fill(
                &polygon(&[
                    [x - half * 0.45, y - size * 0.3],
                    [x, tip],
                    [x + half * 0.45, y - size * 0.3],
                ]),
                cap,
            );
        }
    }
}

fn snow(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    gradient(canvas, 0.0, 64.0, [150, 180, 214], [222, 232, 244]);
    for x in [6.0, 24.0, 78.0, 95.0] {
        let size = generator.random_range(26.0..38.0);
        fir(
            canvas,
            x + generator.random_range(-4.0..4.0),
            66.0,
            size,
            [64, 108, 104],
            Some([248, 252, 255]),
        );
    }
    canvas.fill(&ellipse(20.0, 92.0, 70.0, 30.0), [238, 244, 252]);
    canvas.fill(&ellipse(90.0, 96.0, 70.0, 32.0), [250, 252, 255]);
    canvas.fill(&rounded(-1.0, 78.0, 102.0, 24.0, 0.0), [244, 249, 255]);
    for _ in 0..34 {
        let (x, y) = (
            generator.random_range(0.0..100.0),
            generator.random_range(0.0..92.0),
        );
        let r = generator.random_range(0.8..1.7);
        canvas.fill(&ellipse(x, y, r, r), [255; 3]);
    }
}

fn forest(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    gradient(canvas, 0.0, 72.0, [26, 66, 44], [58, 104, 58]);
    for trunk in 0..7 {
        let x = trunk as f32 * 16.0 + generator.random_range(-4.0..4.0);
        let width = generator.random_range(4.5..8.0);
        canvas.fill(
            &rounded(x - width / 2.0, -2.0, width, 78.0, 0.5),
            [66, 44, 32],
        );
        canvas.fill(
            &rounded(x - width / 2.0, -2.0, width * 0.3, 78.0, 0.3),
            [98, 68, 46],
        );
    }
    for _ in 0..16 {
        let (x, y) = (
            generator.random_range(-4.0..104.0),
            generator.random_range(-6.0..22.0),
        );
        let r = generator.random_range(7.0..12.0);
        let tone = mix([20, 82, 40], [66, 132, 52], generator.random());
        canvas.fill(&ellipse(x, y, r, r * 0.8), tone);
    }
    gradient(canvas, 72.0, 101.0, [50, 88, 40], [70, 62, 36]);
    for _ in 0..9 {
        let x = generator.random_range(0.0..100.0);
        canvas.fill(
            &leaf(
                [x - 5.0, 82.0],
                [x - 3.0, 66.0],
                [x + 1.0, 64.0],
                [x + 3.0, 74.0],
            ),
            [48, 112, 50],
        );
    }
}

fn city(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    gradient(canvas, 0.0, 76.0, [8, 10, 40], [58, 40, 96]);
    let moon = generator.random_range(15.0..85.0);
    canvas.fill(&ellipse(moon, 12.0, 5.5, 5.5), [250, 244, 210]);
    let mut x = -3.0;
    while x < 100.0 {
        let width = generator.random_range(11.0..18.0);
        let top = generator.random_range(14.0..46.0);
        canvas.fill(&rounded(x, top, width - 1.0, 80.0 - top, 0.2), [26, 26, 46]);
        let mut y = top + 4.0;
        while y < 72.0 {
            let mut wx = x + 2.0;
            while wx < x + width - 4.0 {
                if generator.random_bool(0.62) {
                    canvas.fill(&rounded(wx, y, 2.4, 3.2, 0.1), [255, 222, 110]);
                }
                wx += 4.4;
            }
            y += 6.4;
        }
        x += width;
    }
    gradient(canvas, 78.0, 101.0, [52, 50, 62], [34, 32, 44]);
    for dash in 0..4 {
        canvas.fill(
            &rounded(6.0 + 26.0 * dash as f32, 94.0, 12.0, 1.8, 0.2),
            [226, 200, 120],
        );
    }
}

fn meadow(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    gradient(canvas, 0.0, 56.0, [98, 176, 246], [206, 234, 252]);
    for _ in 0..3 {
        let (x, y) = (
            generator.random_range(5.0..95.0),
            generator.random_range(8.0..26.0),
        );
        for dx in [-6.0, 0.0, 6.0] {
            canvas.fill(
                &ellipse(x + dx, y - if dx == 0.0 { 2.5 } else { 0.0 }, 6.5, 4.0),
                [255; 3],
            );
        }
    }
    canvas.fill(&ellipse(24.0, 74.0, 62.0, 24.0), [122, 196, 88]);
    canvas.fill(&ellipse(92.0, 78.0, 60.0, 28.0), [104, 182, 76]);
    gradient(canvas, 68.0, 101.0, [112, 190, 72], [74, 152, 54]);
    let petals = [[255, 90, 110], [255, 220, 60], [255; 3], [190, 110, 230]];
    for _ in 0..20 {
        let (x, y) = (
            generator.random_range(0.0..100.0),
            generator.random_range(66.0..99.0),
        );
        canvas.fill(
            &ellipse(x, y, 1.9, 1.9),
            petals[generator.random_range(0..petals.len())],
        );
        canvas.fill(&ellipse(x, y, 0.8, 0.8), [255, 200, 50]);
    }
}

fn room(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    let walls = [[196, 170, 150], [172, 186, 170], [190, 180, 204]];
    let wall = walls[generator.random_range(0..walls.len())];
    gradient(canvas, 0.0, 74.0, mix(wall, [255; 3], 0.2), wall);
    for stripe in 0..9 {
        canvas.fill(
            &rounded(stripe as f32 * 12.0, 0.0, 4.0, 74.0, 0.0),
            mix(wall, [255; 3], 0.32),
        );
    }
    let x = if generator.random() { 6.0 } else { 68.0 };
    canvas.fill(&rounded(x - 2.0, 8.0, 30.0, 36.0, 1.0), [250, 246, 238]);
    canvas.fill(&rounded(x, 10.0, 12.0, 32.0, 0.4), [150, 210, 246]);
    canvas.fill(&rounded(x + 14.0, 10.0, 12.0, 32.0, 0.4), [168, 220, 250]);
    let frame = if x < 50.0 { 76.0 } else { 8.0 };
    canvas.fill(&rounded(frame, 14.0, 17.0, 20.0, 0.6), [120, 76, 44]);
    canvas.fill(
        &rounded(frame + 2.0, 16.0, 13.0, 16.0, 0.4),
        [236, 214, 160],
    );
    canvas.fill(&ellipse(frame + 8.0, 25.0, 4.0, 4.0), [214, 96, 70]);
    gradient(canvas, 74.0, 101.0, [158, 100, 58], [126, 76, 42]);
    for plank in 0..4 {
        canvas.fill(
            &rounded(-1.0, 80.0 + 6.0 * plank as f32, 102.0, 0.9, 0.0),
            [98, 58, 32],
        );
    }
    canvas.fill(&rounded(-1.0, 72.0, 102.0, 2.6, 0.0), [250, 246, 238]);
}

fn space(canvas: &mut Canvas, generator: &mut ChaCha8Rng) {
    gradient(canvas, 0.0, 101.0, [6, 4, 22], [30, 8, 52]);
    for _ in 0..3 {
        let (x, y) = (
            generator.random_range(0.0..100.0),
            generator.random_range(0.0..100.0),
        );
        canvas.fill(&ellipse(x, y, 22.0, 9.0), [38, 14, 70]);
    }
    for _ in 0..46 {
        let (x, y) = (
            generator.random_range(0.0..100.0),
            generator.random_range(0.0..100.0),
        );
        let r = generator.random_range(0.5..1.3);
        canvas.fill(&ellipse(x, y, r, r), [255, 252, 232]);
    }
    let x = if generator.random() { 15.0 } else { 85.0 };
    let y = generator.random_range(14.0..26.0);
    canvas.fill(&ellipse(x, y, 10.0, 10.0), [224, 134, 84]);
    canvas.fill(&ellipse(x - 3.0, y - 3.0, 4.0, 2.0), [244, 176, 120]);
    canvas.fill(
        &leaf(
            [x - 18.0, y + 4.0],
            [x, y + 5.0],
            [x + 18.0, y - 4.0],
            [x, y + 1.0],
        ),
        [250, 224, 170],
    );
    canvas.fill(&ellipse(50.0, 104.0, 80.0, 22.0), [112, 108, 128]);
    for x in [18.0, 44.0, 74.0, 92.0] {
        canvas.fill(
            &ellipse(x, 92.0 + (x / 20.0).sin() * 2.0, 6.0, 1.8),
            [84, 80, 100],
        );
    }
}
