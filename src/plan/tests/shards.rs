//! Gram capture in shards: which stages there are, and which of them run again when rows are added.

use super::*;
use crate::plan::{Shard, split};

/// Rows in two to eight shards.
pub(super) fn of_rows(rows: &[String]) -> BTreeMap<usize, Arc<[Shard]>> {
    let shard = |range: mergelab_wire::RowRange| {
        let lines = rows[range.first as usize..][..range.count as usize].join("\n");
        Shard { range, bytes: lines.len() as u64, sha256: Digest::of(lines.as_bytes()) }
    };
    (2..=8).map(|count| (count, split(rows.len() as u64, count).into_iter().map(shard).collect())).collect()
}

/// The example with the capture of `a` in so many shards.
fn sharded(shards: usize) -> String {
    EXPERIMENT.replace("max_length: 256 }", &format!("max_length: 256, shards: {shards} }}"))
}

fn lines(rows: usize) -> String {
    (0..rows).map(|row| format!("row {row}\n")).collect::<Vec<_>>().concat()
}

/// A world in which `a` is captured on so many rows, each unlike the others.
fn with_rows(rows: usize) -> World {
    World::with("chat.jsonl", &lines(rows))
}

/// Captures and sums that run when the rows and the shards become more.
fn grown(from: (usize, usize), to: (usize, usize)) -> Vec<String> {
    let keys = |(rows, shards)| with_rows(rows).keys(&sharded(shards));
    let mut names = differing(&keys(from), &keys(to));
    names.retain(|name| name.starts_with("grams.a"));
    names
}

#[test]
fn shards_are_stages_of_their_own_before_the_one_that_adds_them() {
    let loaded = parse(Path::new("x.yaml"), &sharded(3)).unwrap();
    let graph = Graph::new(vec![Arc::new(loaded.experiment)]);
    let names: Vec<_> =
        graph.iter().map(|(_, stage)| stage.name.as_str()).filter(|name| name.starts_with("grams.")).collect();
    let shards = ["grams.a/shard-0", "grams.a/shard-1", "grams.a/shard-2"];
    assert_eq!(names, [&shards[..], &["grams.a", "grams.b"]].concat());
    let sum = graph.find("grams.a").unwrap();
    assert_eq!(sum.len(), 1, "the entry's name means the sum");
    let needs: Vec<_> = graph.stage(sum[0]).needs.iter().map(|need| graph.stage(need.stage).name.as_str()).collect();
    assert_eq!(needs, shards);
    let merge = graph.stage(graph.find("merges.reg").unwrap()[0]);
    assert_eq!(merge.need("grams.0"), Some(sum[0]));
    assert_eq!(graph.splits(graph.find("data.chat").unwrap()[0]).into_iter().collect::<Vec<_>>(), [3]);
}

#[test]
fn one_shard_is_a_capture_as_without() {
    assert_eq!(sharded(1).matches("shards").count(), 1);
    assert_eq!(differing(&World::default().keys(EXPERIMENT), &World::default().keys(&sharded(1))), NOTHING);
}

#[test]
fn rows_that_are_added_rerun_the_shard_that_has_room_and_the_sum() {
    // Ranges of 10 rows in 3 shards, up to 30.
    assert_eq!(grown((28, 3), (30, 3)), ["grams.a", "grams.a/shard-2"]);
    assert_eq!(grown((28, 3), (40, 4)), ["grams.a", "grams.a/shard-2", "grams.a/shard-3"]);
    assert_eq!(grown((30, 3), (40, 4)), ["grams.a", "grams.a/shard-3"]);
}

#[test]
fn rows_past_the_room_of_all_shards_rerun_all() {
    assert_eq!(grown((30, 3), (31, 3)).len(), 4);
}

#[test]
fn a_row_that_changes_reruns_its_shard_and_what_follows() {
    let changed = World::with("chat.jsonl", &lines(30).replace("row 12\n", "another row\n"));
    let names = differing(&with_rows(30).keys(&sharded(3)), &changed.keys(&sharded(3)));
    assert_eq!(names, [&["data.chat", "grams.a", "grams.a/shard-1"], &REG[..]].concat());
}

#[test]
fn a_setting_of_the_capture_reruns_every_shard() {
    let world = with_rows(30);
    let names = differing(&world.keys(&sharded(2)), &world.keys(&sharded(2).replace("256", "128")));
    assert_eq!(names, with_reg(&["grams.a", "grams.a/shard-0", "grams.a/shard-1"]));
}

#[test]
fn the_same_rows_at_another_place_have_one_key() {
    let twice = World::with("chat.jsonl", "one\none\n").keys(&sharded(2));
    assert_eq!(twice["grams.a/shard-0"], twice["grams.a/shard-1"]);
}
