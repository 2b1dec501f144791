//! Two models: per tensor, per layer and in all.

use std::fmt::Write as _;

use indexmap::IndexMap;
use mergelab_wire::{Compared, Difference, LoneTensor, Place, Sums};
use serde::Serialize;

use super::figures::{Figures, Largest};
use super::natural::natural;
use super::number::{columns, short};
use crate::report::plain;

/// How two models differ.
#[derive(Clone, Debug, Serialize)]
pub struct Models {
    /// Whether anything does.
    pub differ: bool,
    /// All tensors that are compared as numbers.
    pub total: Figures,
    /// Those of each layer, and those of each module outside of layers.
    pub layers: Vec<Group>,
    /// All tensors that both have, by name, numbers in names by size.
    pub tensors: Vec<Tensor>,
    /// Tensors that only one of them has: A, B.
    pub only: [Vec<LoneTensor>; 2],
    /// Whether the head is the embedding.
    pub tied: [bool; 2],
}

/// The tensors of a layer, or of a module outside of layers.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// `model.layers.3`, `model.embed_tokens`.
    pub layer: String,
    /// How many tensors are compared as numbers.
    pub tensors: usize,
    /// Their figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// One tensor that both models have.
#[derive(Clone, Debug, Serialize)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its layer, `model.layers.3`, for one that lies in one.
    pub layer: Option<String>,
    /// What it is there: `mlp.up_proj`.
    pub kind: String,
    /// Shape in each.
    pub shapes: [Vec<usize>; 2],
    /// Stored type in each.
    pub dtypes: [String; 2],
    /// `numbers`, `bytes` (of what is no floating-point number), `shapes-differ` or `types-differ`.
    pub compared: &'static str,
    /// Elements that are not the same, where they were looked at.
    pub differing: Option<u64>,
    /// Figures of one that is compared as numbers.
    pub figures: Option<Figures>,
    #[serde(skip)]
    sums: Option<Sums>,
}

impl Tensor {
    /// What the places of its name are called, and what was found of it.
    fn of(found: mergelab_wire::TensorDifference) -> Self {
        let place = Place::of(&found.name);
        let layer = place.layer.map(|layer| format!("{}.{}", layer.stack, layer.number));
        let kind = without_weight(place.kind).to_owned();
        let (compared, differing, sums) = match found.compared {
            Compared::Numbers(sums) => ("numbers", Some(sums.differing), Some(sums)),
            Compared::Bytes { differing } => ("bytes", Some(differing), None),
            Compared::Not if found.shapes[0] != found.shapes[1] => ("shapes-differ", None, None),
            Compared::Not => ("types-differ", None, None),
        };
        let figures = sums.as_ref().map(|sums| Figures::of([(&*found.name, sums)]));
        let (name, shapes, dtypes) = (found.name, found.shapes, found.dtypes);
        Self { name, layer, kind, shapes, dtypes, compared, differing, figures, sums }
    }

    /// Its layer, or outside of layers its module.
    fn group(&self) -> String {
        let module = || match self.name.rsplit_once('.') {
            Some((module, "weight" | "bias")) => module.to_owned(),
            _ => self.name.clone(),
        };
        self.layer.clone().unwrap_or_else(module)
    }

    fn differs(&self) -> bool {
        self.differing != Some(0) || self.dtypes[0] != self.dtypes[1]
    }
}

/// `mlp.up_proj` of `mlp.up_proj.weight`: a weight is what is meant where nothing else is said.
fn without_weight(kind: &str) -> &str {
    kind.strip_suffix(".weight").unwrap_or(kind)
}

impl Models {
    /// From what the tensor program found.
    pub fn of(found: Difference) -> Self {
        let mut tensors: Vec<Tensor> = found.tensors.into_iter().map(Tensor::of).collect();
        tensors.sort_by(|a, b| natural(&a.name, &b.name));
        let mut only = found.only;
        for only in &mut only {
            only.sort_by(|a, b| natural(&a.name, &b.name));
        }
        let mut groups: IndexMap<String, Vec<(&str, &Sums)>> = IndexMap::new();
        for tensor in &tensors {
            if let Some(sums) = &tensor.sums {
                groups.entry(tensor.group()).or_default().push((&tensor.name, sums));
            }
        }
        let total = Figures::of(groups.values().flatten().copied());
        let group = |(layer, tensors): (String, Vec<(&str, &Sums)>)| Group {
            layer,
            tensors: tensors.len(),
            figures: Figures::of(tensors),
        };
        let layers = groups.into_iter().map(group).collect();
        let differ = tensors.iter().any(Tensor::differs) || only.iter().any(|only| !only.is_empty());
        Self { differ, total, layers, tensors, only, tied: found.tied }
    }

