//! Models of the shape of Llama with random weights, and an experiment that averages two.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;

use crate::Result;

const HIDDEN: usize = 2048;
const MLP: usize = 8192;
const VOCABULARY: usize = 32_000;

/// Names and shapes of the tensors of a model of about so many weights.
fn tensors(billions: f64) -> (usize, Vec<(String, Vec<usize>)>) {
    let keys = HIDDEN / 4;
    let layer = 2 * HIDDEN * HIDDEN + 2 * keys * HIDDEN + 3 * MLP * HIDDEN;
    let ends = 2 * VOCABULARY * HIDDEN;
    let layers = ((billions * 1e9 - ends as f64) / layer as f64).round().max(1.0) as usize;
    let mut tensors = vec![
        ("lm_head.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..layers {
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![keys, HIDDEN]),
            ("self_attn.v_proj", vec![keys, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![MLP, HIDDEN]),
            ("mlp.up_proj", vec![MLP, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, MLP]),
        ] {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    (layers, tensors)
}

/// Writes a model directory.
pub(crate) fn write(directory: &Path, billions: f64, seed: u64) -> Result<()> {
    fs::create_dir_all(directory)?;
    let (layers, tensors) = tensors(billions);
    let (mut header, mut end) = ("{\"__metadata__\":{\"format\":\"pt\"}".to_owned(), 0);
    for (name, shape) in &tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        write!(header, ",\"{name}\":{{\"dtype\":\"BF16\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}")?;
    }
    header.push('}');
    let mut file = BufWriter::with_capacity(1 << 20, File::create(directory.join("model.safetensors"))?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    // Numbers of both signs about 0.02, all different enough: xorshift (Marsaglia, 2003).
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ seed;
    let mut block = Vec::with_capacity(1 << 20);
    while end > 0 {
        block.clear();
        while block.len() < end.min(1 << 20) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            for number in state.to_le_bytes().chunks_exact(2) {
                let bits = u16::from_le_bytes([number[0], number[1]]);
                block.extend((0x3c00 | (bits & 0x80ff)).to_le_bytes());
            }
        }
        block.truncate(end);
        end -= block.len();
        file.write_all(&block)?;
    }
    file.into_inner()?.sync_all()?;
    let config = format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": {HIDDEN},
 "intermediate_size": {MLP}, "num_hidden_layers": {layers}, "num_attention_heads": 32, "num_key_value_heads": 8,
 "vocab_size": {VOCABULARY}, "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "torch_dtype": "bfloat16"}}
"#
    );
    Ok(fs::write(directory.join("config.json"), config)?)
}

/// The experiment.
pub(crate) fn project(project: &Path) -> Result<()> {
    fs::create_dir_all(project)?;
    fs::write(project.join("mergelab.toml"), "")?;
    let text = "name: bench\nmodels:\n  a: { path: ../a }\n  b: { path: ../b }\n\
                merges:\n  avg: { method: average, models: [a, b] }\nsettings: { device: cpu }\n";
    Ok(fs::write(project.join("bench.yaml"), text)?)
}

/// mergelab in a project.
pub(crate) fn mergelab(project: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mergelab"));
    command.args(arguments).current_dir(project);
    command
}
