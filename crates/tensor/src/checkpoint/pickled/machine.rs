//! The stack machine of pickles, as far as state dictionaries use it (`pickletools` documents the instructions).
//!
//! Values are shared, never copied, so a short program cannot make much of little; what a dictionary holds beside tensors
//! is forgotten at once, and tuples nest only so deep, so it cannot make deep structures either.

use std::collections::HashMap;
use std::rc::Rc;

use safetensors::Dtype;

use super::storage_type;

/// Tuples nest no deeper; those of state dictionaries do so twice.
const DEEPEST: usize = 16;

/// A tensor as the program describes it; nothing of it is checked against a storage yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// Key of the storage.
    pub(super) storage: String,
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
enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.FloatStorage` and so on.
    Storage(Dtype),
}

#[derive(Clone, Debug)]
enum Value {
    /// What nobody asks for: `None`, floats, lists, dictionaries inside others.
    Opaque,
    Number(i64),
    Text(Rc<str>),
    Tuple(Rc<[Value]>, usize),
    /// By number: a dictionary changes after it was remembered.
    Dictionary(usize),
    Global(Global),
    Storage(Rc<str>, Dtype),
    Tensor(Rc<Described>),
    Mark,
}

/// Runs a program; the tensors of the dictionary that it makes, in its order.
pub(super) fn run(program: &[u8]) -> Result<Vec<(String, Described)>, String> {
    let mut machine = Machine { program, at: 0, stack: Vec::new(), memo: HashMap::new(), dictionaries: Vec::new() };
    loop {
        if let Some(result) = machine.step()? {
            return Ok(result);
        }
    }
}

struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<usize, Value>,
    dictionaries: Vec<Vec<(Rc<str>, Value)>>,
}

impl<'a> Machine<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.program.len());
        let bytes = &self.program[self.at..end.ok_or("its program is truncated")?];
        self.at += count;
        Ok(bytes)
    }

    fn number(&mut self, size: usize) -> Result<usize, String> {
        Ok(self.bytes(size)?.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.program[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("its program is truncated")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a name in it is not UTF-8".to_owned())
    }

    fn text(&mut self, length: usize) -> Result<Value, String> {
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| "a text in it is not UTF-8")?;
        Ok(Value::Text(text.into()))
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(|| "its program takes what is not there".to_owned())
    }

    /// What lies above the last mark.
    fn pop_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark));
        let above = self.stack.split_off(mark.ok_or("its program lacks a mark")? + 1);
        self.stack.pop();
        Ok(above)
    }

    fn last(&self, count: usize) -> Result<usize, String> {
        self.stack.len().checked_sub(count).ok_or_else(|| "its program takes what is not there".to_owned())
    }

    /// One instruction; the result at the last.
    fn step(&mut self) -> Result<Option<Vec<(String, Described)>>, String> {
        let instruction = self.bytes(1)?[0];
        let value = match instruction {
            // PROTO, FRAME: how the program is laid out.
            0x80 => return self.bytes(1).map(|_| None),
            0x95 => return self.bytes(8).map(|_| None),
            b'.' => return self.finish().map(Some),
            b'(' => Value::Mark,
            // NONE, NEWTRUE, NEWFALSE, EMPTY_LIST
            b'N' | 0x88 | 0x89 | b']' => Value::Opaque,
            // BINFLOAT
            b'G' => self.bytes(8).map(|_| Value::Opaque)?,
            // BININT, BININT1, BININT2, LONG1
            b'J' => Value::Number(i64::from(self.number(4)? as u32 as i32)),
            b'K' => Value::Number(self.number(1)? as i64),
            b'M' => Value::Number(self.number(2)? as i64),
            0x8a => self.long()?,
            // BINUNICODE, SHORT_BINUNICODE
            b'X' => {
                let length = self.number(4)?;
                self.text(length)?
            }
            0x8c => {
                let length = self.number(1)?;
                self.text(length)?
            }
            // EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
            b')' => tuple(Vec::new())?,
            b't' => tuple(self.pop_to_mark()?)?,
            0x85..=0x87 => {
                let first = self.last(usize::from(instruction - 0x84))?;
                tuple(self.stack.split_off(first))?
            }
            b'}' => self.dictionary(),
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                global(module, name)?
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => global(&module, &name)?,
                _ => return Err("its program names something by what is no text".to_owned()),
            },
            b'R' => self.call()?,
            b'Q' => storage(&self.pop()?)?,
            // BINGET, LONG_BINGET
            b'h' | b'j' => {
                let place = self.number(if instruction == b'h' { 1 } else { 4 })?;
                self.memo.get(&place).cloned().ok_or("its program recalls what it did not remember")?
            }
            // BINPUT, LONG_BINPUT, MEMOIZE
            b'q' | b'r' | 0x94 => {
                let place = match instruction {
                    b'q' => self.number(1)?,
                    b'r' => self.number(4)?,
                    _ => self.memo.len(),
                };
                let top = self.stack[self.last(1)?].clone();
                self.memo.insert(place, top);
                return Ok(None);
            }
            // SETITEM, SETITEMS
            b's' => {
                let first = self.last(2)?;
                let pair = self.stack.split_off(first);
                return self.set(pair).map(|()| None);
            }
            b'u' => {
                let pairs = self.pop_to_mark()?;
                return self.set(pairs).map(|()| None);
            }
            // APPEND, APPENDS: to a list, whose contents nobody asks for. BUILD: attributes of a dictionary.
            b'a' | b'b' => return self.pop().map(|_| None),
            b'e' => return self.pop_to_mark().map(|_| None),
            other => return Err(format!("its program uses instruction {other:#04x}, which no state dictionary needs")),
        };
        self.stack.push(value);
        Ok(None)
    }

    fn long(&mut self) -> Result<Value, String> {
        let length = self.number(1)?;
        let bytes = self.bytes(length)?;
        if length > 8 {
            return Err("a number in it has more than 64 bits".to_owned());
        }
        let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = if is_negative { [0xff; 8] } else { [0; 8] };
        wide[..length].copy_from_slice(bytes);
        Ok(Value::Number(i64::from_le_bytes(wide)))
    }

    fn dictionary(&mut self) -> Value {
        self.dictionaries.push(Vec::new());
        Value::Dictionary(self.dictionaries.len() - 1)
    }

    /// Puts pairs into the dictionary on top of the stack.
    fn set(&mut self, pairs: Vec<Value>) -> Result<(), String> {
        let Some(Value::Dictionary(number)) = self.stack.last() else {
            return Err("its program puts an item into what is no dictionary".to_owned());
        };
        let mut pairs = pairs.into_iter();
        while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
            // Keys of other kinds are those of dictionaries that nobody asks for.
            if let Value::Text(key) = key {
                self.dictionaries[*number].push((key, inner(value)));
            }
        }
        Ok(())
    }

    /// REDUCE: a function and its arguments.
    fn call(&mut self) -> Result<Value, String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments, _), Value::Global(function)) = (arguments, function) else {
            return Err("its program calls what is no function".to_owned());
        };
        match (function, &*arguments) {
            (Global::OrderedDict, []) => Ok(self.dictionary()),
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
            (
                Global::RebuildTensor,
                [
                    Value::Storage(key, dtype),
                    Value::Number(offset),
                    Value::Tuple(shape, _),
                    Value::Tuple(strides, _),
                    ..,
                ],
            ) => Ok(Value::Tensor(Rc::new(Described {
                storage: key.to_string(),
                dtype: *dtype,
                offset: size(*offset)?,
                shape: sizes(shape)?,
                strides: sizes(strides)?,
            }))),
            (function, _) => Err(format!("its program calls {function:?} with other arguments than torch does")),
        }
    }

    fn finish(&mut self) -> Result<Vec<(String, Described)>, String> {
        let Value::Dictionary(number) = self.pop()? else {
            return Err("it holds no dictionary of tensors".to_owned());
        };
        let items = std::mem::take(&mut self.dictionaries[number]);
        let mut seen = std::collections::HashSet::new();
        let tensor = |(name, value): (Rc<str>, Value)| match value {
            Value::Tensor(_) if !seen.insert(Rc::clone(&name)) => Err(format!("{name:?} is in it twice")),
            Value::Tensor(tensor) => Ok((name.to_string(), (*tensor).clone())),
            _ => Err(format!("{name:?} in it is no tensor: it is more than a state dictionary")),
        };
        items.into_iter().map(tensor).collect()
    }
}

/// What is kept of a value inside another.
fn inner(value: Value) -> Value {
    match value {
        Value::Dictionary(_) | Value::Mark => Value::Opaque,
        other => other,
    }
}

fn tuple(items: Vec<Value>) -> Result<Value, String> {
    let depth =
        items.iter().map(|item| if let Value::Tuple(_, depth) = item { *depth } else { 0 }).max().unwrap_or(0) + 1;
    if depth > DEEPEST {
        return Err(format!("tuples in it nest more than {DEEPEST} deep"));
    }
    Ok(Value::Tuple(items.into_iter().map(inner).collect(), depth))
}

fn size(number: i64) -> Result<usize, String> {
    usize::try_from(number).map_err(|_| format!("a size in it is {number}"))
}

fn sizes(tuple: &[Value]) -> Result<Vec<usize>, String> {
    let size = |value: &Value| match value {
        Value::Number(number) => size(*number),
        _ => Err("a size in it is no number".to_owned()),
    };
    tuple.iter().map(size).collect()
}

/// A name that a program uses.
fn global(module: &str, name: &str) -> Result<Value, String> {
    let global = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("torch" | "torch.cuda", class) => storage_type(class).map(Global::Storage),
        _ => None,
    };
    global.map(Value::Global).ok_or_else(|| format!("it asks for {module}.{name}, which no state dictionary needs"))
}

/// BINPERSID: `("storage", class, key, location, elements)`.
fn storage(identity: &Value) -> Result<Value, String> {
    if let Value::Tuple(parts, _) = identity
        && let [Value::Text(kind), Value::Global(Global::Storage(dtype)), Value::Text(key), ..] = &**parts
        && **kind == *"storage"
    {
        return Ok(Value::Storage(Rc::clone(key), *dtype));
    }
    Err("its program asks for something outside it that is no storage".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORAGE: &[u8] =
        b"(X\x07\x00\x00\x00storagectorch\nHalfStorage\nX\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x06tQ";

    fn state(tensor: &[u8]) -> Vec<u8> {
        [b"\x80\x02}q\x00X\x01\x00\x00\x00w", tensor, b"s."].concat()
    }

    #[test]
    fn a_tensor_is_described_by_its_storage_offset_shape_and_strides() {
        let tensor = [
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            STORAGE,
            b"K\x01K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR",
        ];
        let found = run(&state(&tensor.concat())).unwrap();
        let expected =
            Described { storage: "7".into(), dtype: Dtype::F16, offset: 1, shape: vec![2, 3], strides: vec![3, 1] };
        assert_eq!(found, [("w".to_owned(), expected)]);
    }

    #[test]
    fn whatever_a_state_dictionary_does_not_need_is_an_error_that_names_it() {
        let negative = [b"ctorch._utils\n_rebuild_tensor_v2\n(", STORAGE, b"J\xff\xff\xff\xff)))tR"].concat();
        let cases: [(&[u8], &str); 9] = [
            (b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.", "it asks for os.system, which no state dictionary needs"),
            (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "it asks for posix.system"),
            (b"\x80\x02ctorch\nload\n.", "it asks for torch.load"),
            (b"\x80\x02cbuiltins\neval\n.", "it asks for builtins.eval"),
            (b"\x80\x02(i__main__\nx\n.", "instruction 0x69"),
            (b"\x80\x02K\x01.", "it holds no dictionary of tensors"),
            (&state(b"K\x01"), "\"w\" in it is no tensor"),
            (&state(&negative), "a size in it is -1"),
            (&[[b')'].as_slice(), &[0x85; 1000], b"."].concat(), "nest more than 16 deep"),
        ];
        for (program, expected) in cases {
            let found = run(program).unwrap_err();
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn a_program_cut_or_changed_anywhere_is_an_error_and_no_panic() {
        let tensor = [
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            STORAGE,
            b"K\x01K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR",
        ];
        let whole = state(&tensor.concat());
        for length in 0..whole.len() {
            assert!(run(&whole[..length]).is_err(), "cut at {length}");
            for value in 0..=u8::MAX {
                let mut changed = whole.clone();
                changed[length] = value;
                let _ = run(&changed);
            }
        }
    }
}
