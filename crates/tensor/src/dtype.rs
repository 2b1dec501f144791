//! Floating-point types under the names that experiments, `config.json` and safetensors headers use.

use mergelab_wire::Fault;
use safetensors::Dtype;
use tch::Kind;

use crate::failure::Diagnosis;

/// A type that weights may have and a forward pass may run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// IEEE single precision.
    Float32,
    /// The upper half of single precision.
    BFloat16,
    /// IEEE half precision.
    Float16,
}

/// A name that is no floating-point type.
#[derive(Debug, thiserror::Error)]
#[error("dtype {name:?} is not known")]
pub struct UnknownDtype {
    name: String,
}

impl Diagnosis for UnknownDtype {
    fn fault(&self) -> Fault {
        Fault::Experiment
    }

    fn hint(&self) -> Option<String> {
        Some("dtype is one of float32, bfloat16, float16".to_owned())
    }
}

impl FloatType {
    /// Reads the name used in experiments and in `config.json`.
    ///
    /// # Errors
    /// When it is another name.
    pub fn parse(name: &str) -> Result<Self, UnknownDtype> {
        match name {
            "float32" => Ok(Self::Float32),
            "bfloat16" => Ok(Self::BFloat16),
            "float16" => Ok(Self::Float16),
            _ => Err(UnknownDtype { name: name.to_owned() }),
        }
    }

    /// The name used in experiments and in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::BFloat16 => "bfloat16",
            Self::Float16 => "float16",
        }
    }

    /// libtorch's name for it.
    pub fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::BFloat16 => Kind::BFloat16,
            Self::Float16 => Kind::Half,
        }
    }

    /// The safetensors header's name for it.
    pub fn header(self) -> Dtype {
        match self {
            Self::Float32 => Dtype::F32,
            Self::BFloat16 => Dtype::BF16,
            Self::Float16 => Dtype::F16,
        }
    }

    /// The type that merged weights are stored in where the models have this one: the type itself, or for one that is
    /// read and not written the nearest that holds its values. `None` for integers.
    pub fn for_merged(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F64 => Some(Self::Float32),
            Dtype::F8_E4M3 | Dtype::F8_E5M2 => Some(Self::BFloat16),
            other => Self::of_header(other),
        }
    }

    /// The type of a stored tensor, where it is one of these.
    pub fn of_header(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::Float32),
            Dtype::BF16 => Some(Self::BFloat16),
            Dtype::F16 => Some(Self::Float16),
            _ => None,
        }
    }
}

/// libtorch's type for a stored type; `None` for the ones this program does not read.
pub fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}
