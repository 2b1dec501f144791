//! From the tree to the typed experiment: declare every name, then read every entry, then check what spans entries.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::Environment;

use super::context::{Context, Item, Names};
use super::depth::Depths;
use super::diagnostics::{Diagnostic, Diagnostics, Report, Source, Span};
use super::elsewhere::Others;
use super::keys::FILE;
use super::loaded::{Files, Loaded, Made, NoFiles};
use super::mergekit::Mergekit;
use super::names::{Budget, Scope};
use super::per_model::{Known, mentioned};
use super::read::{Fields, Reading, check_name, wrong_type};
use super::sweep::{Expander, Family, MAX_EXPANSIONS};
use super::table::Evaluated;
use super::tree::{self, Field, Map, Node};
use super::types::{Expansion, Experiment, Section, Settings};
use super::{command, fisher, gram, merge, settings, sources, suite, table};

/// Reads an experiment that names no mergekit configuration.
///
/// `file` is only for messages; nothing is read from disk, and whether the paths in the file exist is not looked at.
///
/// # Errors
/// Everything that is wrong with the text, each with its place.
pub fn parse(file: &Path, text: &str) -> Result<Loaded, Diagnostics> {
    parse_with(file, text, &NoFiles)
}

/// Reads an experiment with the mergekit configurations that it names.
///
/// # Errors
/// Everything that is wrong with the text and with the configurations, each with its place.
pub fn parse_with(file: &Path, text: &str, files: &dyn Files) -> Result<Loaded, Diagnostics> {
    // A byte order mark is no part of the text, and would put every column of the first line off by one.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Arc::new(Source { file: file.to_path_buf(), text: text.to_owned() });
    let (root, repeated) = match tree::read(text) {
        Ok((Some(root), repeated)) => (root, repeated),
        Ok((None, _)) => {
            let empty =
                Diagnostic::new(Span::default(), "this experiment is empty").hint("it needs at least `name: NAME`");
            return Err(Diagnostics::new(source, vec![empty]));
        }
        Err(diagnostic) => return Err(Diagnostics::new(source, vec![*diagnostic])),
    };
    let report = Report::default();
    for diagnostic in repeated {
        report.add(diagnostic);
    }
    let read = Sections::of(&report, &root).and_then(|sections| experiment(&report, file, &sections, files));
    match read {
        Some((experiment, made)) if report.count() == 0 => Ok(Loaded::new(experiment, source, root, made)),
        _ => Err(Diagnostics::new(source, report.into_list())),
    }
}

/// What each expansion came from, by its full name, such as `merges.alphas-0.1`.
pub(super) type Origins = HashMap<String, Expansion>;

/// The sections of a file.
struct Sections<'a> {
    fields: Fields<'a>,
}

impl<'a> Sections<'a> {
    fn of(report: &'a Report, root: &'a Node) -> Option<Self> {
        let start = Span { start: root.span.start, end: root.span.start };
        Fields::open(report, root, start, "an experiment", &[FILE]).map(|fields| Self { fields })
    }

    /// The entries of a section whose names are names, and whether the section could be read. A section may be empty.
    fn entries(&self, report: &Report, section: &str) -> (Vec<(&'a str, &'a Field)>, bool) {
        let Some(field) = self.fields.field(section).filter(|field| !field.value.is_null()) else {
            // A section whose own key is misspelled may hold any name.
            let misspelled = self.fields.has(section) && self.fields.field(section).is_none();
            return (Vec::new(), !misspelled);
        };
        let Some(map) = field.value.as_map() else {
            report.add(wrong_type(&field.value, &format!("`{section}`"), "a mapping from names to entries"));
            return (Vec::new(), false);
        };
        let named = map.iter().filter(|(name, field)| check_name(report, name, field.key));
        (named.map(|(name, field)| (name.as_str(), field)).collect(), true)
    }
}

/// A section's entries with what they expand to.
struct Declared<'a> {
    section: &'static str,
    entries: Vec<(&'a str, &'a Field)>,
    families: Vec<Family>,
    readable: bool,
}

impl<'a> Declared<'a> {
    fn plain(report: &Report, sections: &Sections<'a>, section: &'static str) -> Self {
        let (entries, readable) = sections.entries(report, section);
        let families = entries.iter().map(|(name, field)| Family::single(section, name, field)).collect();
        Self { section, entries, families, readable }
    }

    fn swept<'f>(
        sections: &Sections<'a>,
        section: &'static str,
        expander: &Expander<'_>,
        multipliers: impl Fn(&Map) -> Vec<&'f Family>,
    ) -> Self {
        let (entries, readable) = sections.entries(expander.report, section);
        let expand = |(name, field): &(&str, &Field)| expander.expand(section, name, field, &multipliers);
        let families = entries.iter().map(expand).collect();
        Self { section, entries, families, readable }
    }

    /// The swept families by the entry's name.
    fn swept_families(&self) -> HashMap<&str, &Family> {
        self.families
            .iter()
            .filter(|family| family.swept || family.broken)
            .map(|family| (family.entry.as_str(), family))
            .collect()
    }

    fn declare<'d>(&'d self, report: &Report, scope: &mut Scope<'d>) {
        if !self.readable {
            scope.unreadable();
        }
        scope.declare(report, self.section, &self.families);
    }

    /// Reads every expansion; what is wrong with one is left out.
    fn read<T>(&self, mut read: impl FnMut(Item<'_>, &'a Field) -> Option<T>) -> Section<T> {
        let mut all = Section::with_capacity(self.families.len());
        for ((_, field), family) in self.entries.iter().zip(&self.families) {
            for member in &family.members {
                let stage = format!("{}.{}", self.section, member.name);
                let item = Item { stage: &stage, place: field.key, member };
                if let Some(value) = read(item, field) {
                    all.insert(member.name.clone(), value);
                }
            }
        }
        all
    }

    fn origins(&self) -> impl Iterator<Item = (String, Expansion)> {
        self.families.iter().filter(|family| family.swept).flat_map(|family| {
            family.members.iter().map(|member| {
                let (entry, coordinates) = (family.entry.clone(), member.coordinates.clone());
                (format!("{}.{}", self.section, member.name), Expansion { entry, coordinates })
            })
        })
    }
}

