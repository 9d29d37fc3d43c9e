//! Drawing shapes in the manner of a style, on an image that is 100 units wide and high.

use tiny_skia::{
    Color, FillRule, GradientStop, LineCap, LineJoin, Mask, Paint, Path, PathBuilder, Pixmap,
    Point, RadialGradient, Rect, Shader, SpreadMode, Stroke, Transform,
};

use super::{SIDE, Style, View};

/// Red, green, blue.
pub(super) type Rgb = [u8; 3];

/// Pixels per unit.
const UNIT: f32 = SIDE as f32 / 100.0;

/// The colour of outlines.
const INK: Rgb = [34, 26, 32];

/// An unfinished image: the scene and the mask of its subject.
pub(super) struct Canvas {
    pub(super) scene: Pixmap,
    pub(super) mask: Pixmap,
    transform: Transform,
    on_subject: bool,
    style: Style,
    lamp: Option<Lamp>,
    /// Width of outlines, as a factor.
    pen: f32,
}

/// Light that falls on the whole subject, not on each shape by itself.
#[derive(Clone, Copy)]
pub(super) struct Lamp {
    /// The centre of the light.
    pub(super) at: [f32; 2],
    /// The distance where it is darkest.
    pub(super) reach: f32,
}

impl Canvas {
    pub(super) fn new(view: &View) -> Self {
        let blank = || match Pixmap::new(SIDE, SIDE) {
            Some(pixmap) => pixmap,
            None => unreachable!("the side of an image is not 0"),
        };
        Self {
            scene: blank(),
            mask: blank(),
            transform: Transform::from_scale(UNIT, UNIT),
            on_subject: false,
            style: view.style,
            lamp: None,
            pen: 1.0,
        }
    }

    /// From here on shapes belong to the subject and move with its pose.
    pub(super) fn begin_subject(&mut self, view: &View) {
        let mirror = if view.mirrored { -1.0 } else { 1.0 };
        let [dx, dy] = view.shift;
        self.on_subject = true;
        self.transform = Transform::from_translate(-50.0, -56.0)
            .post_concat(Transform::from_scale(mirror * view.size, view.size))
            .post_concat(Transform::from_rotate(view.lean))
            .post_translate(50.0 + dx, 56.0 + dy)
            .post_scale(UNIT, UNIT);
    }

    /// As [`begin_subject`](Self::begin_subject), under one light and with outlines that do not grow
    /// with the subject.
    pub(super) fn begin_portrait(&mut self, view: &View, lamp: Lamp) {
        self.begin_subject(view);
        self.lamp = Some(lamp);
        self.pen = 1.0 / view.size;
    }

    /// A filled shape.
    pub(super) fn fill(&mut self, path: &Path, color: Rgb) {
        self.paint(path, color, None);
        if self.on_subject {
            self.outline(path, 1.0);
        }
    }

    /// Shapes that grow into one: only the rim of all of them together is outlined.
    pub(super) fn fill_together(&mut self, paths: &[Path], color: Rgb) {
        for path in paths {
            self.outline(path, 2.0);
        }
        for path in paths {
            self.paint(path, color, None);
        }
    }

    /// A filled shape without outline, such as a marking or a highlight.
    pub(super) fn mark(&mut self, path: &Path, color: Rgb) {
        self.paint(path, color, None);
    }

    /// A marking that shows only inside another shape.
    pub(super) fn mark_inside(&mut self, path: &Path, shape: &Path, color: Rgb) {
        let Some(mut clip) = Mask::new(SIDE, SIDE) else {
            return;
        };
        clip.fill_path(shape, FillRule::Winding, true, self.transform);
        self.paint(path, color, Some(&clip));
    }