    /// The figures of the tensors of one layer and kind together, by layer (`model.layers.3`), then kind; kinds that differ in
    /// numbers alone, as those of experts do, are one.
    pub fn by_layer_and_kind(&self) -> Vec<(String, String, Figures)> {
        let mut cells: IndexMap<(String, String), Vec<(&str, &Sums)>> = IndexMap::new();
        for tensor in &self.tensors {
            if let (Some(layer), Some(sums)) = (&tensor.layer, &tensor.sums) {
                cells.entry((layer.clone(), without_numbers(&tensor.kind))).or_default().push((&tensor.name, sums));
            }
        }
        cells.into_iter().map(|((layer, kind), tensors)| (layer, kind, Figures::of(tensors))).collect()
    }

    /// The figures of modules outside of layers.
    pub fn outside(&self) -> impl Iterator<Item = &Group> {
        let is_layer = |group: &Group| self.tensors.iter().any(|tensor| tensor.layer.as_ref() == Some(&group.layer));
        self.layers.iter().filter(move |group| !is_layer(group))
    }

    /// For people: a line a layer, and the tensors that differ most, or with `all` every tensor.
    pub fn text(&self, most: usize, all: bool) -> String {
        let mut blocks = Vec::new();
        if !self.layers.is_empty() {
            let mut rows = vec![headings("layer", "tensors")];
            let layers = self.layers.iter().map(|group| (&*group.layer, group.tensors, &group.figures));
            let counted = self.layers.iter().map(|group| group.tensors).sum();
            rows.extend(
                layers
                    .chain([("total", counted, &self.total)])
                    .map(|(name, count, figures)| row(plain(name), count.to_string(), figures, true)),
            );
            blocks.push(columns(&rows, &[6]));
        }
        blocks.extend(self.tensors_text(most, all));
        blocks.extend(self.remarks());
        if !self.differ {
            let count = self.tensors.len();
            let tensors = if count == 1 { "1 tensor is" } else { &format!("{count} tensors are") };
            blocks.push(format!("no difference: {tensors} the same\n"));
        }
        blocks.join("\n")
    }

    fn tensors_text(&self, most: usize, all: bool) -> Option<String> {
        let mut shown: Vec<(&Tensor, &Figures)> =
            self.tensors.iter().filter_map(|tensor| Some((tensor, tensor.figures.as_ref()?))).collect();
        if !all {
            shown.retain(|(_, figures)| figures.differing > 0);
            let size = |figures: &Figures| figures.relative.unwrap_or(f64::INFINITY);
            shown.sort_by(|(_, a), (_, b)| size(b).total_cmp(&size(a)));
            shown.truncate(most);
        }
        let heading = if all { "tensor" } else { "tensors that differ most" };
        let mut rows = vec![headings(heading, "elements")];
        rows.extend(
            shown
                .iter()
                .map(|(tensor, figures)| row(plain(&tensor.name), figures.elements.to_string(), figures, false)),
        );
        (!shown.is_empty()).then(|| columns(&rows, &[6]))
    }

    /// What is not in the figures.
    fn remarks(&self) -> Vec<String> {
        let mut blocks = Vec::new();
        let mut remark = |what: &str, named: Vec<String>| {
            if !named.is_empty() {
                let tensors = if named.len() == 1 { "tensor" } else { "tensors" };
                let mut block = format!("{} {tensors} {what}:\n", named.len());
                for name in named {
                    let _ = writeln!(block, "  {name}");
                }
                blocks.push(block);
            }
        };
        for (only, side) in self.only.iter().zip(["A", "B"]) {
            let lone = |lone: &LoneTensor| format!("{} {:?} {}", plain(&lone.name), lone.shape, lone.dtype);
            remark(&format!("only in {side}"), only.iter().map(lone).collect());
        }
        let those = |compared: &str, show: &dyn Fn(&Tensor) -> String| -> Vec<String> {
            self.tensors.iter().filter(|tensor| tensor.compared == compared).map(show).collect()
        };
        let shapes = |tensor: &Tensor| {
            format!("{}: {:?} in A, {:?} in B", plain(&tensor.name), tensor.shapes[0], tensor.shapes[1])
        };
        remark("of another shape, not compared", those("shapes-differ", &shapes));
        let types =
            |tensor: &Tensor| format!("{}: {} in A, {} in B", plain(&tensor.name), tensor.dtypes[0], tensor.dtypes[1]);
        remark("of types that cannot be compared", those("types-differ", &types));
        let bytes = |tensor: &Tensor| {
            let count = tensor.differing.unwrap_or_default();
            format!("{} ({}): {count} elements differ", plain(&tensor.name), tensor.dtypes[0])
        };
        remark("of integers or other types", those("bytes", &bytes));
        let broken = |tensor: &&Tensor| tensor.figures.as_ref().is_some_and(|figures| figures.not_finite != [0, 0]);
        let not_finite = |tensor: &Tensor| {
            let [a, b] = tensor.figures.as_ref().map(|figures| figures.not_finite).unwrap_or_default();
            format!("{}: {a} in A, {b} in B", plain(&tensor.name))
        };
        let broken = self.tensors.iter().filter(broken).map(not_finite).collect();
        remark("with elements that are infinite or no number, left out of the figures", broken);
        let mut by_types: IndexMap<&[String; 2], usize> = IndexMap::new();
        for tensor in self.tensors.iter().filter(|tensor| tensor.compared == "numbers") {
            if tensor.dtypes[0] != tensor.dtypes[1] {
                *by_types.entry(&tensor.dtypes).or_default() += 1;
            }
        }
        for ([a, b], count) in by_types {
            let tensors = if count == 1 { "tensor is" } else { "tensors are" };
            blocks.push(format!("{count} {tensors} {a} in A and {b} in B\n"));
        }
        blocks
    }

