//! What a stored value means, and the JSON that it becomes.
//!
//! Numbers stay numbers. What JSON has no word for becomes text: decimals with all of their digits, dates and times in
//! the form of ISO 8601 (`2024-01-31`, `12:30:00.5`, `2024-01-31T12:30:00Z`, without the `Z` where the column is of local
//! times), UUIDs with hyphens, bytes that are UTF-8 as they are.

use chrono::{DateTime, NaiveDate, NaiveTime};
use parquet::basic::{ConvertedType, LogicalType, TimeUnit};
use parquet::data_type::{ByteArray, FixedLenByteArray, Int96};
use parquet::schema::types::ColumnDescriptor;
use serde_json::{Number, Value};

/// One value, or why JSON cannot hold it.
pub(super) type Cell = Result<Value, String>;

/// How the values of a column are to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// As they are stored.
    Plain,
    /// As integers without a sign.
    Unsigned,
    /// As decimals with this many digits after the point.
    Decimal(usize),
    /// As days since 1970.
    Date,
    /// As a time of day, in units of which this many are a second.
    Time(i64),
    /// As a moment since 1970, in units of which this many are a second; whether in UTC.
    Moment(i64, bool),
    /// As floating-point numbers of 16 bits.
    Half,
    /// As UUIDs.
    Uuid,
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::MILLIS => 1_000,
        TimeUnit::MICROS => 1_000_000,
        TimeUnit::NANOS => 1_000_000_000,
    }
}

impl Meaning {
    pub(super) fn of(column: &ColumnDescriptor) -> Self {
        match column.logical_type_ref() {
            Some(LogicalType::Time(time)) => return Self::Time(per_second(time.unit)),
            Some(LogicalType::Timestamp(moment)) => {
                return Self::Moment(per_second(moment.unit), moment.is_adjusted_to_u_t_c);
            }
            Some(LogicalType::Float16) => return Self::Half,
            Some(LogicalType::Uuid) => return Self::Uuid,
            // Every other logical type has a converted one that says the same.
            _ => {}
        }
        match column.converted_type() {
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64 => {
                Self::Unsigned
            }
            ConvertedType::DECIMAL => Self::Decimal(usize::try_from(column.type_scale()).unwrap_or(0)),
            ConvertedType::DATE => Self::Date,
            ConvertedType::TIME_MILLIS => Self::Time(1_000),
            ConvertedType::TIME_MICROS => Self::Time(1_000_000),
            ConvertedType::TIMESTAMP_MILLIS => Self::Moment(1_000, true),
            ConvertedType::TIMESTAMP_MICROS => Self::Moment(1_000_000, true),
            _ => Self::Plain,
        }
    }
}

/// A value as the file stores it.
pub(super) trait Stored {
    /// As JSON.
    fn cell(&self, meaning: Meaning) -> Cell;
}

impl Stored for bool {
    fn cell(&self, _: Meaning) -> Cell {
        Ok((*self).into())
    }
}

impl Stored for i32 {
    fn cell(&self, meaning: Meaning) -> Cell {
        match meaning {
            Meaning::Unsigned => Ok(self.cast_unsigned().into()),
            Meaning::Date => NaiveDate::from_epoch_days(*self)
                .map(|date| date.format("%Y-%m-%d").to_string().into())
                .ok_or_else(|| format!("{self} days from 1970 are no date")),
            _ => i64::from(*self).cell(meaning),
        }
    }
}

impl Stored for i64 {
    fn cell(&self, meaning: Meaning) -> Cell {
        match meaning {
            Meaning::Unsigned => Ok(self.cast_unsigned().into()),
            Meaning::Decimal(scale) => Ok(decimal((*self).into(), scale).into()),
            Meaning::Time(unit) => time(*self, unit),
            Meaning::Moment(unit, utc) => moment(*self, unit, utc),
            _ => Ok((*self).into()),
        }
    }
}

impl Stored for Int96 {
    fn cell(&self, _: Meaning) -> Cell {
        // Old writers have no other meaning for it than a moment, and do not say whether it is in UTC.
        moment(self.to_nanos(), 1_000_000_000, false)
    }
}

impl Stored for f32 {
    fn cell(&self, meaning: Meaning) -> Cell {
        f64::from(*self).cell(meaning)
    }
}

impl Stored for f64 {
    fn cell(&self, _: Meaning) -> Cell {
        if self.is_nan() {
            // How tables without nulls write that there is no value.
            return Ok(Value::Null);
        }
        Number::from_f64(*self).map(Value::Number).ok_or_else(|| format!("JSON has no number for {self}"))
    }
}

