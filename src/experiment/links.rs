//! Who needs whom, to find cycles.

use std::collections::HashSet;

use indexmap::IndexMap;

use super::diagnostics::{Diagnostic, Report, Span};

/// References between entries, by their full names (`merges.avg`).
#[derive(Default)]
pub(super) struct Links {
    nodes: IndexMap<String, Vec<(String, Span)>>,
}

/// How far a search has come with an entry.
#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Open,
    Done,
}

impl Links {
    /// Says that `from` needs `to`, by the reference at `span`.
    pub(super) fn add(&mut self, from: &str, to: String, span: Span) {
        match self.nodes.get_mut(from) {
            Some(needs) => needs.push((to, span)),
            None => drop(self.nodes.insert(from.to_owned(), vec![(to, span)])),
        }
    }

    /// Reports each cycle once, at the reference that closes it. Depth first without recursion: chains may be long.
    pub(super) fn check(&self, report: &Report) {
        let mut state = vec![State::New; self.nodes.len()];
        // All expansions of an entry share its references; one report for each is enough.
        let mut reported = HashSet::new();
        for start in 0..self.nodes.len() {
            if state[start] != State::New {
                continue;
            }
            state[start] = State::Open;
            let mut path = vec![(start, 0)];
            while let Some((node, next)) = path.last_mut() {
                let Some((to, span)) = self.nodes[*node].get(*next) else {
                    state[*node] = State::Done;
                    path.pop();
                    continue;
                };
                *next += 1;
                let Some(to) = self.nodes.get_index_of(to) else { continue };
                match state[to] {
                    State::New => {
                        state[to] = State::Open;
                        path.push((to, 0));
                    }
                    State::Open if reported.insert(*span) => report.add(self.cycle(&path, to, *span)),
                    State::Open | State::Done => {}
                }
            }
        }
    }

    fn cycle(&self, path: &[(usize, usize)], to: usize, span: Span) -> Diagnostic {
        let name = |node: usize| self.nodes.get_index(node).map_or("", |(name, _)| name.as_str());
        let ring: Vec<_> = path.iter().skip_while(|(node, _)| *node != to).map(|(node, _)| name(*node)).collect();
        let message = format!("a cycle: {} -> {}", ring.join(" -> "), name(to));
        Diagnostic::new(span, message)
            .label("this reference closes it")
            .hint("nothing can be made before itself; take one of these references out")
    }
}
