//! How a fused operation enters Burn: which tensors it serves, and its node on the autodiff tape.

use std::fmt::Debug;
use std::marker::PhantomData;

#[cfg(feature = "wgpu")]
use burn::backend::CubeDevice;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, BackendTensor, DispatchAutodiffContext, DispatchDevice, DispatchTensor,
    DispatchTensorKind, Flex,
};
use burn::tensor::{DType, Device, Tensor};

/// A flex tensor with its place on the tape.
type Node = FloatTensor<Autodiff<Flex>>;

/// Whether tensors of this device are in the memory of the cpu, which has the fused operations.
pub fn is_cpu(device: &Device) -> bool {
    matches!(
        device.clone().inner().as_dispatch(),
        DispatchDevice::Flex(_)
    )
}

/// Whether the tensors of this device are wgpu's.
#[cfg(feature = "wgpu")]
pub(super) fn is_wgpu(device: &Device) -> bool {
    matches!(
        device.clone().inner().as_dispatch(),
        DispatchDevice::Cube(CubeDevice::Wgpu(_))
    )
}

/// Never: this program was built without wgpu.
#[cfg(not(feature = "wgpu"))]
pub(super) fn is_wgpu(_: &Device) -> bool {
    false
}

/// Whether the fused version serves this tensor: float32 on the CPU.
pub(super) fn is_fused<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_cpu(&x.device())
}

/// Whether the fused version can use this tensor as a weight: as [`is_fused`], or in half precision
/// and off the tape.
pub(super) fn is_fused_weight<const D: usize>(x: &Tensor<D>) -> bool {
    let half = matches!(x.dtype(), DType::F16 | DType::BF16) && !x.is_require_grad();
    is_fused(x) || half && is_cpu(&x.device())
}

/// One input of a fused operation.
pub(super) struct Operand {
    value: FlexTensor,
    /// Present when gradients are wanted.
    node: Option<Node>,
    context: DispatchAutodiffContext,
}

impl<const D: usize> From<Tensor<D>> for Operand {
    /// Of a tensor for which [`is_fused`] holds.
    fn from(tensor: Tensor<D>) -> Self {
        let DispatchTensor { kind, autodiff } = tensor.into_dispatch();
        let (value, node) = match kind {
            DispatchTensorKind::Autodiff(inner) => {
                let node = flex(*inner).autodiff();
                (node.primitive().clone(), node.is_tracked().then_some(node))
            }
            plain => (flex(plain).float(), None),
        };
        Self {
            value,
            node,
            context: autodiff,
        }
    }
}

/// The values of a tensor for which [`is_fused`] holds.
pub(super) fn value<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    Operand::from(tensor).value
}

/// A tensor off the tape.
pub(super) fn constant<const D: usize>(value: FlexTensor) -> Tensor<D> {
    wrap(value, DispatchAutodiffContext::Disabled)
}

fn flex(kind: DispatchTensorKind) -> BackendTensor<Flex> {
    match kind {
        DispatchTensorKind::Flex(tensor) => tensor,
        other => unreachable!("a fused operation was given {other:?}"),
    }
}

/// What an operation keeps for its backward pass, and that pass.
pub(super) trait Gradient<const N: usize>: Clone + Send + Debug + 'static {
    /// From the gradient of the output those of the inputs; only the wanted ones are used.
    fn backward(self, grad: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N];
}

#[derive(Debug)]
struct Step<G>(PhantomData<G>);

impl<const N: usize, G: Gradient<N>> Backward<Flex, N> for Step<G> {
    type State = G;

    fn backward(self, ops: Ops<G, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let results = ops.state.backward(grad, wanted);
        for (parent, result) in ops.parents.into_iter().zip(results) {
            if let (Some(parent), Some(result)) = (parent, result) {
                grads.register::<Flex>(parent.id, result);
            }
        }
    }
}

/// Runs `forward` on the values and puts it on the tape when any operand is tracked. Operands off
/// the tape are constants and cost nothing in the backward pass.
pub(super) fn record<const N: usize, const D: usize, G: Gradient<N>>(
    operands: [Operand; N],
    forward: impl FnOnce([FlexTensor; N]) -> (FlexTensor, G),
) -> Tensor<D> {
    record_for(operands, |operands, _| forward(operands))
}

/// [`record`] of an operation that keeps less when the gradients of some operands are not wanted:
/// `forward` is told for each operand whether its gradient is wanted.
pub(super) fn record_for<const N: usize, const D: usize, G: Gradient<N>>(
    operands: [Operand; N],
    forward: impl FnOnce([FlexTensor; N], [bool; N]) -> (FlexTensor, G),
) -> Tensor<D> {
    let context = operands
        .iter()
        .fold(DispatchAutodiffContext::Disabled, |context, operand| {
            context.merge(operand.context)
        });
    let wanted = operands.each_ref().map(|operand| operand.node.is_some());
    if !wanted.contains(&true) {
        let (output, _) = forward(operands.map(|operand| operand.value), wanted);
        return wrap(output, context);
    }
    let guards = operands.each_ref().map(|operand| match &operand.node {
        Some(node) => node.node(),
        None => Node::new(operand.value.clone()).node(),
    });
    let (output, gradient) = forward(operands.map(|operand| operand.value), wanted);
    let step = Step(PhantomData)
        .prepare::<NoCheckpointing>(guards)
        .compute_bound()
        .stateful();
    let node = match step {
        OpsKind::Tracked(step) => step.finish(gradient, output),
        OpsKind::UnTracked(step) => step.finish(output),
    };
    let kind = DispatchTensorKind::Flex(BackendTensor::Autodiff(node));
    Tensor::from_dispatch(DispatchTensor {
        kind: DispatchTensorKind::Autodiff(Box::new(kind)),
        autodiff: context,
    })
}

/// A constant in the given context.
fn wrap<const D: usize>(value: FlexTensor, context: DispatchAutodiffContext) -> Tensor<D> {
    let kind = match context {
        DispatchAutodiffContext::Disabled => DispatchTensorKind::Flex(BackendTensor::Float(value)),
        DispatchAutodiffContext::Enabled(_) => {
            let kind = DispatchTensorKind::Flex(BackendTensor::Autodiff(Node::new(value)));
            DispatchTensorKind::Autodiff(Box::new(kind))
        }
    };
    Tensor::from_dispatch(DispatchTensor {
        kind,
        autodiff: context,
    })
}
