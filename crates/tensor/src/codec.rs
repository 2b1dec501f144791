//! Stored weights to fp32 and back, in loops that the compiler turns into vector instructions.
//!
//! A widening is exact; a narrowing rounds to the nearest, ties to even, as libtorch does.

use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::Dtype;

use crate::dtype::FloatType;
use crate::system::vectorized;

/// Whether weights of this type can be merged: [`decode`] reads it.
pub fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F8_E4M3 | Dtype::F8_E5M2)
}

/// Widens stored weights (little endian, `values.len()` of them) to fp32; fp64 is narrowed.
///
/// # Panics
/// When the type is none of those that [`is_float`] names, or the lengths do not belong together.
pub fn decode(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    assert_eq!(bytes.len() * 8, values.len() * dtype.bitsize(), "bytes and values belong together");
    match dtype {
        Dtype::BF16 => vectorized(|| {
            for (value, pair) in values.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = f32::from_bits(u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16);
            }
        }),
        Dtype::F16 => {
            let mut halves = [f16::ZERO; BLOCK];
            for (values, bytes) in values.chunks_mut(BLOCK).zip(bytes.chunks(2 * BLOCK)) {
                let halves = &mut halves[..values.len()];
                for (half, pair) in halves.iter_mut().zip(bytes.chunks_exact(2)) {
                    *half = f16::from_le_bytes([pair[0], pair[1]]);
                }
                halves.convert_to_f32_slice(values);
            }
        }
        Dtype::F32 => {
            for (value, four) in values.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            }
        }
        Dtype::F64 => {
            for (value, eight) in values.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *value = f64::from_le_bytes(*eight) as f32;
            }
        }
        Dtype::F8_E4M3 => by_table(&E4M3, bytes, values),
        Dtype::F8_E5M2 => by_table(&E5M2, bytes, values),
        other => panic!("{other:?} is not a floating-point type that is read"),
    }
}

/// Widens stored weights (little endian, `values.len()` of them) to fp64, exactly.
///
/// # Panics
/// As [`decode`].
pub fn decode_exact(dtype: Dtype, bytes: &[u8], values: &mut [f64]) {
    assert_eq!(bytes.len() * 8, values.len() * dtype.bitsize(), "bytes and values belong together");
    if dtype == Dtype::F64 {
        for (value, eight) in values.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *value = f64::from_le_bytes(*eight);
        }
        return;
    }
    let mut narrow = [0.0f32; BLOCK];
    for (values, bytes) in values.chunks_mut(BLOCK).zip(bytes.chunks(BLOCK * dtype.bitsize() / 8)) {
        let narrow = &mut narrow[..values.len()];
        decode(dtype, bytes, narrow);
        vectorized(|| values.iter_mut().zip(narrow).for_each(|(value, narrow)| *value = f64::from(*narrow)));
    }
}

/// Narrows finite fp32 to the bytes of a type (little endian).
///
/// # Panics
/// When the lengths do not belong together.
pub fn encode(dtype: FloatType, values: &[f32], bytes: &mut [u8]) {
    assert_eq!(bytes.len() * 8, values.len() * dtype.header().bitsize(), "bytes and values belong together");
    match dtype {
        FloatType::BFloat16 => vectorized(|| {
            for (pair, value) in bytes.chunks_exact_mut(2).zip(values) {
                let bits = value.to_bits();
                // Half of the last place, less one where the last bit is even: a tie goes to the even one.
                let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
                pair.copy_from_slice(&(rounded as u16).to_le_bytes());
            }
        }),
        FloatType::Float16 => {
            let mut halves = [f16::ZERO; BLOCK];
            for (values, bytes) in values.chunks(BLOCK).zip(bytes.chunks_mut(2 * BLOCK)) {
                let halves = &mut halves[..values.len()];
                halves.convert_from_f32_slice(values);
                for (half, pair) in halves.iter().zip(bytes.chunks_exact_mut(2)) {
                    pair.copy_from_slice(&half.to_le_bytes());
                }
            }
        }
        FloatType::Float32 => {
            for (four, value) in bytes.chunks_exact_mut(4).zip(values) {
                four.copy_from_slice(&value.to_le_bytes());
            }
        }
    }
}

/// The first value that is infinite or no number.
pub fn first_not_finite(values: &[f32]) -> Option<usize> {
    const EXPONENT: u32 = 0x7f80_0000;
    // Without an early end, so that it is a vector loop.
    let any = vectorized(|| values.iter().fold(false, |any, value| any | (value.to_bits() & EXPONENT == EXPONENT)));
    any.then(|| values.iter().position(|value| !value.is_finite())).flatten()
}

/// The largest finite value of a type, plus half a unit in its last place: from there on, rounding gives infinity.
pub fn overflow(dtype: FloatType) -> f32 {
    match dtype {
        FloatType::Float16 => 65_520.0,
        // 0x7f7f8000: the tie between the largest bf16 and infinity.
        FloatType::BFloat16 => f32::from_bits(0x7f7f_8000),
        FloatType::Float32 => f32::INFINITY,
    }
}

/// Values that are converted together where another type stands between.
const BLOCK: usize = 256;

fn by_table(table: &[f32; 256], bytes: &[u8], values: &mut [f32]) {
    for (value, byte) in values.iter_mut().zip(bytes) {
        *value = table[usize::from(*byte)];
    }
}