    /// Every tensor as CSV.
    pub fn csv(&self) -> String {
        const HEADER: [&str; 20] = [
            "tensor",
            "layer",
            "kind",
            "shape_a",
            "shape_b",
            "dtype_a",
            "dtype_b",
            "compared",
            "elements",
            "differing",
            "not_finite_a",
            "not_finite_b",
            "norm_a",
            "norm_b",
            "difference",
            "relative",
            "cosine",
            "largest",
            "largest_index",
            "largest_values",
        ];
        let number = |value: Option<f64>| value.map(crate::report::results::shortest).unwrap_or_default();
        let shape = |shape: &[usize]| shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let row = |tensor: &Tensor| {
            let counts = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
            let figures = tensor.figures.as_ref();
            let largest = figures.and_then(|figures| figures.largest.as_ref());
            let of = |of: fn(&Figures) -> Option<f64>| number(figures.and_then(of));
            let count = |of: fn(&Figures) -> u64| counts(figures.map(of));
            [
                tensor.name.clone(),
                number_of_layer(&tensor.name),
                tensor.kind.clone(),
                shape(&tensor.shapes[0]),
                shape(&tensor.shapes[1]),
                tensor.dtypes[0].clone(),
                tensor.dtypes[1].clone(),
                tensor.compared.to_owned(),
                count(|figures| figures.elements),
                counts(tensor.differing),
                count(|figures| figures.not_finite[0]),
                count(|figures| figures.not_finite[1]),
                of(|figures| figures.norms[0]),
                of(|figures| figures.norms[1]),
                of(|figures| figures.difference),
                of(|figures| figures.relative),
                of(|figures| figures.cosine),
                number(largest.map(|largest| largest.difference)),
                largest.map(|largest| shape(&largest.index)).unwrap_or_default(),
                largest
                    .map(|largest| largest.values.map(crate::report::results::shortest).join(" "))
                    .unwrap_or_default(),
            ]
        };
        let lone = |lone: &LoneTensor, side: usize| {
            let mut fields: [String; 20] = Default::default();
            let place = Place::of(&lone.name);
            fields[0].clone_from(&lone.name);
            fields[1] = number_of_layer(&lone.name);
            without_weight(place.kind).clone_into(&mut fields[2]);
            fields[3 + side] = shape(&lone.shape);
            fields[5 + side].clone_from(&lone.dtype);
            ["only-a", "only-b"][side].clone_into(&mut fields[7]);
            fields
        };
        let only = self.only.iter().enumerate();
        let only = only.flat_map(|(side, only)| only.iter().map(move |tensor| lone(tensor, side)));
        crate::report::results::write(HEADER, self.tensors.iter().map(row).chain(only))
    }
}

/// As CSV has it; nothing outside of layers.
fn number_of_layer(tensor: &str) -> String {
    Place::of(tensor).layer.map(|layer| layer.number.to_string()).unwrap_or_default()
}

fn headings(first: &str, count: &str) -> Vec<String> {
    [first, count, "||B - A||", "relative", "cosine", "largest", "at"].map(str::to_owned).to_vec()
}

fn row(name: String, count: String, figures: &Figures, names_tensor: bool) -> Vec<String> {
    let largest = figures.largest.as_ref();
    let at = |largest: &Largest| {
        let [a, b] = largest.values.map(|value| short(Some(value)));
        let tensor = if names_tensor { plain(&largest.tensor) + " " } else { String::new() };
        format!("{tensor}{:?}: {a} -> {b}", largest.index)
    };
    vec![
        name,
        count,
        short(figures.difference),
        short(figures.relative),
        figures.cosine.map_or_else(|| "-".to_owned(), |cosine| format!("{cosine:.6}")),
        short(largest.map(|largest| largest.difference)),
        largest.map(at).unwrap_or_default(),
    ]
}

/// `experts.*.up_proj` of `experts.7.up_proj`.
fn without_numbers(kind: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    kind.split('.').map(|part| if is_number(part) { "*" } else { part }).collect::<Vec<_>>().join(".")
}
