//! The part of Python's pickle machine that describes tensors and plain containers. Nothing is
//! imported and nothing is called: a name outside of the table is an error that says it.

use std::collections::HashMap;

/// Values that one pickle may make; an embedding has some dozens.
const MOST_VALUES: usize = 1 << 20;

/// Dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;

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
}

impl Numbers {
    /// Bytes of one number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Float16 | Self::BFloat16 => 2,
            Self::Float32 | Self::Int32 => 4,
            Self::Float64 | Self::Int64 => 8,
        }
    }
}

/// The names that are understood, and nothing else is.
const KNOWN: [(&str, &str, Known); 12] = [
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
#[derive(Debug)]
pub(super) struct Values {
    all: Vec<Value>,
    root: Id,
}

impl Values {
    pub(super) fn get(&self, id: Id) -> &Value {
        &self.all[id]
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }
}

/// Reads a pickle of protocol 2 to 5.
///
/// # Errors
/// In words: the name or operation that is not accepted, or that the pickle is damaged.
pub(super) fn unpickle(bytes: &[u8]) -> Result<Values, String> {
    let mut machine = Machine {
        input: bytes,
        all: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let root = machine.run()?;
    Ok(Values {
        all: machine.all,
        root,
    })
}

struct Machine<'a> {
    input: &'a [u8],
    all: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

const CUT: &str = "the pickle is cut off or damaged";

impl Machine<'_> {
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let [operation] = self.take()?;
            match operation {
                b'.' => return self.pop(),
                0x80 => {
                    let [protocol] = self.take()?;
                    if !(2..=5).contains(&protocol) {
                        return Err(format!("pickle protocol {protocol}, expected 2 to 5"));
                    }
                }
                0x95 => drop(self.take::<8>()?),
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'J' => {
                    let value = i32::from_le_bytes(self.take()?);
                    self.push(Value::Int(i64::from(value)))?;
                }
                b'K' => {
                    let [value] = self.take()?;
                    self.push(Value::Int(i64::from(value)))?;
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.take()?);
                    self.push(Value::Int(i64::from(value)))?;
                }
                0x8a => {
                    let [length] = self.take()?;
                    let value = long(self.bytes(length as usize)?)?;
                    self.push(Value::Int(value))?;
                }
                b'G' => {
                    let value = f64::from_be_bytes(self.take()?);
                    self.push(Value::Float(value))?;
                }
                b'X' => {
                    let length = u32::from_le_bytes(self.take()?);
                    self.text(length as usize)?;
                }
                0x8c | b'U' => {
                    let [length] = self.take()?;
                    self.text(length as usize)?;
                }
                b'(' => self.marks.push(self.stack.len()),
                b')' => self.push(Value::Tuple(Vec::new()))?,
                b']' => self.push(Value::List(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                0x85..=0x87 => {
                    let count = usize::from(operation - 0x84);
                    let first = self.stack.len().checked_sub(count).ok_or(CUT)?;
                    let items = self.stack.split_off(first);
                    self.push(Value::Tuple(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set(vec![key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set(items)?;
                }
                b'q' => {
                    let [place] = self.take()?;
                    self.remember(u64::from(place))?;
                }
                b'r' => {
                    let place = u32::from_le_bytes(self.take()?);
                    self.remember(u64::from(place))?;
                }
                0x94 => self.remember(self.memo.len() as u64)?,
                b'h' => {
                    let [place] = self.take()?;
                    self.recall(u64::from(place))?;
                }
                b'j' => {
                    let place = u32::from_le_bytes(self.take()?);
                    self.recall(u64::from(place))?;
                }
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.name(&module, &name)?;
                }
                0x93 => {
                    let name = self.pop_text()?;
                    let module = self.pop_text()?;
                    self.name(&module, &name)?;
                }
                b'Q' => {
                    let about = self.pop()?;
                    let storage = self.storage(about)?;
                    self.push(Value::Storage(storage))?;
                }
                // REDUCE calls and NEWOBJ makes; here both build one of the known things.
                b'R' | 0x81 => {
                    let arguments = self.pop()?;
                    let function = self.pop()?;
                    let value = self.build(function, arguments)?;
                    self.push(value)?;
                }
                b'b' => self.state()?,
                other => {
                    return Err(format!(
                        "pickle operation 0x{other:02x} is not accepted: only tensors and plain \
                         containers are read"
                    ));
                }
            }
        }
    }

    fn bytes(&mut self, count: usize) -> Result<&[u8], String> {
        let (bytes, rest) = self.input.split_at_checked(count).ok_or(CUT)?;
        self.input = rest;
        Ok(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, rest) = self.input.split_first_chunk().ok_or(CUT)?;
        self.input = rest;
        Ok(*bytes)
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.input.iter().position(|byte| *byte == b'\n');
        let line = self.bytes(end.ok_or(CUT)?)?.to_vec();
        self.take::<1>()?;
        String::from_utf8(line).map_err(|_| CUT.to_string())
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let bytes = self.bytes(length)?.to_vec();
        let text = String::from_utf8(bytes).map_err(|_| CUT.to_string())?;
        self.push(Value::Text(text))
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.all.len() == MOST_VALUES {
            return Err(format!("more than {MOST_VALUES} values"));
        }
        self.stack.push(self.all.len());
        self.all.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        Ok(self.stack.pop().ok_or(CUT)?)
    }

    fn pop_text(&mut self) -> Result<String, String> {
        let id = self.pop()?;
        match &self.all[id] {
            Value::Text(text) => Ok(text.clone()),
            _ => Err(CUT.into()),
        }
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or(CUT)?;
        if mark > self.stack.len() {
            return Err(CUT.into());
        }
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Result<&mut Value, String> {
        let id = *self.stack.last().ok_or(CUT)?;
        Ok(&mut self.all[id])
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        match self.top()? {
            Value::List(list) => list.extend(items),
            _ => return Err(CUT.into()),
        }
        Ok(())
    }

    /// Keys and values in turn.
    fn set(&mut self, items: Vec<Id>) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(CUT.into());
        }
        match self.top()? {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            _ => return Err(CUT.into()),
        }
        Ok(())
    }

    fn remember(&mut self, place: u64) -> Result<(), String> {
        let id = *self.stack.last().ok_or(CUT)?;
        self.memo.insert(place, id);
        if self.memo.len() > MOST_VALUES {
            return Err(format!("more than {MOST_VALUES} values"));
        }
        Ok(())
    }

    fn recall(&mut self, place: u64) -> Result<(), String> {
        let id = *self.memo.get(&place).ok_or(CUT)?;
        if self.stack.len() > MOST_VALUES {
            return Err(format!("more than {MOST_VALUES} values"));
        }
        self.stack.push(id);
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), String> {
        let known = KNOWN.iter().find(|(m, n, _)| (*m, *n) == (module, name));
        let Some((_, _, known)) = known else {
            return Err(format!(
                "it names `{module}.{name}`, which is not accepted: only tensors and plain \
                 containers are read, and nothing is executed"
            ));
        };
        self.push(Value::Known(*known))
    }

    fn tuple(&self, id: Id) -> Result<&[Id], String> {
        match &self.all[id] {
            Value::Tuple(items) => Ok(items),
            _ => Err(CUT.into()),
        }
    }

    fn count(&self, id: Id) -> Result<usize, String> {
        match &self.all[id] {
            Value::Int(value) => usize::try_from(*value).map_err(|_| CUT.to_string()),
            _ => Err(CUT.into()),
        }
    }

    fn counts(&self, id: Id) -> Result<Vec<usize>, String> {
        self.tuple(id)?.iter().map(|id| self.count(*id)).collect()
    }

    /// `('storage', kind, key, location, count)`.
    fn storage(&self, id: Id) -> Result<Storage, String> {
        let [tag, kind, key, ..] = self.tuple(id)? else {
            return Err(CUT.into());
        };
        match (&self.all[*tag], &self.all[*kind], &self.all[*key]) {
            (Value::Text(tag), Value::Known(Known::Numbers(numbers)), Value::Text(key))
                if tag == "storage" =>
            {
                Ok(Storage {
                    numbers: *numbers,
                    key: key.clone(),
                })
            }
            _ => Err(CUT.into()),
        }
    }

    fn build(&self, function: Id, arguments: Id) -> Result<Value, String> {
        let Value::Known(function) = self.all[function] else {
            return Err("it calls something that is no known name".into());
        };
        let arguments = self.tuple(arguments)?;
        match (function, arguments) {
            (Known::OrderedDict | Known::ParameterDict, []) => Ok(Value::Dict(Vec::new())),
            (Known::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let Value::Storage(storage) = &self.all[*storage] else {
                    return Err(CUT.into());
                };
                let tensor = StoredTensor {
                    storage: storage.clone(),
                    offset: self.count(*offset)?,
                    shape: self.counts(*shape)?,
                    strides: self.counts(*strides)?,
                };
                let dimensions = tensor.shape.len();
                if dimensions != tensor.strides.len() || dimensions > MOST_DIMENSIONS {
                    return Err(CUT.into());
                }
                Ok(Value::Tensor(tensor))
            }
            (Known::Set, [items]) => match &self.all[*items] {
                Value::List(items) => Ok(Value::List(items.clone())),
                _ => Err(CUT.into()),
            },
            (Known::RebuildParameter, [tensor, ..]) => match &self.all[*tensor] {
                Value::Tensor(tensor) => Ok(Value::Tensor(tensor.clone())),
                _ => Err(CUT.into()),
            },
            _ => Err(CUT.into()),
        }
    }

    /// The attributes of an object: of a `ParameterDict` the parameters are among them, those of
    /// an `OrderedDict` mean nothing here.
    fn state(&mut self) -> Result<(), String> {
        let state = self.pop()?;
        let Value::Dict(attributes) = self.all[state].clone() else {
            return Err(CUT.into());
        };
        let parameters = attributes.iter().find_map(|(key, value)| {
            let named = self.all[*key] == Value::Text("_parameters".into());
            named.then_some(*value)
        });
        let entries = match parameters.map(|id| self.all[id].clone()) {
            Some(Value::Dict(entries)) => entries,
            _ => Vec::new(),
        };
        match self.top()? {
            Value::Dict(dict) => dict.extend(entries),
            _ => return Err(CUT.into()),
        }
        Ok(())
    }
}

/// An integer of at most eight bytes, little-endian two's complement.
fn long(bytes: &[u8]) -> Result<i64, String> {
    if bytes.len() > 8 {
        return Err("an integer of more than 64 bits".into());
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Ok(i64::from_le_bytes(all))
}
