//! Where a network's parameters come from, what they are called, and which of them are trained.
//!
//! A network is built by asking a [`ParamBuilder`] for each of its tensors by the key that
//! diffusers or transformers gives it. The builder answers from a checkpoint, strictly, or from
//! an initialiser; the network cannot tell the difference. It remembers the keys, so that saving
//! and choosing what to train speak the checkpoint's own names.

mod extension;
mod init;
mod names;
mod source;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::rc::Rc;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};

pub use extension::{Added, Extension, is_added};
pub(crate) use extension::{DOWN, ROTATION, UP};
pub use init::Init;
use names::Stored;
pub use names::{NamedParam, ParamNames, is_trained, set_trainable};
pub(crate) use source::read;
use source::{Source, check};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::precision::Precision;

/// Which of a folder's weights, and how they are kept in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weights<'a> {
    /// A variant, such as `fp16`; the plain ones when absent.
    pub variant: Option<&'a str>,
    /// The number format in memory.
    pub precision: Precision,
}

#[derive(Debug)]
struct Shared {
    source: Source,
    device: Device,
    precision: Precision,
    /// What layers get beyond a checkpoint's tensors.
    extensions: Vec<Extension>,
    used: RefCell<BTreeSet<String>>,
    names: RefCell<HashMap<ParamId, Stored>>,
}

/// Hands out the parameters below one path of a checkpoint, or fresh ones.
#[derive(Debug, Clone)]
pub struct ParamBuilder {
    shared: Rc<Shared>,
    prefix: String,
}

impl ParamBuilder {
    fn new(source: Source, precision: Precision, device: &Device) -> Self {
        let shared = Shared {
            source,
            device: device.clone(),
            precision,
            extensions: Vec::new(),
            used: RefCell::default(),
            names: RefCell::default(),
        };
        Self {
            shared: Rc::new(shared),
            prefix: String::new(),
        }
    }

    /// Parameters from a file. They are frozen; see [`set_trainable`].
    pub fn from_checkpoint(checkpoint: Checkpoint, device: &Device) -> Self {
        Self::new(Source::Checkpoint(checkpoint), Precision::Float32, device)
    }

    /// The same with the [matrices](Self::matrix) in this number format.
    pub fn from_checkpoint_in(
        checkpoint: Checkpoint,
        precision: Precision,
        device: &Device,
    ) -> Self {
        Self::new(Source::Checkpoint(checkpoint), precision, device)
    }

    /// For checking that a network fits a file: keys and shapes are compared, no values are read, and
    /// a parameter would hold zeros if it were used.
    pub(crate) fn from_header(checkpoint: Checkpoint) -> Self {
        let source = Source::Header(checkpoint);
        Self::new(source, Precision::Float32, &Device::flex())
    }

    /// For the keys and shapes of a network that is on no disk; a parameter would hold zeros if it
    /// were used.
    pub(crate) fn shapes() -> Self {
        Self::new(Source::Shapes, Precision::Float32, &Device::flex())
    }

    /// The tensors of a network, which is built again with further parameters: those of
    /// `extensions`.
    pub(crate) fn of_network<M: Module>(
        network: &M,
        names: &ParamNames,
        extensions: Vec<Extension>,
    ) -> Self {
        let mut source = Source::Shapes;
        let mut device = Device::flex();
        let mut precision = Precision::Float32;
        if !is_of_shapes(network) {
            let mut tensors = HashMap::new();
            names.read(network, |param| {
                device = param.value.device();
                match param.value.dtype() {
                    DType::F16 => precision = Precision::Float16,
                    DType::BF16 => precision = Precision::Bfloat16,
                    _ => {}
                }
                tensors.insert(param.name.to_string(), param.value);
            });
            source = Source::Network(tensors);
        }
        let shared = Shared {
            source,
            device,
            precision,
            extensions,
            used: RefCell::default(),
            names: RefCell::default(),
        };
        Self {
            shared: Rc::new(shared),
            prefix: String::new(),
        }
    }

    /// The tensors of a network, to build it again with more rows at the end of one of its tables.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such table, or its rows are of another width.
    pub(crate) fn with_more_rows<M: Module>(
        network: &M,
        names: &ParamNames,
        table: &str,
        rows: Tensor<2>,
    ) -> Result<Self> {
        let mut pb = Self::of_network(network, names, Vec::new());
        let shared = Rc::get_mut(&mut pb.shared);
        let Some(Source::Network(tensors)) = shared.map(|shared| &mut shared.source) else {
            return Err(Error::Invalid("the network has no values".to_string()));
        };
        let old = tensors.remove(table);
        let old = old.ok_or_else(|| Error::Invalid(format!("the network has no `{table}`")))?;
        let ([more, width], count) = (rows.dims(), old.dims()[0]);
        if !count.is_multiple_of(width) {
            return Err(Error::Invalid(format!(
                "`{table}` has {count} values, which are no rows of {width}"
            )));
        }
        let rows = rows.cast(old.dtype()).to_device(&old.device());
        let grown = Tensor::cat(vec![old, rows.reshape([more * width])], 0);
        tensors.insert(table.to_string(), grown);
        Ok(pb)
    }

    /// Fresh parameters, each a function of `seed` and its own key.
    pub fn random(seed: u64, device: &Device) -> Self {
        Self::new(Source::Random(seed), Precision::Float32, device)
    }

    /// The builder for everything below `name`.
    #[must_use]
    pub fn pp(&self, name: impl Display) -> Self {
        Self {
            shared: Rc::clone(&self.shared),
            prefix: self.key(&name.to_string()),
        }
    }

    fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_string()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }

    /// Where in the network it is.
    pub fn path(&self) -> &str {
        &self.prefix
    }

    /// What the layer below this path gets under the name `parameter` beside its weight, if
    /// anything.
    pub(crate) fn added(&self, parameter: &str) -> Option<Added> {
        let extensions = self.shared.extensions.iter();
        let mut found = extensions.filter(|extension| {
            extension.added.parameters().contains(&parameter)
                && extension.layers.contains(&self.prefix)
        });
        found.next().map(|extension| extension.added)
    }

    /// The format in which the network computes products and convolutions.
    pub(crate) fn computes_in(&self) -> DType {
        self.shared.precision.computed_on(&self.shared.device)
    }

    /// A parameter that an extension adds, in float32: the network's own where it has it already.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn add<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        stored: &[usize],
        init: Init,
    ) -> Result<Param<Tensor<D>>> {
        self.make(name, shape, stored, init, DType::F32)
    }

    /// Whether parameters are fresh.
    pub fn is_random(&self) -> bool {
        matches!(self.shared.source, Source::Random(_))
    }

    /// Whether a checkpoint, or the network that this one is built from, holds this key; false for fresh parameters.
    pub fn contains(&self, name: &str) -> bool {
        self.shared.source.contains(&self.key(name))
    }

    /// Leaves out tensors of a checkpoint that other networks of the same family hold, as
    /// transformers does, and says so in a warning. Keys are those below this path; call it when
    /// all parameters are made.
    pub fn skip(&self, unused: impl Fn(&str) -> bool) {
        let Source::Checkpoint(checkpoint) = &self.shared.source else {
            return;
        };
        let mut used = self.shared.used.borrow_mut();
        let start = self.key("");
        let skipped = checkpoint.keys().filter(|key| {
            let below = key.strip_prefix(&start);
            !used.contains(*key) && below.is_some_and(&unused)
        });
        let skipped: Vec<String> = skipped.map(String::from).collect();
        if let Some(first) = skipped.first() {
            tracing::warn!(
                "{}: `{first}` and {} further tensors are of another network and not used",
                checkpoint.path().display(),
                skipped.len() - 1
            );
        }
        used.extend(skipped);
    }

    /// The parameter `name` below this path.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::Shape`], naming file, key and shapes.
    pub fn get<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Result<Param<Tensor<D>>> {
        self.get_stored_as(name, shape, &shape, init)
    }

    /// The same, for a parameter that checkpoints hold with another shape, `stored`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_stored_as<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        stored: &[usize],
        init: Init,
    ) -> Result<Param<Tensor<D>>> {
        self.make(name, shape, stored, init, DType::F32)
    }

    /// A weight of a linear map or convolution, which are nearly all of a network: kept in the
    /// builder's [`Precision`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn matrix<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        stored: &[usize],
        init: Init,
    ) -> Result<Param<Tensor<D>>> {
        self.make(name, shape, stored, init, self.shared.precision.dtype())
    }

    fn make<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        stored: &[usize],
        init: Init,
        dtype: DType,
    ) -> Result<Param<Tensor<D>>> {
        let key = self.key(name);
        let initialized = |values: Vec<f32>| {
            let data = TensorData::new(values, shape);
            let tensor = Tensor::from_data(data, (&self.shared.device, dtype));
            Param::initialized(ParamId::new(), tensor)
        };
        let uninitialized = || {
            let zeros = move |device: &Device, _: bool| Tensor::zeros(shape, (device, dtype));
            let device = self.shared.device.clone();
            Param::uninitialized(ParamId::new(), zeros, device, false, shape.into())
        };
        let param = match &self.shared.source {
            Source::Checkpoint(checkpoint) => initialized(read(checkpoint, &key, stored)?),
            Source::Header(checkpoint) => {
                check(checkpoint, &key, stored)?;
                uninitialized()
            }
            Source::Random(seed) => initialized(init.draw(*seed, &key, shape.iter().product())),
            Source::Network(tensors) => match tensors.get(&key) {
                Some(tensor) => Param::initialized(ParamId::new(), tensor.clone().reshape(shape)),
                None => {
                    let extension = extension::of(&self.shared.extensions, &key)?;
                    initialized(init.draw(extension.seed, &key, shape.iter().product()))
                }
            },
            Source::Shapes => uninitialized(),
        };
        self.shared.used.borrow_mut().insert(key.clone());
        let stored = Stored {
            name: key,
            shape: stored.to_vec(),
        };
        self.shared.names.borrow_mut().insert(param.id, stored);
        Ok(param)
    }

    /// Ends the building of a network: nothing of the checkpoint may be left over, and no layer that
    /// an extension names.
    ///
    /// # Errors
    /// [`Error::UnexpectedTensor`] naming the first key that nothing asked for; [`Error::Invalid`]
    /// naming a layer that cannot be extended.
    pub fn finish(&self) -> Result<ParamNames> {
        let used = |key: &str| self.shared.used.borrow().contains(key);
        for extension in &self.shared.extensions {
            extension.check(used)?;
        }
        self.shared.source.check_all_used(used)?;
        Ok(ParamNames::new(self.shared.names.borrow().clone()))
    }
}

/// Whether a network was built of [shapes](ParamBuilder::shapes), without values.
fn is_of_shapes<M: Module>(network: &M) -> bool {
    struct Visitor(bool);
    impl ModuleVisitor for Visitor {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= !param.is_initialized();
        }
    }
    let mut visitor = Visitor(false);
    network.visit(&mut visitor);
    visitor.0
}

/// The values of a float tensor, row-major.
///
/// # Panics
/// When the tensor holds no floats: a programmer's error.
pub fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    match tensor.into_data().try_into_vec_as::<f32>() {
        Ok(values) => values,
        Err(error) => panic!("a float tensor has float values: {error:?}"),
    }
}
