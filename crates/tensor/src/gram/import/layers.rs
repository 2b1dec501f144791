//! Whole matrices, made into tiles: a file per layer, as a capture writes them.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use indexmap::IndexMap;
use safetensors::Dtype;

use super::super::error::GramError;
use super::super::index::{FORMAT, GramEntry, GramIndex};
use super::super::tiles::Tiling;
use super::error::ImportError;
use super::full::Full;
use crate::checkpoint::{NewTensor, Writer};
use crate::codec::encode;
use crate::dtype::FloatType;
use crate::parallel::Pool;
use crate::report::Reporter;

/// Writes the artifact of the matrices that a file holds or names.
pub(super) fn write(
    (path, whole): (&Path, &[Full<'_>]),
    without: Option<IndexMap<String, String>>,
    out: &Path,
    pool: Pool,
    reporter: &Reporter,
) -> Result<(), GramError> {
    if whole.is_empty() {
        return Err(ImportError::Empty { path: path.to_path_buf() }.into());
    }
    check_room(whole)?;
    let mut layers: IndexMap<String, Vec<&Full<'_>>> = IndexMap::new();
    for full in whole {
        layers.entry(file_of(&full.module)).or_default().push(full);
    }
    reporter.progress(0, layers.len(), "files");
    let (mut entries, mut matrices, mut farthest) = (IndexMap::new(), 0, 0.0f32);
    for (done, (file, members)) in layers.iter().enumerate() {
        let groups = groups(members)?;
        matrices += groups.len();
        farthest = farthest.max(layer(&groups, &out.join(file), pool)?);
        for group in &groups {
            let leader = group[0];
            for member in group {
                let tiling = Tiling::of(member.width);
                let entry = GramEntry {
                    file: file.clone(),
                    tensor: leader.module.clone(),
                    n: member.n,
                    width: tiling.width,
                    tile: tiling.tile,
                    transposed: member.transposed,
                };
                entries.insert(member.module.as_str(), entry);
            }
        }
        reporter.progress(done + 1, layers.len(), "files");
    }
    // In the order in which they were found.
    let modules = whole.iter().map(|full| (full.module.clone(), entries[full.module.as_str()].clone())).collect();
    GramIndex { format: FORMAT, modules, without }.write(out)?;
    reporter.fact("modules", whole.len());
    reporter.fact("gram_matrices", matrices);
    reporter.fact("asymmetry_max", f64::from(farthest));
    Ok(())
}

/// Refuses matrices that share their elements but are not one: a small file must not become a large artifact.
fn check_room(whole: &[Full<'_>]) -> Result<(), GramError> {
    let mut by_file: IndexMap<&Path, (usize, HashSet<&Range<usize>>)> = IndexMap::new();
    for full in whole {
        by_file.entry(full.file.path()).or_insert_with(|| (full.file.size(), HashSet::new())).1.insert(full.range());
    }
    for (path, (size, ranges)) in by_file {
        let bytes = ranges.iter().map(|range| range.len() as u128).sum::<u128>();
        if bytes > size as u128 {
            return Err(ImportError::Overlap { path: path.to_path_buf(), bytes, size }.into());
        }
    }
    Ok(())
}

/// The file for a module's matrix: by the first number in its name.
fn file_of(module: &str) -> String {
    match module.split('.').find_map(|part| part.parse::<u32>().ok()) {
        Some(layer) => format!("layer-{layer:05}.safetensors"),
        None => "others.safetensors".to_owned(),
    }
}

/// Matrices of one layer, those that are equal together, the first of each leading.
fn groups<'f>(members: &[&'f Full<'f>]) -> Result<Vec<Vec<&'f Full<'f>>>, GramError> {
    let mut groups: Vec<Vec<&Full<'_>>> = Vec::new();
    for member in members {
        let mut home = None;
        for (index, group) in groups.iter().enumerate() {
            if group[0].equals(member)? {
                home = Some(index);
                break;
            }
        }
        match home {
            Some(index) => groups[index].push(member),
            None => groups.push(vec![member]),
        }
        member.let_go();
    }
    Ok(groups)
}

/// Writes the file of a layer; how far its matrices are from symmetric, at most.
fn layer(groups: &[Vec<&Full<'_>>], path: &Path, pool: Pool) -> Result<f32, GramError> {
    let planned = groups.iter().map(|group| {
        let tiling = Tiling::of(group[0].width);
        let shape = vec![tiling.tiles(), tiling.tile, tiling.tile];
        NewTensor { name: group[0].module.clone(), dtype: Dtype::F32, shape }
    });
    let writer = Writer::single(path, planned.collect())?;
    let mut farthest = 0.0f32;
    for leader in groups.iter().map(|group| group[0]) {
        let tiling = Tiling::of(leader.width);
        let diagonal = leader.diagonal()?;
        let places = (0..tiling.blocks()).flat_map(|i| (i..tiling.blocks()).map(move |j| (i, j)));
        let gaps = pool.map(places.collect(), |(i, j)| -> Result<f32, GramError> {
            let (values, gap) = leader.upper(&tiling.rows(i), &tiling.rows(j), &diagonal)?;
            let size = tiling.tile * tiling.tile;
            let mut bytes = vec![0; size * 4];
            encode(FloatType::Float32, &tile(tiling, (i, j), &values), &mut bytes);
            writer.write_bytes(&leader.module, (tiling.first(i) + j - i) * size, &bytes)?;
            Ok(gap)
        })?;
        farthest = gaps.into_iter().fold(farthest, f32::max);
        leader.let_go();
    }
    writer.finish();
    Ok(farthest)
}

/// Elements of tile `(i, j)` as it is stored: zero past the matrix, and on the diagonal the upper half mirrored.
fn tile(tiling: Tiling, (i, j): (usize, usize), values: &[f32]) -> Vec<f32> {
    let (height, width) = (tiling.rows(i).len(), tiling.rows(j).len());
    let mut tile = vec![0.0; tiling.tile * tiling.tile];
    for row in 0..height {
        for column in 0..width {
            let (down, across) = if i == j && row > column { (column, row) } else { (row, column) };
            tile[row * tiling.tile + column] = values[down * width + across];
        }
    }
    tile
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_lies_in_the_file_of_its_layer() {
        assert_eq!(file_of("model.layers.3.mlp.up_proj"), "layer-00003.safetensors");
        assert_eq!(file_of("module.transformer.h.12.attn.c_attn.weight"), "layer-00012.safetensors");
        assert_eq!(file_of("lm_head"), "others.safetensors");
        assert_eq!(file_of("0xf.99999999999999"), "others.safetensors");
    }

    #[test]
    fn a_tile_is_zero_past_the_matrix_and_its_diagonal_ones_upper_half_is_mirrored() {
        let tiling = Tiling { width: 3, tile: 2 };
        assert_eq!(tile(tiling, (0, 0), &[1.0, 2.0, 9.0, 3.0]), [1.0, 2.0, 2.0, 3.0]);
        assert_eq!(tile(tiling, (0, 1), &[4.0, 5.0]), [4.0, 0.0, 5.0, 0.0]);
        assert_eq!(tile(tiling, (1, 1), &[6.0]), [6.0, 0.0, 0.0, 0.0]);
    }
}
