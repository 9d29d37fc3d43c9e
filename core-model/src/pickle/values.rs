//! What a pickle may hold.

use std::collections::{BTreeSet, HashMap};

/// Values that one pickle may make; an embedding has some dozens.
pub(super) const MOST_VALUES: usize = 1 << 20;

pub(super) const CUT: &str = "the pickle is cut off or damaged";

/// Why a pickle of more than [`MOST_VALUES`] values is refused.
pub(super) fn too_many() -> String {
    format!("more than {MOST_VALUES} values")
}

/// A value's place among all values of a pickle. Containers hold places, so that a value that
/// occurs a million times is stored once.
pub(super) type Id = usize;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A known name, `module.name`.
    Known(Known),
    /// Numbers of one kind in a file of the archive.
    Storage(Storage),
    Tensor(StoredTensor),
    /// A name that is not understood, or what it would have made.
    Unknown,
}

/// What a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    OrderedDict,
    ParameterDict,
    Set,
    RebuildTensor,
    RebuildParameter,
    Numbers(Numbers),
}

/// The kinds of numbers of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    Float16,
    BFloat16,
    Float32,
    Float64,
    Int32,
    Int64,
    Int16,
    Int8,
    UInt8,
    Bool,
}

impl Numbers {
    /// Bytes of one number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Int8 | Self::UInt8 | Self::Bool => 1,
            Self::Float16 | Self::BFloat16 | Self::Int16 => 2,
            Self::Float32 | Self::Int32 => 4,
            Self::Float64 | Self::Int64 => 8,
        }
    }
}

impl Known {
    /// What a module's name stands for.
    pub(super) fn of(module: &str, name: &str) -> Option<Self> {
        let known = KNOWN.iter().find(|(m, n, _)| (*m, *n) == (module, name));
        known.map(|(_, _, known)| *known)
    }
}

/// The names that are understood, and nothing else is.
const KNOWN: [(&str, &str, Known); 16] = [
    // Modules have empty sets of names; Python 2 called the module otherwise.
    ("builtins", "set", Known::Set),
    ("__builtin__", "set", Known::Set),
    ("collections", "OrderedDict", Known::OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2", Known::RebuildTensor),
    (
        "torch._utils",
        "_rebuild_parameter",
        Known::RebuildParameter,
    ),
    (
        "torch.nn.modules.container",
        "ParameterDict",
        Known::ParameterDict,
    ),
    ("torch", "HalfStorage", Known::Numbers(Numbers::Float16)),
    (
        "torch",
        "BFloat16Storage",
        Known::Numbers(Numbers::BFloat16),
    ),
    ("torch", "FloatStorage", Known::Numbers(Numbers::Float32)),
    ("torch", "DoubleStorage", Known::Numbers(Numbers::Float64)),
    ("torch", "IntStorage", Known::Numbers(Numbers::Int32)),
    ("torch", "LongStorage", Known::Numbers(Numbers::Int64)),
    ("torch", "ShortStorage", Known::Numbers(Numbers::Int16)),
    ("torch", "CharStorage", Known::Numbers(Numbers::Int8)),
    ("torch", "ByteStorage", Known::Numbers(Numbers::UInt8)),
    ("torch", "BoolStorage", Known::Numbers(Numbers::Bool)),
];

/// Numbers in the archive's file `data/KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) numbers: Numbers,
    pub(super) key: String,
}

/// A view of a storage; offset and strides in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredTensor {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// All values of a pickle.
#[derive(Debug, Default)]
pub(super) struct Values {
    all: Vec<Value>,
    /// The outermost one.
    pub(super) root: Id,
    /// The names that are not understood, as `module.name`, sorted.
    pub(super) unknown: BTreeSet<String>,
}

impl Values {
    pub(super) fn get(&self, id: Id) -> &Value {
        &self.all[id]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Value {
        &mut self.all[id]
    }

    /// # Errors
    /// In words, when there are too many.
    pub(super) fn add(&mut self, value: Value) -> Result<Id, String> {
        if self.all.len() == MOST_VALUES {
            return Err(too_many());
        }
        self.all.push(value);
        Ok(self.all.len() - 1)
    }

    pub(super) fn tuple(&self, id: Id) -> Result<&[Id], String> {
        match self.get(id) {
            Value::Tuple(items) => Ok(items),
            _ => Err(CUT.into()),
        }
    }

    pub(super) fn count(&self, id: Id) -> Result<usize, String> {
        match self.get(id) {
            Value::Int(value) => usize::try_from(*value).map_err(|_| CUT.to_string()),
            _ => Err(CUT.into()),
        }
    }

    pub(super) fn counts(&self, id: Id) -> Result<Vec<usize>, String> {
        self.tuple(id)?.iter().map(|id| self.count(*id)).collect()
    }

    /// The bytes of one number of every storage.
    pub(super) fn widths(&self) -> HashMap<&str, usize> {
        let storages = self.all.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some((storage.key.as_str(), storage.numbers.size())),
            _ => None,
        });
        storages.collect()
    }
}
