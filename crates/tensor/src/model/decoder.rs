//! The decoder of the Llama family, one layer resident at a time, over packed sequences.
//!
//! A *chunk* is some sequences laid one after the other without padding, `[tokens, hidden]`. Everything but attention
//! sees the chunk as one matrix; attention runs per sequence, sequences of equal length together. What one layer does:
//!
//! ```text
//! a = norm(x)        -> q, k, v  (input: Qkv)     q, k rotated; Qwen3 normalises each head before that
//! o = attention      -> o_proj   (input: O)       x = x + o_proj(o)
//! m = norm(x)        -> gate, up (input: GateUp)
//! d = silu(gate)·up  -> down     (input: Down)    x = x + down_proj(d)
//! ```

use tch::{Device, Kind, TchError, Tensor};

use super::config::DecoderConfig;
use super::rope::Rope;
use crate::checkpoint::{CheckpointError, Weights};
use crate::dtype::FloatType;

/// The embedding, behind what stands before all names.
pub(crate) const EMBEDDING: &str = "embed_tokens.weight";

/// The four matrices that a layer's linear modules read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Of `q_proj`, `k_proj`, `v_proj`.
    Qkv,
    /// Of `o_proj`.
    O,
    /// Of `gate_proj`, `up_proj`.
    GateUp,
    /// Of `down_proj`.
    Down,
}

impl Input {
    /// All four, in the order in which a layer comes to them.
    pub const ALL: [Self; 4] = [Self::Qkv, Self::O, Self::GateUp, Self::Down];

    /// Name of its Gram in a layer's file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qkv => "qkv",
            Self::O => "o",
            Self::GateUp => "gate_up",
            Self::Down => "down",
        }
    }

    /// The modules that read it, by their names inside a layer.
    pub fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Qkv => &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            Self::O => &["self_attn.o_proj"],
            Self::GateUp => &["mlp.gate_proj", "mlp.up_proj"],
            Self::Down => &["mlp.down_proj"],
        }
    }

    /// Its width.
    pub fn width(self, config: &DecoderConfig) -> usize {
        match self {
            Self::Qkv | Self::GateUp => config.hidden,
            Self::O => config.heads * config.head_dim,
            Self::Down => config.mlp,
        }
    }
}

/// Neighbouring sequences of equal length in a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First token of the first one.
    pub start: usize,
    /// How many sequences.
    pub count: usize,
    /// Tokens of each.
    pub length: usize,
}

/// A linear module: weight `[out, in]`, bias `[out]`.
#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_linear(&self.weight, self.bias.as_ref())
    }

    fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), bias: self.bias.as_ref().map(Tensor::shallow_clone) }
    }
}

/// `x / rms(x) · weight`, the statistics in fp32.
#[derive(Debug)]
struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let wide = x.f_to_kind(Kind::Float)?;
        let variance = wide.f_square()?.f_mean_dim([-1i64].as_slice(), true, Kind::Float)?;
        let scaled = wide.f_mul(&variance.f_add_scalar(self.eps)?.f_rsqrt()?)?;
        self.weight.f_mul(&scaled.f_to_kind(x.kind())?)
    }

    fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), eps: self.eps }
    }
}

/// A model whose weights are read from where they lie as they are needed.
#[derive(Debug)]
pub struct Decoder<'a> {
    weights: &'a dyn Weights,
    config: &'a DecoderConfig,
    /// What stands before `layers.0`: `model.`, or nothing in a checkpoint saved without its head.
    prefix: &'static str,
    dtype: FloatType,
    device: Device,
}

impl<'a> Decoder<'a> {
    /// A decoder over a checkpoint, or over what is written of one; nothing is read yet.
    pub fn new(weights: &'a dyn Weights, config: &'a DecoderConfig, dtype: FloatType, device: Device) -> Self {
        let bare = weights.contains("embed_tokens.weight") && !weights.contains("model.embed_tokens.weight");
        Self { weights, config, prefix: if bare { "" } else { "model." }, dtype, device }
    }

