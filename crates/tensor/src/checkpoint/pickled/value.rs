//! What lies on the stack of the machine: a few kinds of values, shared and never copied.

use std::ops::Range;
use std::rc::Rc;

use safetensors::Dtype;

/// Tuples nest no deeper; those of dictionaries of tensors do so twice.
const DEEPEST: usize = 16;

/// Sides of a tensor, at most.
const SIDES: usize = 16;

/// Where a tensor's storage lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// Outside the program, under this key.
    Key(&'a str),
    /// In these bytes of the file.
    Bytes(Range<usize>),
}

/// A tensor as the program describes it; nothing of it is checked against a storage yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described<'a> {
    /// The storage.
    pub(super) storage: Place<'a>,
    /// Type of the storage's elements.
    pub(super) dtype: Dtype,
    /// Elements of the storage before the first.
    pub(super) offset: usize,
    /// Shape.
    pub(super) shape: Vec<usize>,
    /// Elements between neighbours along each side.
    pub(super) strides: Vec<usize>,
}

/// The names that a program may use.
#[derive(Clone, Copy, Debug)]
pub(super) enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.storage._load_from_bytes`
    LoadFromBytes,
    /// `torch.FloatStorage` and so on.
    Storage(Dtype),
}

#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    /// What nobody asks for: `None`, floats, lists, dictionaries inside others.
    Opaque,
    Flag(bool),
    Number(i64),
    /// A number of more than 64 bits, by its bytes.
    Long(&'a [u8]),
    Text(&'a str),
    /// A literal of bytes, by its place in the program.
    Bytes(Range<usize>),
    Tuple(Rc<[Value<'a>]>, usize),
    /// By number: it changes after it was remembered.
    List(usize),
    /// By number, as a list.
    Dictionary(usize),
    Global(Global),
    Storage(Place<'a>, Dtype),
    Tensor(Rc<Described<'a>>),
    Mark,
}

impl Value<'_> {
    /// What is kept of a value inside another.
    pub(super) fn inner(self) -> Self {
        match self {
            Value::Dictionary(_) | Value::List(_) | Value::Mark => Value::Opaque,
            other => other,
        }
    }
}

/// A tuple of values; refuses one that nests too deep.
pub(super) fn tuple(items: Vec<Value<'_>>) -> Result<Value<'_>, String> {
    let depth =
        items.iter().map(|item| if let Value::Tuple(_, depth) = item { *depth } else { 0 }).max().unwrap_or(0) + 1;
    if depth > DEEPEST {
        return Err(format!("tuples in it nest more than {DEEPEST} deep"));
    }
    Ok(Value::Tuple(items.into_iter().map(Value::inner).collect(), depth))
}

/// A tensor from the arguments of torch's function.
pub(super) fn tensor<'a>(
    (storage, dtype): (&Place<'a>, Dtype),
    offset: i64,
    (shape, strides): (&[Value<'a>], &[Value<'a>]),
) -> Result<Value<'a>, String> {
    Ok(Value::Tensor(Rc::new(Described {
        storage: storage.clone(),
        dtype,
        offset: size(offset)?,
        shape: sizes(shape)?,
        strides: sizes(strides)?,
    })))
}

/// A number that counts something.
pub(super) fn size(number: i64) -> Result<usize, String> {
    usize::try_from(number).map_err(|_| format!("a size in it is {number}"))
}

fn sizes(tuple: &[Value<'_>]) -> Result<Vec<usize>, String> {
    if tuple.len() > SIDES {
        return Err(format!("a tensor in it has {} sides", tuple.len()));
    }
    let size = |value: &Value<'_>| match value {
        Value::Number(number) => size(*number),
        _ => Err("a size in it is no number".to_owned()),
    };
    tuple.iter().map(size).collect()
}

/// The stored type of a storage class.
pub(super) fn storage_type(class: &str) -> Option<Dtype> {
    Some(match class {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}

/// A name that a program uses.
pub(super) fn global<'a>(module: &str, name: &str) -> Result<Value<'a>, String> {
    let global = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("torch.storage", "_load_from_bytes") => Some(Global::LoadFromBytes),
        ("torch" | "torch.cuda", class) => storage_type(class).map(Global::Storage),
        _ => None,
    };
    global
        .map(Value::Global)
        .ok_or_else(|| format!("it asks for {module}.{name}, which no dictionary of tensors needs"))
}