fn experiment(report: &Report, file: &Path, sections: &Sections<'_>, files: &dyn Files) -> Option<(Experiment, Made)> {
    let fields = &sections.fields;
    let name = fields.get("name", Reading::name);
    let description = fields.get("description", Reading::text);
    let settings = match fields.field("settings").filter(|field| !field.value.is_null()) {
        Some(field) => settings::settings(report, field).unwrap_or_default(),
        None => Settings::default(),
    };

    let left = Cell::new(MAX_EXPANSIONS);
    let expander = Expander { report, left: &left, placeholders: None, inner: &[] };
    let of_data = Expander { inner: sources::SWEPT_INSIDE, ..expander };
    let of_commands = Expander { placeholders: Some(command::SWEPT_COMMAND_KEYS), ..expander };
    let commands = Declared::swept(sections, "commands", &of_commands, |_| Vec::new());
    let swept_commands = commands.swept_families();
    let of_their_command = |view: &Map| {
        let adapter = view.get("lora").and_then(|field| field.value.as_map());
        let froms = std::iter::once(view).chain(adapter).filter_map(|map| map.get("from")?.value.as_scalar());
        let names = froms.filter_map(|from| from.strip_prefix("commands."));
        names.filter_map(|name| swept_commands.get(name).copied()).collect()
    };
    let models = Declared::swept(sections, "models", &expander, of_their_command);
    let data = Declared::swept(sections, "data", &of_data, of_their_command);
    let swept_data = data.swept_families();
    let of_their_data = |view: &Map| {
        let name = view.get("data").and_then(|field| field.value.as_scalar());
        name.and_then(|name| swept_data.get(name).copied()).into_iter().collect()
    };
    let grams = Declared::swept(sections, "grams", &expander, of_their_data);
    let fishers = Declared::swept(sections, "fishers", &expander, of_their_data);
    let (swept_grams, swept_fishers) = (grams.swept_families(), fishers.swept_families());
    let merges = Declared::swept(sections, "merges", &expander, |view| {
        let grams = mentioned(view, &["grams", "held_out"]).filter_map(|name| swept_grams.get(name));
        let fishers = mentioned(view, &["fishers"]).filter_map(|name| swept_fishers.get(name));
        grams.chain(fishers).copied().collect()
    });
    let evals = Declared::plain(report, sections, "evals");
    let tables = Declared::plain(report, sections, "tables");

    let mergekit = Mergekit::read(files, &merges.families, &models.families);
    let mut names = Names {
        models: Scope::new("model or merge"),
        data: Scope::new("data set"),
        commands: Scope::new("command"),
        grams: Scope::new("Gram entry"),
        fishers: Scope::new("Fisher entry"),
    };
    models.declare(report, &mut names.models);
    merges.declare(report, &mut names.models);
    names.models.add_models(report, mergekit.families());
    data.declare(report, &mut names.data);
    commands.declare(report, &mut names.commands);
    grams.declare(report, &mut names.grams);
    fishers.declare(report, &mut names.fishers);

    let others = Others::new(files, name.clone());
    let context = Context {
        report,
        names: &names,
        others: &others,
        settings: &settings,
        budget: Budget::default(),
        links: std::cell::RefCell::default(),
        jinja: Environment::new(),
    };
    let mut read_models = models.read(|item, _| sources::model(&context, item));
    let read_data = data.read(|item, _| sources::data(&context, item));
    let read_commands = commands.read(|item, field| command::command(&context, item, field));
    let read_grams = grams.read(|item, _| gram::gram(&context, item, &read_data));
    let read_fishers = fishers.read(|item, _| fisher::fisher(&context, item, &read_data));
    let depths = Depths::new(files, &read_models, &mergekit);
    let known = Known { grams: &read_grams, fishers: &read_fishers, data: &read_data, depths: &depths };
    let read_merges = merges.read(|item, _| merge::merge(&context, item, known, &mergekit));
    let suites = evals.read(|item, _| suite::suite(&context, item, &read_data));
    suite::check_twice(report, suites.values());
    let complete = evals.readable && suites.len() == evals.families.len();
    let evaluated = complete.then(|| Evaluated::by(suites.values()));
    let read_tables = if files.of_another() {
        Section::new()
    } else {
        tables.read(|item, _| table::table(&context, item, evaluated.as_ref()))
    };
    context.links.borrow().check(report);

    let origins =
        [&models, &data, &commands, &grams, &fishers, &merges].into_iter().flat_map(Declared::origins).collect();
    drop(context);
    drop(names);
    let (added, elsewhere) = mergekit.into_models();
    read_models.extend(added);
    let experiment = Experiment {
        file: PathBuf::from(file),
        name: name?,
        description,
        models: read_models,
        data: read_data,
        commands: read_commands,
        grams: read_grams,
        fishers: read_fishers,
        merges: read_merges,
        evals: suites.into_iter().map(|(name, placed)| (name, placed.suite)).collect(),
        tables: read_tables,
        settings: settings.clone(),
    };
    Some((experiment, Made { origins, elsewhere }))
}
