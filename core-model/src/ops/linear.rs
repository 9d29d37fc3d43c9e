//! The linear map over the last dimension.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Shape, Tensor};

use super::gemm::{Right, Start, gemm, gemm_by, reads_panels};
use super::memory::{
    Output, TASKS, View, buffer, chunks, dims, run, tensor, values, widened, with_scratch,
};
use super::plain;
use super::simd::vectorised;
use super::tape::{Gradient, Operand, is_fused, is_fused_weight, record_for};
use super::transpose::{transpose, transpose_to};

/// Multiplications that make a task worth its start.
const TASK: usize = 1 << 20;

/// A weight of more elements than this does not stay in a core's cache, so that a task must have
/// many rows for each reading of it.
const LARGE: usize = 1 << 17;

/// Outputs of a task are a multiple of this: panels of three vectors.
const GROUP: usize = 96;

/// Rows of a task are a multiple of this: tiles of six or eight rows.
const BLOCK: usize = 48;

/// `x W^T + b`: [.., in] with `weight` [out, in] and `bias` `[out]` to [.., out].
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    if !(is_fused(&x) && is_fused_weight(&weight) && bias.as_ref().is_none_or(is_fused)) {
        return plain::linear(x, weight, bias);
    }
    assert_eq!(
        x.dims()[D - 1],
        weight.dims()[1],
        "linear: input {:?} does not fit weight {:?}",
        x.dims(),
        weight.dims()
    );
    match bias {
        Some(bias) => {
            let operands = [Operand::from(x), weight.into(), bias.into()];
            record_for(operands, |[x, weight, bias], [_, wanted, _]| {
                let x = Rows::new(x);
                let y = x.times(&widened(&weight), Some(&bias.to_contiguous()));
                (y, LinearGradient::new(x, weight, wanted))
            })
        }
        None => record_for(
            [Operand::from(x), weight.into()],
            |[x, weight], [_, wanted]| {
                let x = Rows::new(x);
                let y = x.times(&widened(&weight), None);
                (y, LinearGradient::new(x, weight, wanted))
            },
        ),
    }
}

/// How a product is shared out: a task has some rows and a group of outputs.
#[derive(Debug, Clone, Copy)]
struct Shares {
    rows: usize,
    /// Tasks that the rows of all batches are shared out to.
    tasks: usize,
    /// Outputs of a group.
    width: usize,
}

impl Shares {
    fn new(x: &Rows, outputs: usize) -> Self {
        let size = x.columns * outputs;
        let large = size > LARGE;
        let rows = match TASK / size.max(1) {
            _ if large => 512,
            rows => (rows - rows % BLOCK).clamp(BLOCK, 21 * BLOCK),
        };
        let tasks = x.batches * x.rows.div_ceil(rows);
        // Few rows and a large weight: its outputs are shared out as well.
        let groups = if large { TASKS.div_ceil(tasks) } else { 1 };
        let width = outputs.div_ceil(groups).next_multiple_of(GROUP);
        Self { rows, tasks, width }
    }

    /// Whether the panels of the right matrix are made once for all tasks; otherwise each makes those that it
    /// reads.
    fn share_panels(self, x: &Rows) -> bool {
        self.tasks >= 4 && reads_panels([self.rows.min(x.rows), self.width, x.columns])
    }
}

/// A tensor [.., columns] as `batches` matrices of `rows` rows with one pair of strides, so that
/// a permuted image need not be copied.
#[derive(Debug, Clone)]
struct Rows {
    x: FlexTensor,
    batches: usize,
    rows: usize,
    columns: usize,
    batch_stride: isize,
    view: View,
}

impl Rows {
    fn new(x: FlexTensor) -> Self {
        match Self::of(&x) {
            Some(rows) => rows,
            None => Self::of(&x.to_contiguous()).expect("a contiguous tensor is one matrix"),
        }
    }

    fn of(x: &FlexTensor) -> Option<Self> {
        let (shape, strides) = (x.layout().shape(), x.layout().strides());
        if strides.iter().any(|&stride| stride < 0) {
            return None;
        }
        let last = shape.num_dims() - 1;
        let (mut rows, mut row_stride) = (1, 0);
        let (mut batches, mut batch_stride) = (1, 0);
        for dim in (0..last).rev().filter(|&dim| shape[dim] != 1) {
            let (size, stride) = (shape[dim], strides[dim]);
            if batches == 1 && rows == 1 {
                (rows, row_stride) = (size, stride);
            } else if batches == 1 && stride == row_stride * rows as isize {
                rows *= size;
            } else if batches == 1 {
                (batches, batch_stride) = (size, stride);
            } else if stride == batch_stride * batches as isize {
                batches *= size;
            } else {
                return None;
            }
        }
        let at = x.storage::<f32>().as_ptr();
        Some(Self {
            batches,
            rows,
            columns: shape[last],
            batch_stride,
            view: View {
                at: at.wrapping_add(x.layout().start_offset()),
                row: row_stride,
                column: strides[last],
            },
            x: x.clone(),
        })
    }

