//! What figures are drawn on: pixels, or the elements of an SVG file.

use std::io;

use plotters::prelude::*;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind,
};

use crate::report::font::Line;

/// Pixels or vectors: one type, so that each figure is painted by one function.
pub(super) enum Surface<'a> {
    Pixels(BitMapBackend<'a>),
    Vectors(SVGBackend<'a>),
}

type Drawing<T = ()> = Result<T, DrawingErrorKind<io::Error>>;

/// One error for both kinds.
fn failed<E: std::error::Error + Send + Sync>(
    error: DrawingErrorKind<E>,
) -> DrawingErrorKind<io::Error> {
    DrawingErrorKind::DrawingError(io::Error::other(error.to_string()))
}

/// Hands a call on to whichever kind there is.
macro_rules! either {
    ($surface:expr, $backend:ident => $call:expr) => {
        match $surface {
            Surface::Pixels($backend) => $call.map_err(failed),
            Surface::Vectors($backend) => $call.map_err(failed),
        }
    };
}

impl DrawingBackend for Surface<'_> {
    type ErrorType = io::Error;

    fn get_size(&self) -> (u32, u32) {
        match self {
            Self::Pixels(backend) => backend.get_size(),
            Self::Vectors(backend) => backend.get_size(),
        }
    }

    fn ensure_prepared(&mut self) -> Drawing {
        either!(self, backend => backend.ensure_prepared())
    }

    fn present(&mut self) -> Drawing {
        either!(self, backend => backend.present())
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> Drawing {
        either!(self, backend => backend.draw_pixel(point, color))
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Drawing {
        either!(self, backend => backend.draw_line(from, to, style))
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        upper_left: BackendCoord,
        bottom_right: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Drawing {
        either!(self, backend => backend.draw_rect(upper_left, bottom_right, style, fill))
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Drawing {
        either!(self, backend => backend.draw_path(path, style))
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        center: BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Drawing {
        either!(self, backend => backend.draw_circle(center, radius, style, fill))
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        corners: I,
        style: &S,
    ) -> Drawing {
        either!(self, backend => backend.fill_polygon(corners, style))
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        position: BackendCoord,
    ) -> Drawing {
        match self {
            Self::Pixels(backend) => draw_letters(backend, text, style, position),
            Self::Vectors(backend) => backend.draw_text(text, style, position).map_err(failed),
        }
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Drawing<(u32, u32)> {
        let line = set(text, style.size())?;
        Ok((line.width.ceil() as u32, (1.2 * line.em).ceil() as u32))
    }
}

fn set(text: &str, size: f64) -> Drawing<Line> {
    Line::set(text, size)
        .map_err(|error| DrawingErrorKind::DrawingError(io::Error::other(error.to_string())))
}

/// A text with kerning; the plotting library's own letters each begin at a whole pixel. The baseline is
/// where the SVG file has it.
fn draw_letters<S: BackendTextStyle>(
    backend: &mut BitMapBackend<'_>,
    text: &str,
    style: &S,
    (x, y): BackendCoord,
) -> Drawing {
    let line = set(text, style.size())?;
    let across = match style.anchor().h_pos {
        HPos::Left => 0.0,
        HPos::Center => -line.width / 2.0,
        HPos::Right => -line.width,
    };
    let down = match style.anchor().v_pos {
        VPos::Top => 0.76 * line.em,
        VPos::Center => 0.27 * line.em,
        VPos::Bottom => -0.27 * line.em,
    };
    let (across, down) = (across.round() as i32, down.round() as i32);
    let (width, height) = backend.get_size();
    let turn = style.transform();
    let color = style.color();
    let mut drawn = Ok(());
    line.draw(|dx, dy, coverage| {
        let (dx, dy) = turn.transform(dx + across, dy + down);
        let (px, py) = (x + dx, y + dy);
        let inside = (0..width as i32).contains(&px) && (0..height as i32).contains(&py);
        if inside && drawn.is_ok() {
            let color = BackendColor {
                alpha: color.alpha * f64::from(coverage),
                ..color
            };
            drawn = backend.draw_pixel((px, py), color);
        }
    });
    drawn.map_err(failed)
}
