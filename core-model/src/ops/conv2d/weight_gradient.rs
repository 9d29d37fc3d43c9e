//! The gradient of the weight of a convolution of stride 1.

use super::geometry::{Block, Geometry};
use super::stencil::Padded;
use crate::ops::kernel::{Columns, Product, Start, Steps};
use crate::ops::memory::{Output, buffer, chunks, run, with_scratch};

/// Input channels of a task.
const CHANNELS: usize = 8;

/// Into `dw` [out, in * kernel] the sums over pixels of image times output gradient `g`.
///
/// The output gradients are transposed once, to [pixels, out], with zeros between their rows as the
/// padded images have them. A task then takes a few channels of all samples, so that nothing is
/// computed twice and nothing has to be added up across tasks.
pub(super) fn weight_gradient(x: &[f32], g: &[f32], geometry: &Geometry, dw: &mut [f32]) {
    let Geometry {
        batch,
        inputs,
        outputs,
        ..
    } = *geometry;
    let block = |sample: usize| Block {
        samples: sample..sample + 1,
        rows: 0..geometry.output[0],
    };
    let padded = Padded::new(geometry, &block(0));
    let (pixels, depth) = (geometry.pixels(), geometry.depth());
    let turned = padded.computed() * outputs;
    let mut gradients = buffer(batch * turned);
    chunks(&mut gradients, turned, 2 * g.len(), |sample, target| {
        let g = &g[sample * outputs * pixels..][..outputs * pixels];
        turn(g, &padded, &block(sample), geometry, target);
    });
    let target = Output::new(dw);
    let size = CHANNELS.min(inputs.div_ceil(2));
    run(inputs.div_ceil(size), geometry.work(), |i| {
        let channels = i * size..((i + 1) * size).min(inputs);
        let taps = padded.taps(geometry, channels.len());
        let planes = padded.len(channels.len());
        with_scratch(planes + taps.len() * outputs, |scratch| {
            let (images, sums) = scratch.split_at_mut(planes);
            for sample in 0..batch {
                padded.fill(geometry, &block(sample), channels.clone(), x, images);
                let product = Product {
                    rows: taps.len(),
                    depth: padded.computed(),
                    left: images.as_ptr(),
                    left_rows: Steps::Table(&taps),
                    left_column: 1,
                    right: gradients[sample * turned..].as_ptr(),
                    right_rows: Steps::Stride(outputs),
                    columns: Columns::First(outputs),
                    target: sums.as_mut_ptr(),
                    target_row: outputs,
                    start: if sample == 0 {
                        Start::Zero
                    } else {
                        Start::Target
                    },
                };
                #[expect(unsafe_code, reason = "the innermost loops take addresses")]
                // SAFETY: images, gradients and sums have the sizes stated.
                unsafe {
                    product.run();
                }
            }
            let first = channels.start * depth / inputs;
            for o in 0..outputs {
                #[expect(unsafe_code, reason = "each task writes its own channels")]
                // SAFETY: these channels of dw belong to this task alone.
                let row = unsafe { target.part(o * depth + first, taps.len()) };
                for (k, dw) in row.iter_mut().enumerate() {
                    *dw = sums[k * outputs + o];
                }
            }
        });
    });
}

/// From [out, pixels] to [pixels, out] with zeros between the rows of pixels.
fn turn(g: &[f32], padded: &Padded, block: &Block, geometry: &Geometry, target: &mut [f32]) {
    let (outputs, pixels, width) = (geometry.outputs, geometry.pixels(), geometry.output[1]);
    target.fill(0.0);
    for (_, y, place) in padded.output_rows(block) {
        for (o, g) in g.chunks_exact(pixels).enumerate() {
            let row = &g[y * width..(y + 1) * width];
            for (x, &g) in row.iter().enumerate() {
                target[(place + x) * outputs + o] = g;
            }
        }
    }
}
