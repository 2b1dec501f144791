//! The shape of a row: how columns, which are all flat, become lists and objects.
//!
//! Parquet stores the leaves of nested values, each entry with two numbers: the *definition level*, how many of the
//! optional and repeated parts of its path are there, and the *repetition level*, which repeated part it is one more of
//! (Melnik et al., Dremel, 2010). Which groups are lists and maps is for the format's rules on logical types to say,
//! older writers' forms included (apache/parquet-format, LogicalTypes.md).

use parquet::basic::{ConvertedType, LogicalType, Repetition};
use parquet::errors::ParquetError;
use parquet::schema::types::{SchemaDescriptor, Type};
use serde_json::{Map, Value};

use super::column::Column;
use super::form::Form;

/// How deep a schema may nest.
const MOST_DEEP: i16 = 100;

/// A field of a row, or a part of one.
#[derive(Debug)]
pub(super) struct Shape {
    /// Its first column; all of them lie side by side.
    first: usize,
    columns: usize,
    /// Definition level from which it is not null.
    defined: i16,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Value,
    Object(Vec<(String, Shape)>),
    /// Elements repeat at this level, and there are some from a definition level one above the list's own.
    List(i16, Box<Shape>),
    Entries(i16, Box<Shape>, Box<Shape>),
}

/// Why a row could not be put together.
pub(super) enum Broken {
    /// The file does not hold together.
    Damaged(ParquetError),
    /// JSON cannot hold the next value of this column.
    Value(usize, String),
}

impl From<ParquetError> for Broken {
    fn from(error: ParquetError) -> Self {
        Self::Damaged(error)
    }
}

/// The fields of a row, by name, in the file's order.
///
/// # Errors
/// When lists or maps are not written in a known form, or it nests too deep.
pub(super) fn fields(root: &Type) -> Result<Vec<(String, Shape)>, ParquetError> {
    let mut next = 0;
    root.get_fields().iter().map(|field| Ok((field.name().to_owned(), Shape::of(field, 0, 0, &mut next)?))).collect()
}

impl Shape {
    /// Of a field whose parents end at these levels; `next` is its first column.
    fn of(field: &Type, defined: i16, repeats: i16, next: &mut usize) -> Result<Self, ParquetError> {
        let info = field.get_basic_info();
        match if info.has_repetition() { info.repetition() } else { Repetition::REQUIRED } {
            Repetition::REQUIRED => Self::inside(field, defined, repeats, next),
            Repetition::OPTIONAL => Self::inside(field, defined + 1, repeats, next),
            // Outside of a list: a list of itself, never null.
            Repetition::REPEATED => {
                let element = Self::inside(field, defined + 1, repeats + 1, next)?;
                Ok(Self::list(defined, repeats + 1, element))
            }
        }
    }

    fn list(defined: i16, repeats: i16, element: Self) -> Self {
        let (first, columns) = (element.first, element.columns);
        Self { first, columns, defined, kind: Kind::List(repeats, Box::new(element)) }
    }

    /// Of a field once it is there.
    fn inside(field: &Type, defined: i16, repeats: i16, next: &mut usize) -> Result<Self, ParquetError> {
        if defined > MOST_DEEP || field.is_group() && field.get_fields().is_empty() {
            return Err(ParquetError::General(format!("a schema of this form is not read (at {})", field.name())));
        }
        let first = *next;
        if field.is_primitive() {
            *next += 1;
            return Ok(Self { first, columns: 1, defined, kind: Kind::Value });
        }
        let info = field.get_basic_info();
        let one = match field.get_fields() {
            [one] if one.get_basic_info().repetition() == Repetition::REPEATED => Some(one),
            _ => None,
        };
        let is_list =
            matches!(info.logical_type_ref(), Some(LogicalType::List)) || info.converted_type() == ConvertedType::LIST;
        let is_map = matches!(info.logical_type_ref(), Some(LogicalType::Map))
            || matches!(info.converted_type(), ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE);
        let kind = match one {
            Some(repeated) if is_list => {
                let (defined, repeats) = (defined + 1, repeats + 1);
                let element = match repeated.is_group().then(|| repeated.get_fields()) {
                    Some([element]) if !is_element(field, repeated, element) => {
                        Self::of(element, defined, repeats, next)?
                    }
                    _ => Self::inside(repeated, defined, repeats, next)?,
                };
                Kind::List(repeats, Box::new(element))
            }
            Some(repeated) if is_map && repeated.is_group() && repeated.get_fields().len() == 2 => {
                let (defined, repeats) = (defined + 1, repeats + 1);
                let key = Self::of(&repeated.get_fields()[0], defined, repeats, next)?;
                let value = Self::of(&repeated.get_fields()[1], defined, repeats, next)?;
                Kind::Entries(repeats, Box::new(key), Box::new(value))
            }
            _ => {
                let shape =
                    |part: &std::sync::Arc<Type>| Ok((part.name().to_owned(), Self::of(part, defined, repeats, next)?));
                Kind::Object(field.get_fields().iter().map(shape).collect::<Result<_, ParquetError>>()?)
            }
        };
        Ok(Self { first, columns: *next - first, defined, kind })
    }