impl Stored for ByteArray {
    fn cell(&self, meaning: Meaning) -> Cell {
        bytes(self.data(), meaning)
    }
}

impl Stored for FixedLenByteArray {
    fn cell(&self, meaning: Meaning) -> Cell {
        bytes(self.data(), meaning)
    }
}

fn bytes(bytes: &[u8], meaning: Meaning) -> Cell {
    match meaning {
        Meaning::Decimal(scale) => {
            let value = big_endian(bytes).ok_or_else(|| "a decimal of more than 38 digits".to_owned())?;
            Ok(decimal(value, scale).into())
        }
        Meaning::Half => {
            let &[low, high] = bytes else { return Err(format!("{} bytes are no 16-bit number", bytes.len())) };
            half(u16::from_le_bytes([low, high])).cell(Meaning::Plain)
        }
        Meaning::Uuid if bytes.len() == 16 => {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let parts = [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| hex[part].concat());
            Ok(parts.join("-").into())
        }
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(error) => Err(format!("{} bytes that are not UTF-8 (from byte {})", bytes.len(), error.valid_up_to())),
        },
    }
}

/// A two's complement integer, if 128 bits hold it.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let fill = if bytes.first().is_some_and(|first| first & 0x80 != 0) { 0xff } else { 0 };
    let (spare, kept) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut buffer = [fill; 16];
    buffer[16 - kept.len()..].copy_from_slice(kept);
    let value = i128::from_be_bytes(buffer);
    // The bytes left out must be no more than the sign.
    (spare.iter().all(|byte| *byte == fill) && (value < 0) == (fill == 0xff)).then_some(value)
}

/// `-12.50` for -1250 and a scale of 2.
fn decimal(value: i128, scale: usize) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

/// Whole seconds, and nanoseconds beyond them.
fn seconds(value: i64, per_second: i64) -> (i64, u32) {
    let rest = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
    (value.div_euclid(per_second), u32::try_from(rest).expect("under a second"))
}

fn time(value: i64, unit: i64) -> Cell {
    let (whole, nanos) = seconds(value, unit);
    u32::try_from(whole)
        .ok()
        .and_then(|whole| NaiveTime::from_num_seconds_from_midnight_opt(whole, nanos))
        .map(|time| time.format("%H:%M:%S%.f").to_string().into())
        .ok_or_else(|| format!("{value} is no time of day"))
}

fn moment(value: i64, unit: i64, utc: bool) -> Cell {
    let (whole, nanos) = seconds(value, unit);
    let moment = DateTime::from_timestamp(whole, nanos).ok_or_else(|| format!("{value} is no moment in time"))?;
    let text = moment.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f");
    Ok(format!("{text}{}", if utc { "Z" } else { "" }).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit() {
        assert_eq!(decimal(-1250, 2), "-12.50");
        assert_eq!(decimal(5, 3), "0.005");
        assert_eq!(decimal(-5, 1), "-0.5");
        assert_eq!(decimal(7, 0), "7");
        assert_eq!(big_endian(&[0xff, 0xfe]), Some(-2));
        assert_eq!(big_endian(&[0; 32]), Some(0));
        assert_eq!(big_endian(&[]), Some(0));
        let wide = [[1].as_slice(), &[0; 16]].concat();
        assert_eq!(big_endian(&wide), None);
        let above = [[0].as_slice(), &[0x80], &[0; 15]].concat();
        assert_eq!(big_endian(&above), None);
    }

    #[test]
    fn moments_before_1970_and_fractions_are_right() {
        assert_eq!(moment(-1, 1_000, true), Ok("1969-12-31T23:59:59.999Z".into()));
        assert_eq!(moment(1_700_000_000, 1, false), Ok("2023-11-14T22:13:20".into()));
        assert!(moment(i64::MAX, 1_000, true).is_err());
        assert!(time(-1, 1_000).is_err());
        assert!(i32::MAX.cell(Meaning::Date).is_err());
    }

    #[test]
    fn half_precision_numbers_are_exact() {
        let found = [0x3c00, 0xc000, 0x0001, 0x7bff, 0x3555].map(|bits| half(bits).to_string());
        assert_eq!(found, ["1", "-2", "0.00000005960464477539063", "65504", "0.333251953125"]);
        assert!(half(0x7c00).is_infinite() && half(0x7e00).is_nan());
    }

    #[test]
    fn an_infinite_number_is_refused_and_one_that_is_none_is_null() {
        assert_eq!(f64::NAN.cell(Meaning::Plain), Ok(Value::Null));
        assert_eq!(f32::INFINITY.cell(Meaning::Plain), Err("JSON has no number for inf".to_owned()));
    }
}