    /// Its configuration.
    pub fn config(&self) -> &'a DecoderConfig {
        self.config
    }

    /// Type of its forward pass.
    pub fn kind(&self) -> Kind {
        self.dtype.kind()
    }

    /// Full name of a module of a layer: `model.layers.0.self_attn.q_proj`.
    pub fn module(&self, layer: usize, module: &str) -> String {
        format!("{}layers.{layer}.{module}", self.prefix)
    }

    /// Full name of what stands in no layer: `model.norm.weight`.
    pub(crate) fn outside(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn load(&self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        let stored = self.weights.load_shaped(name, shape)?;
        stored.f_to_device_(self.device, self.dtype.kind(), false, false).map_err(CheckpointError::torch(name))
    }

    fn linear(&self, name: &str, output: usize, input: usize, bias: bool) -> Result<Linear, CheckpointError> {
        let weight = self.load(&format!("{name}.weight"), &[output, input])?;
        let bias = if bias { Some(self.load(&format!("{name}.bias"), &[output])?) } else { None };
        Ok(Linear { weight, bias })
    }

    fn norm(&self, name: &str, width: usize) -> Result<RmsNorm, CheckpointError> {
        Ok(RmsNorm { weight: self.load(&format!("{name}.weight"), &[width])?, eps: self.config.norm_eps })
    }

    /// The embedding, `[vocab, hidden]`.
    ///
    /// # Errors
    /// When it is not in the checkpoint or has another shape.
    pub fn embedding(&self) -> Result<Tensor, CheckpointError> {
        self.load(&self.outside(EMBEDDING), &[self.config.vocab, self.config.hidden])
    }

    /// Rotary tables for sequences of up to `positions` tokens.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn rope(&self, positions: usize) -> Result<Rope, TchError> {
        let config = self.config;
        Rope::new(config.rope_theta, config.rope_scaling, config.head_dim, positions, self.dtype.kind(), self.device)
    }

    /// Loads one decoder layer.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than the configuration says.
    pub fn layer(&self, index: usize) -> Result<Layer, CheckpointError> {
        let c = self.config;
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let name = |module: &str| self.module(index, module);
        Ok(Layer {
            heads: c.heads as i64,
            kv_heads: c.kv_heads as i64,
            head_dim: c.head_dim as i64,
            window: c.window[index],
            input_norm: self.norm(&name("input_layernorm"), c.hidden)?,
            q: self.linear(&name("self_attn.q_proj"), q, c.hidden, c.qkv_bias)?,
            k: self.linear(&name("self_attn.k_proj"), kv, c.hidden, c.qkv_bias)?,
            v: self.linear(&name("self_attn.v_proj"), kv, c.hidden, c.qkv_bias)?,
            q_norm: if c.qk_norm { Some(self.norm(&name("self_attn.q_norm"), c.head_dim)?) } else { None },
            k_norm: if c.qk_norm { Some(self.norm(&name("self_attn.k_norm"), c.head_dim)?) } else { None },
            o: self.linear(&name("self_attn.o_proj"), c.hidden, q, c.output_bias)?,
            mlp_norm: self.norm(&name("post_attention_layernorm"), c.hidden)?,
            gate: self.linear(&name("mlp.gate_proj"), c.mlp, c.hidden, c.mlp_bias)?,
            up: self.linear(&name("mlp.up_proj"), c.mlp, c.hidden, c.mlp_bias)?,
            down: self.linear(&name("mlp.down_proj"), c.hidden, c.mlp, c.mlp_bias)?,
        })
    }

    /// The norm after the last layer.
    ///
    /// # Errors
    /// When it is not in the checkpoint or has another shape.
    pub fn final_norm(&self) -> Result<FinalNorm, CheckpointError> {
        self.norm(&self.outside("norm"), self.config.hidden).map(FinalNorm)
    }

    /// Name of the output projection, where the model has one of its own (not tied to the embedding).
    pub fn head(&self) -> Option<&'static str> {
        (!self.config.tied && self.weights.contains("lm_head.weight")).then_some("lm_head")
    }

    /// The output projection `[vocab, hidden]`; the embedding where they are tied.
    ///
    /// # Errors
    /// When it is not in the checkpoint or has another shape.
    pub fn head_weight(&self) -> Result<Tensor, CheckpointError> {
        match self.head() {
            Some(name) => self.load(&format!("{name}.weight"), &[self.config.vocab, self.config.hidden]),
            None => self.embedding(),
        }
    }
}

/// The norm after the last layer.
#[derive(Debug)]
pub struct FinalNorm(RmsNorm);

impl FinalNorm {
    /// Normalises `[tokens, hidden]`.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.0.forward(x)
    }

    /// Its weight, `[hidden]`.
    pub(crate) fn weight(&self) -> &Tensor {
        &self.0.weight
    }

    /// Another handle on the same weight, for another thread.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.share())
    }
}

/// One decoder layer's weights.
#[derive(Debug)]
pub struct Layer {
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
    window: Option<usize>,
    input_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    o: Linear,
    mlp_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// What one chunk leaves behind in one layer.
#[derive(Debug)]
pub struct Pass {
    /// The four inputs, in the order of [`Input::ALL`]: `[tokens, width]` each.
    pub inputs: [Tensor; 4],
    /// The hidden states after the layer, `[tokens, hidden]`.
    pub output: Tensor,
}

impl Layer {
    /// Other handles on the same weights, for another thread.
    pub(crate) fn share(&self) -> Self {
        Self {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            window: self.window,
            input_norm: self.input_norm.share(),
            q: self.q.share(),
            k: self.k.share(),
            v: self.v.share(),
            q_norm: self.q_norm.as_ref().map(RmsNorm::share),
            k_norm: self.k_norm.as_ref().map(RmsNorm::share),
            o: self.o.share(),
            mlp_norm: self.mlp_norm.share(),
            gate: self.gate.share(),
            up: self.up.share(),
            down: self.down.share(),
        }
    }