    /// What kind of values it has.
    pub(super) fn form(&self, schema: &SchemaDescriptor) -> Form {
        match &self.kind {
            Kind::Value => Form::of(&schema.column(self.first)),
            Kind::Object(parts) => {
                Form::Object(parts.iter().map(|(name, part)| (name.clone(), part.form(schema))).collect())
            }
            Kind::List(_, element) => Form::List(Box::new(element.form(schema))),
            Kind::Entries(_, key, value) => Form::Entries(Box::new(key.form(schema)), Box::new(value.form(schema))),
        }
    }

    /// Takes the next value of this shape off its columns.
    pub(super) fn read(&self, columns: &mut [Column]) -> Result<Value, Broken> {
        let (definition, _) = peek(columns, self.first)?;
        if definition < self.defined {
            self.pass(columns)?;
            return Ok(Value::Null);
        }
        match &self.kind {
            Kind::Value => match columns[self.first].take()? {
                Some(Ok(value)) => Ok(value),
                Some(Err(reason)) => Err(Broken::Value(self.first, reason)),
                None => Ok(Value::Null),
            },
            Kind::Object(parts) => {
                let parts = parts.iter().map(|(name, part)| Ok((name.clone(), part.read(columns)?)));
                parts.collect::<Result<Map<_, _>, Broken>>().map(Value::Object)
            }
            Kind::List(repeats, element) => {
                let mut list = Vec::new();
                self.each(*repeats, columns, |columns| {
                    list.push(element.read(columns)?);
                    Ok(())
                })?;
                Ok(Value::Array(list))
            }
            Kind::Entries(repeats, key, value) => {
                let mut map = Map::new();
                self.each(*repeats, columns, |columns| {
                    let name = match key.read(columns)? {
                        Value::String(name) => name,
                        other => other.to_string(),
                    };
                    map.insert(name, value.read(columns)?);
                    Ok(())
                })?;
                Ok(Value::Object(map))
            }
        }
    }

    /// Calls `read` for each element of a list that is not null.
    fn each(
        &self,
        repeats: i16,
        columns: &mut [Column],
        mut read: impl FnMut(&mut [Column]) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        if peek(columns, self.first)?.0 == self.defined {
            return self.pass(columns);
        }
        loop {
            read(columns)?;
            match columns[self.first].peek()? {
                Some((_, repetition)) if repetition >= repeats => {}
                _ => return Ok(()),
            }
        }
    }

    /// Goes past one entry of each column.
    fn pass(&self, columns: &mut [Column]) -> Result<(), Broken> {
        for column in &mut columns[self.first..self.first + self.columns] {
            if column.take()?.is_some() {
                return Err(disagree().into());
            }
        }
        Ok(())
    }
}

fn peek(columns: &mut [Column], at: usize) -> Result<(i16, i16), ParquetError> {
    columns[at].peek()?.ok_or_else(disagree)
}

fn disagree() -> ParquetError {
    ParquetError::General("its columns disagree about the rows".to_owned())
}

/// Whether a list's repeated group with one field is the element itself, as some writers have it.
fn is_element(list: &Type, repeated: &Type, field: &Type) -> bool {
    field.get_basic_info().repetition() == Repetition::REPEATED
        || repeated.name() == "array"
        || repeated.name() == format!("{}_tuple", list.name())
}