    fn matrix(&self, batch: usize) -> View {
        View {
            at: self
                .view
                .at
                .wrapping_offset(batch as isize * self.batch_stride),
            ..self.view
        }
    }

    /// `x W^T + b` with `weight` [out, columns].
    fn times(&self, weight: &FlexTensor, bias: Option<&FlexTensor>) -> FlexTensor {
        let [outputs, _] = dims(weight);
        let mut shape = self.x.shape();
        let last = shape.num_dims() - 1;
        shape[last] = outputs;
        let mut y = buffer(self.batches * self.rows * outputs);
        let source = View::of(weight, 0, 1, &[]);
        let size = self.columns * outputs;
        let by_panels = size > LARGE || Shares::new(self, outputs).share_panels(self);
        if Right::Turned(source).is_packable() && by_panels {
            let is_less = 2 * self.rows * (self.columns + outputs) < size;
            match self.turned().filter(|_| is_less) {
                Some(right) => self.multiply_turned(right, source, outputs, bias, &mut y),
                None => self.multiply(Right::Turned(source), outputs, bias, &mut y),
            }
            return tensor(y, shape);
        }
        with_scratch(size, |transposed_weight| {
            chunks(transposed_weight, 64 * outputs, size, |i, part| {
                let columns = part.len() / outputs;
                #[expect(unsafe_code, reason = "a weight with arbitrary strides")]
                // SAFETY: columns of the view of the weight, which has these sizes.
                unsafe {
                    transpose(source.from(0, 64 * i), outputs, columns, part);
                }
            });
            let right = View::rows(transposed_weight, outputs);
            self.multiply(Right::Rows(right), outputs, bias, &mut y);
        });
        tensor(y, shape)
    }

    /// The transposed of these rows as a right matrix [columns, rows], if they are one matrix.
    fn turned(&self) -> Option<Right> {
        match self.view {
            _ if self.batches > 1 => None,
            x if x.column == 1 => Some(Right::Turned(x)),
            x if x.row == 1 => Some(Right::Rows(x.transposed())),
            _ => None,
        }
    }

    /// Into `y` the product `x W^T` as the transposed of `W x^T`, of which `right` is the second factor:
    /// for few rows, with which there is less to turn than the weight. Sums have the same order.
    fn multiply_turned(
        &self,
        right: Right,
        weight: View,
        outputs: usize,
        bias: Option<&FlexTensor>,
        y: &mut [f32],
    ) {
        let (rows, columns) = (self.rows, self.columns);
        let work = rows * columns * outputs / 32;
        let bias = bias.map(values);
        let target = Output::new(y);
        with_scratch(columns * rows, |packed| {
            #[expect(unsafe_code, reason = "a matrix given by its address")]
            // SAFETY: the matrix of `self`, which keeps it alive.
            let right = unsafe { right.packed_by_all([columns, rows], packed) };
            run(outputs.div_ceil(GROUP), work, |i| {
                let first = i * GROUP;
                let count = GROUP.min(outputs - first);
                let bias = bias.map_or(Start::Zero, |bias| Start::Rows(&bias[first..][..count]));
                with_scratch(count * rows, |product| {
                    let sizes = [count, rows, columns];
                    let turned = Output::new(product).view(0, rows, 1);
                    let y = target.view(first, outputs, 1).at.cast_mut();
                    #[expect(unsafe_code, reason = "each task writes its own outputs")]
                    // SAFETY: these outputs belong to this task alone; both factors are alive.
                    unsafe {
                        gemm_by(sizes, turned, bias, weight.from(first, 0), right);
                        transpose_to(turned, count, rows, y, outputs);
                    }
                });
            });
        });
    }

    /// Into `y` the product with the matrix `right` [columns, outputs], on top of `bias`.
    fn multiply(&self, right: Right, outputs: usize, bias: Option<&FlexTensor>, y: &mut [f32]) {
        let shares = Shares::new(self, outputs);
        let group = |i| right.skip_columns(i * shares.width);
        if !(right.is_packable() && shares.share_panels(self)) {
            return self.multiply_by(group, shares, outputs, bias, y);
        }
        with_scratch(self.columns * outputs, |packed| {
            let parts = packed.chunks_mut(self.columns * shares.width);
            let packed = parts.enumerate().map(|(i, part)| {
                let sizes = [self.columns, part.len() / self.columns];
                #[expect(unsafe_code, reason = "a matrix given by its address")]
                // SAFETY: columns of the caller's matrix.
                unsafe {
                    group(i).packed_by_all(sizes, part)
                }
            });
            let packed: Vec<Right> = packed.collect();
            self.multiply_by(|i| packed[i], shares, outputs, bias, y);
        });
    }