/// `float8_e4m3fn`: no infinities, and one NaN of each sign.
static E4M3: [f32; 256] = eight_bits(4, 3);
/// `float8_e5m2`: half precision without its last eight bits.
static E5M2: [f32; 256] = eight_bits(5, 2);

/// Every value of an 8-bit type with a sign, `exponent` and `mantissa` bits (<https://arxiv.org/abs/2209.05433>).
const fn eight_bits(exponent: u32, mantissa: u32) -> [f32; 256] {
    let bias = (1 << (exponent - 1)) - 1;
    let mut table = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        let field = (byte >> mantissa) & ((1 << exponent) - 1);
        let fraction = byte & ((1 << mantissa) - 1);
        let last = field == (1 << exponent) - 1;
        let magnitude = if last && exponent == 5 {
            if fraction == 0 { f32::INFINITY } else { f32::NAN }
        } else if last && fraction == (1 << mantissa) - 1 {
            f32::NAN
        } else {
            // Subnormal numbers have the exponent of the smallest normal ones, and no leading one.
            let (leading, power) = if field == 0 { (0, 1) } else { (1 << mantissa, field) };
            let scale = f32::from_bits((127 + power - bias - mantissa) << 23);
            (leading + fraction) as f32 * scale
        };
        table[byte as usize] = if byte & 0x80 == 0 { magnitude } else { -magnitude };
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    /// Every pattern of sixteen bits in the upper half, with lower halves about the ties.
    fn interesting() -> Vec<f32> {
        let lower = [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x1fff, 0x2000, 0x1000, 0x0fff];
        let all = (0..=u32::from(u16::MAX)).flat_map(|upper| lower.map(|lower| f32::from_bits(upper << 16 | lower)));
        all.filter(|value| value.is_finite()).collect()
    }

    #[test]
    fn narrowing_is_that_of_libtorch_to_the_bit() {
        let values = interesting();
        for dtype in [FloatType::BFloat16, FloatType::Float16, FloatType::Float32] {
            let mut bytes = vec![0; values.len() * dtype.header().bitsize() / 8];
            encode(dtype, &values, &mut bytes);
            let mut expected = vec![0; bytes.len()];
            Tensor::from_slice(&values).to_kind(dtype.kind()).copy_data_u8(&mut expected, values.len());
            let size = dtype.header().bitsize() / 8;
            for (index, value) in values.iter().enumerate() {
                let at = index * size..(index + 1) * size;
                assert_eq!(bytes[at.clone()], expected[at], "{value:e} ({:#x}) as {dtype:?}", value.to_bits());
            }
        }
    }

    #[test]
    fn widening_is_that_of_libtorch_to_the_bit() {
        let sixteen: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let eight: Vec<u8> = (0..=u8::MAX).collect();
        let cases = [
            (Dtype::BF16, Kind::BFloat16, &sixteen),
            (Dtype::F16, Kind::Half, &sixteen),
            (Dtype::F8_E4M3, Kind::Float8e4m3fn, &eight),
            (Dtype::F8_E5M2, Kind::Float8e5m2, &eight),
        ];
        for (dtype, kind, bytes) in cases {
            let count = bytes.len() * 8 / dtype.bitsize();
            let mut values = vec![0.0; count];
            decode(dtype, bytes, &mut values);
            let expected = Tensor::from_data_size(bytes, &[count as i64], kind).to_kind(Kind::Float);
            let expected = Vec::<f32>::try_from(expected).unwrap();
            for (index, (value, expected)) in values.iter().zip(&expected).enumerate() {
                let same = value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan();
                assert!(same, "{dtype:?} {index:#x}: {value:e}, not {expected:e}");
            }
        }
    }

    #[test]
    fn widening_to_fp64_is_exact_in_every_block() {
        let doubles: Vec<f64> = (0..600).map(|at| 1.0 / f64::from(at + 1) + 1e300).collect();
        let bytes: Vec<u8> = doubles.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut found = vec![0.0; 600];
        decode_exact(Dtype::F64, &bytes, &mut found);
        assert_eq!(found, doubles);
        let halves: Vec<u8> = (0..600u16).flat_map(|at| (at << 5).to_le_bytes()).collect();
        let mut narrow = vec![0.0; 600];
        decode(Dtype::BF16, &halves, &mut narrow);
        decode_exact(Dtype::BF16, &halves, &mut found);
        assert!(narrow.iter().zip(&found).all(|(narrow, wide)| f64::from(*narrow).to_bits() == wide.to_bits()));
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_found() {
        let mut values = vec![1.0; 100];
        assert_eq!(first_not_finite(&values), None);
        values[70] = f32::NEG_INFINITY;
        values[50] = f32::NAN;
        assert_eq!(first_not_finite(&values), Some(50));
    }

    #[test]
    fn from_the_overflow_on_a_value_becomes_infinite_and_not_before() {
        for dtype in [FloatType::Float16, FloatType::BFloat16] {
            let stored = |value: f32| {
                let mut bytes = [0; 2];
                encode(dtype, &[value], &mut bytes);
                let mut back = [0.0];
                decode(dtype.header(), &bytes, &mut back);
                back[0]
            };
            let limit = overflow(dtype);
            assert!(stored(limit).is_infinite() && stored(f32::from_bits(limit.to_bits() - 1)).is_finite());
        }
    }
}