    /// An open line.
    pub(super) fn line(&mut self, path: &Path, color: Rgb, width: f32) {
        let stroke = Stroke {
            width,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        let paint = solid(color, 255);
        self.scene
            .stroke_path(path, &paint, &stroke, self.transform, None);
        if self.on_subject {
            self.mask
                .stroke_path(path, &solid([255; 3], 255), &stroke, self.transform, None);
        }
    }

    /// Draws the outline of a shape again, over its markings.
    pub(super) fn outline(&mut self, path: &Path, weight: f32) {
        let (color, width, alpha) = match self.style {
            Style::Cartoon => (INK, 2.6, 255),
            Style::Sketch => (INK, 1.9, 230),
            Style::Photo | Style::Painting => return,
        };
        let stroke = Stroke {
            width: width * weight * self.pen,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        self.scene
            .stroke_path(path, &solid(color, alpha), &stroke, self.transform, None);
    }

    /// A soft dark ellipse on the ground.
    pub(super) fn shadow(&mut self, center: [f32; 2], radius: [f32; 2]) {
        let path = ellipse(center[0], center[1], radius[0], radius[1]);
        self.scene.fill_path(
            &path,
            &solid([20, 16, 30], 90),
            FillRule::Winding,
            self.transform,
            None,
        );
    }

    fn paint(&mut self, path: &Path, color: Rgb, clip: Option<&Mask>) {
        let mut paint = solid(color, 255);
        if self.on_subject && self.style == Style::Photo {
            paint.shader = shaded(
                self.lamp.unwrap_or_else(|| Lamp::over(path.bounds())),
                color,
            );
        }
        self.scene
            .fill_path(path, &paint, FillRule::Winding, self.transform, clip);
        if self.on_subject {
            let white = solid([255; 3], 255);
            self.mask
                .fill_path(path, &white, FillRule::Winding, self.transform, clip);
        }
    }
}

fn solid(color: Rgb, alpha: u8) -> Paint<'static> {
    let mut paint = Paint {
        anti_alias: true,
        ..Paint::default()
    };
    paint.set_color_rgba8(color[0], color[1], color[2], alpha);
    paint
}

impl Lamp {
    /// Light from the upper left of a shape.
    fn over(bounds: Rect) -> Self {
        Self {
            at: [
                bounds.left() + 0.35 * bounds.width(),
                bounds.top() + 0.25 * bounds.height(),
            ],
            reach: 0.85 * bounds.width().max(bounds.height()),
        }
    }
}

/// Brighter at the light, darker at the far rim.
fn shaded(lamp: Lamp, color: Rgb) -> Shader<'static> {
    let light = Point::from_xy(lamp.at[0], lamp.at[1]);
    let stop = |at, color: Rgb| {
        GradientStop::new(at, Color::from_rgba8(color[0], color[1], color[2], 255))
    };
    let stops = vec![
        stop(0.0, mix(color, [255, 255, 250], 0.28)),
        stop(0.45, color),
        stop(1.0, mix(color, [16, 10, 30], 0.42)),
    ];
    RadialGradient::new(
        light,
        0.0,
        light,
        lamp.reach,
        stops,
        SpreadMode::Pad,
        Transform::identity(),
    )
    .unwrap_or(Shader::SolidColor(Color::from_rgba8(
        color[0], color[1], color[2], 255,
    )))
}

/// The mixture of `share` of `b` with `1 - share` of `a`.
pub(super) fn mix(a: Rgb, b: Rgb, share: f32) -> Rgb {
    std::array::from_fn(|c| {
        (f32::from(a[c]) * (1.0 - share) + f32::from(b[c]) * share).round() as u8
    })
}

/// An axis-parallel ellipse.
pub(super) fn ellipse(cx: f32, cy: f32, rx: f32, ry: f32) -> Path {
    let oval =
        Rect::from_xywh(cx - rx, cy - ry, 2.0 * rx, 2.0 * ry).and_then(PathBuilder::from_oval);
    oval.unwrap_or_else(|| polygon(&[[cx, cy], [cx + 0.1, cy], [cx, cy + 0.1]]))
}

/// An ellipse turned by `degrees` about its centre.
pub(super) fn turned_ellipse(cx: f32, cy: f32, rx: f32, ry: f32, degrees: f32) -> Path {
    let path = ellipse(cx, cy, rx, ry);
    let turn = Transform::from_rotate_at(degrees, cx, cy);
    path.clone().transform(turn).unwrap_or(path)
}

/// A closed polygon of three points or more.
pub(super) fn polygon(points: &[[f32; 2]]) -> Path {
    let mut builder = through(points);
    builder.close();
    finish(builder)
}

/// An open line through points.
pub(super) fn polyline(points: &[[f32; 2]]) -> Path {
    finish(through(points))
}

fn through(points: &[[f32; 2]]) -> PathBuilder {
    let mut builder = PathBuilder::new();
    for (index, [x, y]) in points.iter().enumerate() {
        if index == 0 {
            builder.move_to(*x, *y)
        } else {
            builder.line_to(*x, *y)
        }
    }
    builder
}

/// An open curve from `a` to `b`, pulled towards `pull`.
pub(super) fn curve(a: [f32; 2], pull: [f32; 2], b: [f32; 2]) -> Path {
    let mut builder = PathBuilder::new();
    builder.move_to(a[0], a[1]);
    builder.quad_to(pull[0], pull[1], b[0], b[1]);
    finish(builder)
}

/// A closed shape of two curves: an ear, a leaf, a wing.
pub(super) fn leaf(a: [f32; 2], pull_there: [f32; 2], b: [f32; 2], pull_back: [f32; 2]) -> Path {
    let mut builder = PathBuilder::new();
    builder.move_to(a[0], a[1]);
    builder.quad_to(pull_there[0], pull_there[1], b[0], b[1]);
    builder.quad_to(pull_back[0], pull_back[1], a[0], a[1]);
    builder.close();
    finish(builder)
}

/// A rectangle with round corners.
pub(super) fn rounded(x: f32, y: f32, width: f32, height: f32, r: f32) -> Path {
    let (right, bottom) = (x + width, y + height);
    let mut builder = PathBuilder::new();
    builder.move_to(x + r, y);
    builder.line_to(right - r, y);
    builder.quad_to(right, y, right, y + r);
    builder.line_to(right, bottom - r);
    builder.quad_to(right, bottom, right - r, bottom);
    builder.line_to(x + r, bottom);
    builder.quad_to(x, bottom, x, bottom - r);
    builder.line_to(x, y + r);
    builder.quad_to(x, y, x + r, y);
    builder.close();
    finish(builder)
}

fn finish(builder: PathBuilder) -> Path {
    match builder.finish() {
        Some(path) => path,
        None => unreachable!("every shape of the world has points"),
    }
}
