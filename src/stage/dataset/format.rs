//! How the files of a data set are written, by their endings: which of them `datasets` takes for data at all, and which
//! kind is that of most.

use std::collections::BTreeMap;
use std::path::Path;

use crate::stage::rows;

/// Endings that `datasets` knows and this program does not read.
const OTHER: &str = "tsv geoparquet gpq arrow txt conll conllu tar xml hdf5 h5 eval toml md lance tsfile vortex fa fasta fna \
     ffn faa frn afa gb gbk genbank fq fastq cif mmcif zip idx manifest txn";

/// The same of media, which it also takes in upper case.
const MEDIA: &str = "pdb ent blp bmp dib bufr cur pcx dcx dds ps eps fit fits fli flc ftc ftu gbr gif grib png apng jp2 j2k \
     jpc jpf jpx j2c icns ico im iim tif tiff jfif jpe jpg jpeg msp pcd pxr pbm pgm ppm pnm psd bw rgb rgba sgi ras tga \
     icb vda vst webp wmf emf xbm xpm mpg aiff au avr caf flac htk svx mat4 mat5 mpc2k ogg paf pvf raw rf64 sd2 sds ircam \
     voc w64 wav nist wavex wve xi mp3 opus 3gp 3g2 asf flv m4v webm f4v wmv wma ogm mxf nut mpeg avi mp4 mov mkv glb \
     gltf ply stl pdf nii";

/// Files that describe others.
const METADATA: [&str; 6] =
    ["instruction.md", "latest_version_hint.json", "metadata.csv", "metadata.jsonl", "metadata.parquet", "task.toml"];

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Parquet.
    Parquet,
    /// JSON, of either form.
    Json,
    /// Values between commas.
    Csv,
}

impl Format {
    fn of(ending: &str) -> Option<Self> {
        match ending {
            "parquet" => Some(Self::Parquet),
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Parquet => &["parquet", "geoparquet", "gpq", "zip"],
            Self::Json => &["json", "jsonl", "ndjson", "zip"],
            Self::Csv => &["csv", "tsv", "zip"],
        }
    }

    /// Whether `datasets` takes a file for one of this format.
    pub(super) fn takes(self, path: &str) -> bool {
        endings(path).any(|ending| self.endings().contains(&ending))
    }

    /// Whether a file can be read as one of this format.
    pub(super) fn reads(self, path: &str) -> bool {
        rows::format(Path::new(path)).is_some_and(|format| Self::of(&format) == Some(self))
    }
}

/// All endings of a file: `json` and `gz` of `x.json.gz`.
fn endings(path: &str) -> impl Iterator<Item = &str> {
    path.rsplit('/').next().unwrap_or_default().split('.').skip(1)
}

fn is_among(words: &str, ending: &str) -> bool {
    words.split_ascii_whitespace().any(|word| word == ending)
}

/// Whether `datasets` takes a file for data, by its name.
pub(super) fn may_be_data(path: &str) -> bool {
    endings(path).any(|ending| {
        Format::of(ending).is_some()
            || is_among(OTHER, ending)
            || is_among(MEDIA, ending)
            || (ending == ending.to_uppercase() && is_among(MEDIA, &ending.to_lowercase()))
    })
}

/// The format of most of the files; of several with as many, Parquet before JSON before CSV. An error holds the ending
/// that most of them have, where rows are not read from it.
pub(super) fn of_most(paths: &[&str]) -> Result<Format, Option<String>> {
    let mut counts: BTreeMap<(String, bool), usize> = BTreeMap::new();
    for path in paths {
        let is_metadata = METADATA.contains(&path.rsplit('/').next().unwrap_or_default());
        for ending in endings(path) {
            *counts.entry((ending.to_lowercase(), is_metadata)).or_default() += 1;
        }
    }
    let favourite = |ending: &str| {
        ["csv", "json", "jsonl", "arrow", "vortex", "lance", "parquet"].iter().position(|other| *other == ending)
    };
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_unstable_by(|((one, of_one), one_count), ((other, of_other), other_count)| {
        let rank = |is_metadata: bool, count: usize, ending: &str| (!is_metadata, count, favourite(ending));
        rank(*of_other, *other_count, other).cmp(&rank(*of_one, *one_count, one)).then_with(|| other.cmp(one))
    });
    for ((ending, _), _) in ranked {
        if let Some(format) = Format::of(&ending) {
            return Ok(format);
        }
        if is_among(OTHER, &ending) || is_among(MEDIA, &ending) {
            return Err(Some(ending));
        }
    }
    Err(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_of_most_files_and_parquet_in_a_draw() {
        assert_eq!(of_most(&["a.json", "b.csv", "c.csv"]), Ok(Format::Csv));
        assert_eq!(of_most(&["a.json", "b.csv", "c.parquet"]), Ok(Format::Parquet));
        assert_eq!(of_most(&["a.v1.json.gz"]), Ok(Format::Json));
        assert_eq!(of_most(&["a.JSONL", "b.gz"]), Ok(Format::Json));
        assert_eq!(of_most(&["a.png", "b.PNG", "metadata.jsonl"]), Err(Some("png".to_owned())));
        assert_eq!(of_most(&["a.txt"]), Err(Some("txt".to_owned())));
        assert_eq!(of_most(&["LICENSE"]), Err(None));
    }

    #[test]
    fn what_may_be_data_is_told_by_any_ending_of_a_name() {
        assert!(["a.csv", "d/x.json.gz", "x.PNG", "a.v2.parquet.old"].iter().all(|path| may_be_data(path)));
        assert!(!["LICENSE", "a.csv/LICENSE", "x.CSV", "x.py", "csv"].iter().any(|path| may_be_data(path)));
    }

    #[test]
    fn a_file_is_read_by_its_last_ending_and_its_compression() {
        assert!(Format::Json.reads("x.json.gz") && Format::Json.reads("x.ndjson") && Format::Csv.reads("x.csv.zst"));
        assert!(!Format::Json.reads("x.json.bz2") && !Format::Csv.reads("x.tsv") && !Format::Parquet.reads("x.json"));
        assert!(Format::Csv.takes("x.tsv") && Format::Json.takes("x.json.bz2") && !Format::Json.takes("x.csv"));
    }
}
