//! What kind of JSON a column becomes, so that files can be held against each other before their rows are read.

use std::fmt;

use parquet::basic::{LogicalType, Type as Physical};
use parquet::schema::types::ColumnDescriptor;
use serde_json::{Map, Number, Value};

use super::value::Meaning;

/// The kind of a column's values. Any value may also be null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing but null.
    Null,
    /// True and false.
    Boolean,
    /// Whole numbers.
    Integer,
    /// Floating-point numbers.
    Number,
    /// Text, and bytes that are text.
    Text,
    /// Decimals, as text.
    Decimal,
    /// Dates, as text.
    Date,
    /// Times of day, as text.
    Time,
    /// Moments, as text.
    Moment,
    /// Lists of one kind.
    List(Box<Self>),
    /// Objects whose keys are data.
    Entries(Box<Self>, Box<Self>),
    /// Objects with these fields, in order.
    Object(Vec<(String, Self)>),
}

impl Form {
    /// Of a column that does not nest.
    pub(super) fn of(column: &ColumnDescriptor) -> Self {
        if matches!(column.logical_type_ref(), Some(LogicalType::Unknown)) {
            return Self::Null;
        }
        match (Meaning::of(column), column.physical_type()) {
            (Meaning::Decimal(_), _) => Self::Decimal,
            (Meaning::Date, _) => Self::Date,
            (Meaning::Time(_), _) => Self::Time,
            (Meaning::Moment(..), _) | (_, Physical::INT96) => Self::Moment,
            (Meaning::Half, _) | (_, Physical::FLOAT | Physical::DOUBLE) => Self::Number,
            (_, Physical::BOOLEAN) => Self::Boolean,
            (_, Physical::INT32 | Physical::INT64) => Self::Integer,
            (_, Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY) => Self::Text,
        }
    }

    /// Whether values of another kind can stand where this one is, as [`Self::take`] makes them do: whole numbers as
    /// floating-point ones, nulls as anything, and objects with their fields in another order or without some.
    pub fn takes(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Null) | (Self::Number, Self::Integer) => true,
            (Self::List(one), Self::List(other)) => one.takes(other),
            (Self::Entries(key, value), Self::Entries(other_key, other_value)) => {
                key.takes(other_key) && value.takes(other_value)
            }
            (Self::Object(fields), Self::Object(others)) => others
                .iter()
                .all(|(name, other)| fields.iter().any(|(own_name, own)| own_name == name && own.takes(other))),
            _ => self == other,
        }
    }

    /// A value of another kind as one of this.
    pub fn take(&self, value: Value) -> Value {
        match (self, value) {
            (Self::Number, Value::Number(number)) if !number.is_f64() => {
                number.as_f64().and_then(Number::from_f64).map_or(Value::Number(number), Value::Number)
            }
            (Self::List(form), Value::Array(items)) => items.into_iter().map(|item| form.take(item)).collect(),
            (Self::Entries(_, form), Value::Object(entries)) => {
                Value::Object(entries.into_iter().map(|(key, value)| (key, form.take(value))).collect())
            }
            (Self::Object(fields), Value::Object(mut found)) => {
                let mut field = |(name, form): &(String, Self)| {
                    (name.clone(), form.take(found.shift_remove(name).unwrap_or(Value::Null)))
                };
                Value::Object(fields.iter().map(&mut field).collect::<Map<_, _>>())
            }
            (_, value) => value,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => out.write_str("null"),
            Self::Boolean => out.write_str("boolean"),
            Self::Integer => out.write_str("integer"),
            Self::Number => out.write_str("number"),
            Self::Text => out.write_str("text"),
            Self::Decimal => out.write_str("decimal"),
            Self::Date => out.write_str("date"),
            Self::Time => out.write_str("time"),
            Self::Moment => out.write_str("timestamp"),
            Self::List(form) => write!(out, "list of {form}"),
            Self::Entries(key, value) => write!(out, "map of {key} to {value}"),
            Self::Object(fields) => {
                out.write_str("{")?;
                for (at, (name, form)) in fields.iter().enumerate() {
                    write!(out, "{}{name}: {form}", if at == 0 { "" } else { ", " })?;
                }
                out.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(fields: &[(&str, Form)]) -> Form {
        Form::Object(fields.iter().map(|(name, form)| ((*name).to_owned(), form.clone())).collect())
    }

    #[test]
    fn fields_in_another_order_or_fewer_of_them_fit_and_others_do_not() {
        let wanted = Form::List(Box::new(object(&[("role", Form::Text), ("score", Form::Number)])));
        let found = Form::List(Box::new(object(&[("score", Form::Integer), ("role", Form::Text)])));
        assert!(wanted.takes(&found) && !found.takes(&wanted));
        assert_eq!(wanted.take(json!([{"score": 1, "role": "a"}])).to_string(), r#"[{"role":"a","score":1.0}]"#);
        let fewer = Form::List(Box::new(object(&[("role", Form::Text)])));
        assert!(wanted.takes(&fewer) && !fewer.takes(&wanted));
        assert_eq!(wanted.take(json!([{"role": "a"}])).to_string(), r#"[{"role":"a","score":null}]"#);
        assert!(!Form::Text.takes(&Form::Integer) && Form::Text.takes(&Form::Null) && !Form::Null.takes(&Form::Text));
        assert_eq!(wanted.to_string(), "list of {role: text, score: number}");
    }
}