    /// Its parameters, by their names inside the layer.
    pub(crate) fn parameters(&self) -> Vec<(String, &Tensor)> {
        let linears = [
            ("self_attn.q_proj", &self.q),
            ("self_attn.k_proj", &self.k),
            ("self_attn.v_proj", &self.v),
            ("self_attn.o_proj", &self.o),
            ("mlp.gate_proj", &self.gate),
            ("mlp.up_proj", &self.up),
            ("mlp.down_proj", &self.down),
        ];
        let norms = [
            ("input_layernorm", Some(&self.input_norm)),
            ("post_attention_layernorm", Some(&self.mlp_norm)),
            ("self_attn.q_norm", self.q_norm.as_ref()),
            ("self_attn.k_norm", self.k_norm.as_ref()),
        ];
        let weights = linears.into_iter().map(|(name, linear)| (format!("{name}.weight"), &linear.weight));
        let biases =
            linears.into_iter().filter_map(|(name, linear)| Some((format!("{name}.bias"), linear.bias.as_ref()?)));
        let norms = norms.into_iter().filter_map(|(name, norm)| Some((format!("{name}.weight"), &norm?.weight)));
        norms.chain(weights).chain(biases).collect()
    }

    /// Runs a chunk `[tokens, hidden]`, made of `spans`, through the layer.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn forward(&self, x: &Tensor, spans: &[Span], rope: &Rope) -> Result<Pass, TchError> {
        let qkv_input = self.input_norm.forward(x)?;
        let (q, k, v) = (self.q.forward(&qkv_input)?, self.k.forward(&qkv_input)?, self.v.forward(&qkv_input)?);
        let attended: Vec<Tensor> =
            spans.iter().map(|span| self.attend(&q, &k, &v, *span, rope)).collect::<Result<_, _>>()?;
        drop((q, k, v));
        let o_input = Tensor::f_cat(&attended, 0)?;
        drop(attended);
        let x = x.f_add(&self.o.forward(&o_input)?)?;
        let mlp_input = self.mlp_norm.forward(&x)?;
        let mut gate = self.gate.forward(&mlp_input)?;
        let up = self.up.forward(&mlp_input)?;
        // A backward pass needs what the shorter way writes over.
        let down_input = if gate.requires_grad() { gate.f_silu()?.f_mul(&up)? } else { gate.f_silu_()?.f_mul_(&up)? };
        drop(up);
        let output = x.f_add(&self.down.forward(&down_input)?)?;
        Ok(Pass { inputs: [qkv_input, o_input, mlp_input, down_input], output })
    }

    /// Causal attention over the sequences of one span; `[span tokens, heads · head_dim]`.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, span: Span, rope: &Rope) -> Result<Tensor, TchError> {
        let (start, count, length) = (span.start as i64, span.count as i64, span.length as i64);
        // [tokens, heads · head_dim] -> [count, heads, length, head_dim]
        let split = |x: &Tensor, heads: i64, norm: Option<&RmsNorm>| -> Result<Tensor, TchError> {
            let x = x.f_narrow(0, start, count * length)?.f_view([count, length, heads, self.head_dim])?;
            let x = norm.map_or_else(|| Ok(x.shallow_clone()), |norm| norm.forward(&x))?;
            x.f_transpose(1, 2)
        };
        let q = rope.rotate(&split(q, self.heads, self.q_norm.as_ref())?)?;
        let k = rope.rotate(&split(k, self.kv_heads, self.k_norm.as_ref())?)?;
        let v = split(v, self.kv_heads, None)?;
        let group = self.heads / self.kv_heads;
        let repeat = |x: Tensor| -> Result<Tensor, TchError> {
            if group == 1 { Ok(x) } else { x.f_repeat_interleave_self_int(group, 1, None) }
        };
        let (k, v) = (repeat(k)?, repeat(v)?);
        let mask = match self.window {
            Some(window) if length > window as i64 => Some(window_mask(length, window as i64, q.device())?),
            _ => None,
        };
        let causal = mask.is_none();
        let attended = Tensor::f_scaled_dot_product_attention(&q, &k, &v, mask.as_ref(), 0.0, causal, None, false)?;
        attended.f_transpose(1, 2)?.f_reshape([count * length, self.heads * self.head_dim])
    }
}

/// `[length, length]`: whether query i sees key j, `0 <= i - j < window`.
fn window_mask(length: i64, window: i64, device: Device) -> Result<Tensor, TchError> {
    let positions = Tensor::f_arange(length, (Kind::Int64, device))?;
    let distance = positions.f_unsqueeze(1)?.f_sub(&positions.f_unsqueeze(0)?)?;
    distance.f_ge(0)?.f_logical_and(&distance.f_lt(window)?)
}
