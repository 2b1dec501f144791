//! Rotary position embedding: frequencies, stretched or not, and the tables of cosines and sines.
//!
//! Computed as `transformers` does, in fp32, and rounded to the type of the forward pass at the end.

use std::f64::consts::PI;

use serde_json::{Map, Value};
use tch::{Device, Kind, TchError, Tensor};

/// How rotary frequencies are stretched beyond the length a model was first trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency divided by a factor (position interpolation).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Low frequencies divided by a factor, high ones left, a smooth passage between (Llama 3.1).
    Llama3 {
        /// The factor for low frequencies.
        factor: f64,
        /// Wavelengths over `original / low` count as low.
        low: f64,
        /// Wavelengths under `original / high` count as high.
        high: f64,
        /// Length of the first training.
        original: f64,
    },
}

impl RopeScaling {
    /// Reads `rope_scaling` or `rope_parameters`.
    ///
    /// # Errors
    /// When the type is not known or a parameter is missing.
    pub fn parse(rope: &Map<String, Value>, max_positions: usize) -> Result<Self, String> {
        let kind = rope.get("rope_type").or_else(|| rope.get("type")).and_then(Value::as_str).unwrap_or("default");
        let number = |key: &str| {
            rope.get(key).and_then(Value::as_f64).ok_or_else(|| format!("rope type {kind:?} needs a number {key}"))
        };
        if rope.get("partial_rotary_factor").and_then(Value::as_f64).is_some_and(|share| share < 1.0) {
            return Err("a partial rotary embedding is not known".to_owned());
        }
        match kind {
            // `dynamic` is the plain embedding up to `max_position_embeddings`, and longer rows are refused.
            "default" | "dynamic" => Ok(Self::None),
            "linear" => Ok(Self::Linear { factor: number("factor")? }),
            "llama3" => Ok(Self::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                original: rope
                    .get("original_max_position_embeddings")
                    .and_then(Value::as_f64)
                    .unwrap_or(max_positions as f64),
            }),
            other => Err(format!("rope type {other:?} is not known (default, dynamic, linear, llama3)")),
        }
    }

    /// Stretches the frequencies `[head_dim / 2]`.
    fn apply(self, frequencies: Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::None => Ok(frequencies),
            Self::Linear { factor } => frequencies.f_div_scalar(factor),
            Self::Llama3 { factor, low, high, original } => {
                let wavelength = frequencies.f_reciprocal()?.f_mul_scalar(2.0 * PI)?;
                let slow = frequencies.f_div_scalar(factor)?;
                // 1 at the short end of the passage (frequency kept), 0 at its long end (divided).
                let smooth = wavelength
                    .f_reciprocal()?
                    .f_mul_scalar(original)?
                    .f_sub_scalar(low)?
                    .f_div_scalar(high - low)?
                    .f_clamp(0.0, 1.0)?;
                let kept = frequencies.f_mul(&smooth)?;
                kept.f_add(&slow.f_mul(&smooth.f_neg()?.f_add_scalar(1.0)?)?)
            }
        }
    }
}

/// Cosines and sines by position.
#[derive(Debug)]
pub struct Rope {
    /// `[positions, head_dim]`.
    cos: Tensor,
    /// `[positions, head_dim]`.
    sin: Tensor,
}

impl Rope {
    /// Tables for positions `0..positions`.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(
        theta: f64,
        scaling: RopeScaling,
        head_dim: usize,
        positions: usize,
        kind: Kind,
        device: Device,
    ) -> Result<Self, TchError> {
        // Made on the CPU whatever the device: the same table everywhere.
        let options = (Kind::Float, Device::Cpu);
        let exponents = Tensor::f_arange_start_step(0, head_dim as i64, 2, options)?.f_div_scalar(head_dim as f64)?;
        let frequencies = scaling.apply(Tensor::f_pow_scalar(theta, &exponents)?.f_reciprocal()?)?;
        let positions = Tensor::f_arange(positions as i64, options)?;
        let angles = positions.f_outer(&frequencies)?;
        let angles = Tensor::f_cat(&[&angles, &angles], -1)?;
        Ok(Self {
            cos: angles.f_cos()?.f_to_device_(device, kind, false, false)?,
            sin: angles.f_sin()?.f_to_device_(device, kind, false, false)?,
        })
    }

    /// Another handle on the same tables, for another thread.
    pub(crate) fn share(&self) -> Self {
        Self { cos: self.cos.shallow_clone(), sin: self.sin.shallow_clone() }
    }

    /// Rotates `[batch, heads, length, head_dim]`, positions counted from 0.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn rotate(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (_, _, length, width) = x.size4()?;
        let cos = self.cos.f_narrow(0, 0, length)?;
        let sin = self.sin.f_narrow(0, 0, length)?;
        let (first, second) = (x.f_narrow(-1, 0, width / 2)?, x.f_narrow(-1, width / 2, width / 2)?);
        let turned = Tensor::f_cat(&[&second.f_neg()?, &first], -1)?;
        x.f_mul(&cos)?.f_add(&turned.f_mul(&sin)?)
    }
}