    /// [`Self::multiply`] where `group` tells the right matrix of a group of outputs.
    fn multiply_by(
        &self,
        group: impl Fn(usize) -> Right + Sync,
        shares: Shares,
        outputs: usize,
        bias: Option<&FlexTensor>,
        y: &mut [f32],
    ) {
        let (tasks, groups) = (
            self.rows.div_ceil(shares.rows),
            outputs.div_ceil(shares.width),
        );
        let work = self.batches * self.rows * self.columns * outputs / 32;
        let target = Output::new(y);
        let bias = bias.map_or(Start::Zero, |bias| Start::Columns(values(bias)));
        run(shares.tasks * groups, work, |i| {
            let (i, group_number) = (i / groups, i % groups);
            let (batch, first) = (i / tasks, i % tasks * shares.rows);
            let first_output = group_number * shares.width;
            let rows = shares.rows.min(self.rows - first);
            let width = shares.width.min(outputs - first_output);
            let start = (batch * self.rows + first) * outputs + first_output;
            #[expect(unsafe_code, reason = "each task writes its own rows and outputs")]
            // SAFETY: these outputs belong to this task alone, and `self` keeps the input alive.
            unsafe {
                let left = self.matrix(batch).from(first, 0);
                let target = target.view(start, outputs, 1);
                let sizes = [rows, width, self.columns];
                let bias = bias.columns(first_output, width);
                gemm_by(sizes, target, bias, left, group(group_number));
            }
        });
    }

    /// `g^T x`, [out, columns]: the gradient of the weight.
    fn outer(&self, grad: &FlexTensor, outputs: usize) -> FlexTensor {
        let g = values(grad);
        let mut dw = buffer(outputs * self.columns);
        let size = (outputs.div_ceil(4).div_ceil(16) * 16).clamp(16, 128);
        let work = self.batches * self.rows * self.columns * outputs / 32;
        let target = Output::new(&mut dw);
        run(outputs.div_ceil(size), work, |i| {
            let (first, count) = (i * size, size.min(outputs - i * size));
            for batch in 0..self.batches {
                let rows = &g[batch * self.rows * outputs..];
                let left = View::rows(rows, outputs).from(0, first).transposed();
                let target = target.view(first * self.columns, self.columns, 1);
                let sizes = [count, self.columns, self.rows];
                #[expect(unsafe_code, reason = "each task writes its own rows")]
                // SAFETY: these rows of dw belong to this task alone; g and x are alive.
                unsafe {
                    gemm(
                        sizes,
                        target,
                        Start::target_if(batch > 0),
                        left,
                        self.matrix(batch),
                    );
                }
            }
        });
        tensor(dw, [outputs, self.columns])
    }
}

vectorised! {
    /// Adds each row of `x` to `sums`.
    fn add_rows<const FMA: bool>(x: &[f32], sums: &mut [f32]) {
        for row in x.chunks_exact(sums.len()) {
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += x;
            }
        }
    }
}

/// The sums of the columns of a row-major matrix.
fn column_sums(x: &[f32], columns: usize) -> FlexTensor {
    const ROWS: usize = 256;
    let tasks = x.len().div_ceil(ROWS * columns.max(1));
    let mut partial = vec![0.0; tasks * columns];
    chunks(&mut partial, columns, x.len() / 4, |i, sums| {
        let start = i * ROWS * columns;
        add_rows(&x[start..(start + ROWS * columns).min(x.len())], sums);
    });
    let mut total = vec![0.0; columns];
    add_rows(&partial, &mut total);
    tensor(total, [columns])
}

#[derive(Debug, Clone)]
struct LinearGradient {
    /// The sizes of the input.
    shape: Shape,
    /// The input, which the gradient of the weight alone needs.
    x: Option<Rows>,
    /// As it is stored, in half precision or not.
    weight: FlexTensor,
}

impl LinearGradient {
    /// `trained` says whether the gradient of the weight will be wanted.
    fn new(x: Rows, weight: FlexTensor, trained: bool) -> Self {
        Self {
            shape: x.x.shape(),
            x: trained.then_some(x),
            weight,
        }
    }

    fn gradients(&self, grad: &FlexTensor, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let [outputs, inputs] = dims(&self.weight);
        let grad = grad.to_contiguous();
        let dx = wanted[0].then(|| {
            let mut dx = buffer(self.shape.num_elements());
            let weight = widened(&self.weight);
            let right = View::of(&weight, 0, 1, &[]);
            Rows::new(grad.clone()).multiply(Right::Rows(right), inputs, None, &mut dx);
            tensor(dx, self.shape.clone())
        });
        let x = self.x.as_ref().filter(|_| wanted[1]);
        let dw = x.map(|x| x.outer(&grad, outputs));
        let db = wanted[2].then(|| column_sums(values(&grad), outputs));
        [dx, dw, db]
    }
}

impl Gradient<3> for LinearGradient {
    fn backward(self, grad: FlexTensor, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        self.gradients(&grad, wanted)
    }
}

impl Gradient<2> for LinearGradient {
    fn backward(self, grad: FlexTensor, [x, weight]: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let [dx, dw, _] = self.gradients(&grad, [x, weight, false]);
        [dx, dw]
    }
}
