//! What the readers of all sections share: the report, the names, references between entries.

use std::cell::RefCell;

use minijinja::Environment;

use super::diagnostics::{Diagnostic, Report, Span};
use super::elsewhere::Others;
use super::links::Links;
use super::names::{Budget, Scope};
use super::read::{Fields, Reading, did_you_mean};
use super::sweep::Member;
use super::types::{Output, Settings};

/// Everything that may be referred to.
pub(super) struct Names<'a> {
    pub(super) models: Scope<'a>,
    pub(super) data: Scope<'a>,
    pub(super) commands: Scope<'a>,
    pub(super) grams: Scope<'a>,
    pub(super) fishers: Scope<'a>,
}

/// Shared by the readers of one file.
pub(super) struct Context<'a> {
    pub(super) report: &'a Report,
    pub(super) names: &'a Names<'a>,
    pub(super) others: &'a Others<'a>,
    pub(super) settings: &'a Settings,
    pub(super) budget: Budget,
    pub(super) links: RefCell<Links>,
    pub(super) jinja: Environment<'static>,
}

/// An expansion that is being read.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    /// `merges.alphas-0.1`.
    pub(super) stage: &'a str,
    /// Where the entry's name stands.
    pub(super) place: Span,
    pub(super) member: &'a Member,
}

impl<'a> Context<'a> {
    /// The same for another file, whose entries nothing in this one can need.
    pub(super) fn of<'r>(&self, report: &'r Report) -> Context<'r>
    where
        'a: 'r,
    {
        Context {
            report,
            names: self.names,
            others: self.others,
            settings: self.settings,
            budget: Budget::default(),
            links: RefCell::default(),
            jinja: Environment::new(),
        }
    }

    /// A reference to one model or merge.
    pub(super) fn model(&self, item: Item<'_>, reading: Reading<'_>) -> Option<String> {
        let name = self.names.models.one(reading, &reading.name()?, &item.member.picks)?;
        self.link_model(item, &name, reading.node.span);
        Some(name)
    }

    /// A reference to one data set.
    pub(super) fn data(&self, item: Item<'_>, reading: Reading<'_>) -> Option<String> {
        let name = self.names.data.one(reading, &reading.name()?, &item.member.picks)?;
        self.link(item, "data", &name, reading.node.span);
        Some(name)
    }

    /// A reference to one entry of `grams` or `fishers`.
    pub(super) fn estimate(&self, item: Item<'_>, section: &'static str, reading: Reading<'_>) -> Option<String> {
        let name = self.scope(section).one(reading, &reading.name()?, &item.member.picks)?;
        self.link(item, section, &name, reading.node.span);
        Some(name)
    }

    pub(super) fn link_model(&self, item: Item<'_>, name: &str, span: Span) {
        let section = self.names.models.section(name).unwrap_or("models");
        self.link(item, section, name, span);
    }

    pub(super) fn link(&self, item: Item<'_>, section: &str, name: &str, span: Span) {
        self.links.borrow_mut().add(item.stage, format!("{section}.{name}"), span);
    }

    /// `from: commands.NAME`, with the `path:` beside it.
    pub(super) fn output(&self, item: Item<'_>, fields: &Fields<'_>) -> Option<Output> {
        let path = fields.get("path", Reading::inner_path);
        let (_, command) = fields.get("from", |reading| self.reference(item, reading, &["commands"]))?;
        (path.is_some() || !fields.has("path")).then_some(Output { command, path })
    }

    /// `SECTION.NAME`, where the section is one of those allowed.
    pub(super) fn reference(
        &self,
        item: Item<'_>,
        reading: Reading<'_>,
        allowed: &[&'static str],
    ) -> Option<(&'static str, String)> {
        let text = reading.word()?;
        let forms: Vec<_> = allowed.iter().map(|section| format!("`{section}.NAME`")).collect();
        let split = text.split_once('.').and_then(|(section, name)| {
            let section = allowed.iter().copied().find(|known| *known == section)?;
            Some((section, name))
        });
        let Some((section, name)) = split else {
            let hint = match text.split_once('.') {
                Some((section, name)) => {
                    did_you_mean(section, allowed.iter().copied()).map(|near| near.replace("`?", &format!(".{name}`?")))
                }
                None => allowed
                    .iter()
                    .find(|section| self.scope(section).contains(&text))
                    .map(|section| format!("write `{section}.{text}`")),
            };
            let message = format!("`{text}` is not a reference; expected {}", forms.join(" or "));
            return reading.fail(Diagnostic::new(reading.node.span, message).maybe_hint(hint));
        };
        let scope = self.scope(section);
        if let Some(actual) = scope.section(name).filter(|actual| *actual != section) {
            let message = format!("`{name}` is not in `{section}`");
            return reading.fail(Diagnostic::new(reading.node.span, message).hint(format!("it is `{actual}.{name}`")));
        }
        let name = scope.one(reading, name, &item.member.picks)?;
        self.link(item, section, &name, reading.node.span);
        Some((section, name))
    }

    fn scope(&self, section: &str) -> &Scope<'_> {
        match section {
            "commands" => &self.names.commands,
            "data" => &self.names.data,
            "grams" => &self.names.grams,
            "fishers" => &self.names.fishers,
            _ => &self.names.models,
        }
    }

    /// A Jinja template that parses.
    pub(super) fn template(&self, reading: Reading<'_>) -> Option<String> {
        let text = reading.text()?;
        let Err(error) = self.jinja.template_from_str(&text).map(drop) else { return Some(text) };
        let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        let line =
            error.line().filter(|line| *line > 1).map(|line| format!(" (line {line} of it)")).unwrap_or_default();
        let message = format!("`{}` is not a Jinja template: {detail}{line}", reading.key);
        reading.fail(Diagnostic::new(reading.node.span, message).hint("columns go in braces: \"{{ question }}\""))
    }
}
