//! Pictures as PNG: the SVG drawn by the crate `resvg`, with a font that is a part of this program (`dejavu`), so that the
//! same figures give the same picture on every machine, whatever fonts it has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb};

/// Pixels of a PNG for one of the SVG: sharp in print and on fine screens.
const SCALE: f32 = 2.0;

/// The family that text is drawn in.
const FAMILY: &str = "DejaVu Sans";

/// What draws pictures.
#[derive(Debug)]
pub struct Painter {
    options: usvg::Options<'static>,
}

/// A picture.
#[derive(Debug)]
pub struct Png {
    /// The file.
    pub bytes: Vec<u8>,
    /// Letters that no font had; a box stands for each.
    pub missing: BTreeSet<char>,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// A font that cannot be used.
    #[error("{}: {problem}", file.display())]
    Font {
        /// Its file.
        file: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The picture is too large, or no picture.
    #[error("cannot draw the picture: {0}")]
    Draw(String),
}

impl Painter {
    /// With more fonts, for letters that its own lacks.
    ///
    /// # Errors
    /// A file that cannot be read, or has no font in it.
    pub fn new(fonts: &[PathBuf]) -> Result<Self, PngError> {
        let mut known = fontdb::Database::new();
        known.load_font_data(dejavu::sans::regular().to_vec());
        known.load_font_data(dejavu::sans::bold().to_vec());
        for file in fonts {
            add(&mut known, file).map_err(|problem| PngError::Font { file: file.clone(), problem })?;
        }
        known.set_sans_serif_family(FAMILY);
        let options = usvg::Options { font_family: FAMILY.to_owned(), fontdb: Arc::new(known), ..Default::default() };
        Ok(Self { options })
    }

    /// Draws a picture of this program's own: nothing is loaded that it names.
    ///
    /// # Errors
    /// When it is too large for memory.
    pub fn draw(&self, svg: &str) -> Result<Png, PngError> {
        let draw = |error: &dyn std::fmt::Display| PngError::Draw(error.to_string());
        let tree = usvg::Tree::from_str(svg, &self.options).map_err(|error| draw(&error))?;
        let size = tree.size();
        let pixels = |length: f32| (length * SCALE).ceil() as u32;
        let (width, height) = (pixels(size.width()), pixels(size.height()));
        let mut canvas =
            Pixmap::new(width, height).ok_or_else(|| draw(&format!("{width} by {height} pixels are too many")))?;
        resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut canvas.as_mut());
        let bytes = canvas.encode_png().map_err(|error| draw(&error))?;
        let mut missing = BTreeSet::new();
        without_glyph(tree.root(), &mut missing);
        Ok(Png { bytes, missing })
    }
}

fn add(known: &mut fontdb::Database, file: &Path) -> Result<(), String> {
    let before = known.len();
    known.load_font_source(fontdb::Source::Binary(Arc::new(std::fs::read(file).map_err(|error| error.to_string())?)));
    if known.len() == before { Err("there is no font in it".to_owned()) } else { Ok(()) }
}

/// Letters in a part of a picture that got the glyph 0, which is that of letters which are not there.
fn without_glyph(group: &usvg::Group, missing: &mut BTreeSet<char>) {
    for node in group.children() {
        match node {
            usvg::Node::Group(group) => without_glyph(group, missing),
            usvg::Node::Text(text) => {
                let glyphs = text.layouted().iter().flat_map(|span| &span.positioned_glyphs);
                missing.extend(glyphs.filter(|glyph| glyph.id.0 == 0).flat_map(|glyph| glyph.text.chars()));
            }
            usvg::Node::Path(_) | usvg::Node::Image(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(text: &str) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"100\" height=\"20\" font-family=\"sans-serif\"><rect \
             width=\"100\" height=\"20\" fill=\"#FFFFFF\"/><text x=\"4\" y=\"14\" font-size=\"12\">{text}</text></svg>"
        )
    }

    /// How many pixels are not white.
    fn ink(png: &Png) -> usize {
        let canvas = Pixmap::decode_png(&png.bytes).unwrap();
        assert_eq!((canvas.width(), canvas.height()), (200, 40));
        canvas.pixels().iter().filter(|pixel| pixel.red() < 255).count()
    }

    #[test]
    fn text_is_drawn_in_the_programs_own_font_and_is_the_same_each_time() {
        let painter = Painter::new(&[]).unwrap();
        let png = painter.draw(&picture("α = 0.1 †")).unwrap();
        assert!(png.missing.is_empty(), "{:?}", png.missing);
        assert!(ink(&png) > 300, "{}", ink(&png));
        assert_eq!(ink(&painter.draw(&picture("")).unwrap()), 0);
        assert_eq!(Painter::new(&[]).unwrap().draw(&picture("α = 0.1 †")).unwrap().bytes, png.bytes);
        assert!(painter.draw(&picture("α = 0.2 †")).unwrap().bytes != png.bytes);
    }

    #[test]
    fn letters_that_no_font_has_are_named_and_isolates_are_no_letters() {
        let painter = Painter::new(&[]).unwrap();
        let png = painter.draw(&picture("a日本b \u{2068}שלום\u{2069} عربي")).unwrap();
        assert_eq!(png.missing.into_iter().collect::<String>(), "日本");
    }

    #[test]
    fn what_is_no_font_is_refused_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.ttf");
        let said = |file: &Path| Painter::new(&[file.to_path_buf()]).unwrap_err().to_string();
        assert!(said(&file).ends_with("a.ttf: No such file or directory (os error 2)"), "{}", said(&file));
        std::fs::write(&file, "no font").unwrap();
        assert!(said(&file).ends_with("a.ttf: there is no font in it"), "{}", said(&file));
    }
}
