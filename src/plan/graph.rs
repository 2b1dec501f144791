//! The graph: entries of experiments become stages, names become edges.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mergelab_wire::{Engine, Rows};

use super::stage::{Loss, Need, Spec, Stage, StageId};
use crate::experiment::{Backend, Calibration, Capture, DataSource, Experiment, Gram, Input, Kl, Model, Suite};

/// The stages of one or more experiments, each after what it needs.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The experiments, in the order given.
    pub experiments: Vec<Arc<Experiment>>,
    /// The stages.
    pub stages: Vec<Stage>,
    names: HashMap<(usize, String), StageId>,
}

/// A stage that no experiment has.
#[derive(Debug, thiserror::Error)]
#[error("no stage {name:?}{}", nearest.as_ref().map(|name| format!("; did you mean {name:?}?")).unwrap_or_default())]
pub struct GraphError {
    /// What was asked for.
    pub name: String,
    /// The nearest name that exists.
    pub nearest: Option<String>,
}

impl Graph {
    /// The graph of some experiments.
    pub fn new(experiments: Vec<Arc<Experiment>>) -> Self {
        let mut graph = Self { experiments, stages: Vec::new(), names: HashMap::new() };
        for index in 0..graph.experiments.len() {
            let experiment = Arc::clone(&graph.experiments[index]);
            Builder { graph: &mut graph, index, experiment: &experiment }.build();
        }
        graph
    }

    /// A stage.
    pub fn stage(&self, id: StageId) -> &Stage {
        &self.stages[id.0]
    }

    /// Every stage with its id.
    pub fn iter(&self) -> impl Iterator<Item = (StageId, &Stage)> {
        self.stages.iter().enumerate().map(|(index, stage)| (StageId(index), stage))
    }

    /// Name of a stage's experiment.
    pub fn experiment_name(&self, id: StageId) -> &str {
        &self.experiments[self.stage(id).experiment].name
    }

    /// Stages of a name: one for each experiment that has it. The name of a suite means all of its stages.
    ///
    /// # Errors
    /// When there is none, with the nearest name.
    pub fn find(&self, name: &str) -> Result<Vec<StageId>, GraphError> {
        let exact: Vec<_> = self.iter().filter(|(_, stage)| stage.name == name).map(|(id, _)| id).collect();
        if !exact.is_empty() {
            return Ok(exact);
        }
        let entry: Vec<_> = self.iter().filter(|(_, stage)| under(&stage.name, name)).map(|(id, _)| id).collect();
        if !entry.is_empty() {
            return Ok(entry);
        }
        let nearest = self
            .stages
            .iter()
            .map(|stage| (strsim::jaro_winkler(&stage.name, name), &stage.name))
            .filter(|(likeness, _)| *likeness > 0.8)
            .max_by(|one, other| one.0.total_cmp(&other.0))
            .map(|(_, name)| name.clone());
        Err(GraphError { name: name.to_owned(), nearest })
    }

    /// Into how many shards the rows of a data set are split, for each split that a stage asks for.
    pub fn splits(&self, data: StageId) -> BTreeSet<usize> {
        let asks = |stage: &Stage| match &stage.spec {
            Spec::Gram { capture, shard: Some(_), .. } => (stage.need("data") == Some(data)).then_some(capture.shards),
            _ => None,
        };
        self.stages.iter().filter_map(asks).collect()
    }

    /// The stages and all that they need, directly or not.
    pub fn closure(&self, stages: &[StageId]) -> Vec<bool> {
        let mut wanted = vec![false; self.stages.len()];
        let mut pending = stages.to_vec();
        while let Some(id) = pending.pop() {
            if !std::mem::replace(&mut wanted[id.0], true) {
                pending.extend(self.stage(id).needs.iter().map(|need| need.stage));
            }
        }
        wanted
    }
}

/// Whether a stage lies under a name: `evals.suite/avg/gsm8k` under `evals.suite` and `evals.suite/avg`.
fn under(stage: &str, name: &str) -> bool {
    stage.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'))
}

struct Builder<'a> {
    graph: &'a mut Graph,
    index: usize,
    experiment: &'a Experiment,
}

impl Builder<'_> {
    fn build(mut self) {
        let experiment = self.experiment;
        for name in experiment.models.keys() {
            self.model(name);
        }
        for name in experiment.data.keys() {
            self.data(name);
        }
        for name in experiment.commands.keys() {
            self.command(name);
        }
        for name in experiment.grams.keys() {
            self.gram(name);
        }
        for name in experiment.fishers.keys() {
            self.fisher(name);
        }
        for name in experiment.merges.keys() {
            self.model(name);
        }
        let mut by_cell: HashMap<(&str, String), StageId> = HashMap::new();
        for (suite_name, suite) in &experiment.evals {
            for model in &suite.models {
                let needs = vec![Need { role: "model".to_owned(), stage: self.model(model) }];
                for task in suite.measures(suite_name) {
                    let name = format!("evals.{suite_name}/{model}/{}", task.name);
                    let cell = (model.as_str(), task.name.clone());
                    if suite.backend == Backend::Loss {
                        let id = self.loss(name, (suite_name, suite), model, &task.name);
                        by_cell.insert(cell, id);
                        continue;
                    }
                    let spec = Spec::Eval {
                        suite: Box::new(suite.clone()),
                        suite_name: suite_name.clone(),
                        model: model.clone(),
                        task: Box::new(task),
                        seed: experiment.settings.seed,
                    };
                    let id = self.add(name, spec, needs.clone(), ("evals", suite_name.clone()));
                    by_cell.insert(cell, id);
                }
            }
        }
        for (name, table) in &experiment.tables {
            let mut needs: Vec<Need> = Vec::new();
            let cells = table.rows.iter().flat_map(|row| {
                table
                    .metrics()
                    .flat_map(|column| row.models(column.at.as_deref()).into_iter().map(move |model| (model, column)))
            });
            // What rows are held against comes after them.
            let others = table.metrics().flat_map(|column| table.models(column).map(move |model| (model, column)));
            for (model, column) in cells.chain(others) {
                let role = format!("{model}/{}", column.task);
                let cell = by_cell.get(&(model, column.task.clone()));
                if let Some(&stage) = cell.filter(|_| needs.iter().all(|need| need.role != role)) {
                    needs.push(Need { role, stage });
                }
            }
            let spec = Spec::Table { name: name.clone(), table: table.clone() };
            self.add(format!("tables.{name}"), spec, needs, ("tables", name.clone()));
        }
    }

    fn add(&mut self, name: String, spec: Spec, needs: Vec<Need>, entry: (&'static str, String)) -> StageId {
        let id = StageId(self.graph.stages.len());
        self.graph.names.insert((self.index, name.clone()), id);
        self.graph.stages.push(Stage { experiment: self.index, name, spec, needs, entry });
        id
    }

    fn known(&self, name: &str) -> Option<StageId> {
        self.graph.names.get(&(self.index, name.to_owned())).copied()
    }

    /// A model, or a merge: they share their names.
    fn model(&mut self, name: &str) -> StageId {
        let Some(model) = self.experiment.models.get(name) else { return self.merge(name) };
        let stage = format!("models.{name}");
        if let Some(id) = self.known(&stage) {
            return id;
        }
        let entry = ("models", name.to_owned());
        let Model::Lora(lora) = model else {
            let needs = self.needs_of_place(model);
            return self.add(stage, Spec::Model(model.clone()), needs, entry);
        };
        let needs = self.needs_of_place(&lora.base);
        let base = self.add(format!("{stage}/base"), Spec::Model(lora.base.clone()), needs, entry.clone());
        let needs = self.needs_of_place(&lora.adapter);
        let adapter = self.add(format!("{stage}/lora"), Spec::Adapter(lora.adapter.clone()), needs, entry.clone());
        let needs = [("base", base), ("lora", adapter)].map(|(role, stage)| Need { role: role.to_owned(), stage });
        self.add(stage, Spec::Lora((**lora).clone()), needs.into(), entry)
    }

    /// What is needed for the files of a model or of an adapter to be there.
    fn needs_of_place(&mut self, place: &Model) -> Vec<Need> {
        match place {
            Model::From(output) => vec![Need { role: "command".to_owned(), stage: self.command(&output.command) }],
            Model::Hub { .. } | Model::Path(_) | Model::Lora(_) => Vec::new(),
        }
    }

    fn data(&mut self, name: &str) -> StageId {
        let stage = format!("data.{name}");
        if let Some(id) = self.known(&stage) {
            return id;
        }
        let data = &self.experiment.data[name];
        let needs = match &data.source {
            DataSource::From(output) => vec![Need { role: "command".to_owned(), stage: self.command(&output.command) }],
            DataSource::Hub { .. } | DataSource::Path(_) => Vec::new(),
        };
        self.add(stage, Spec::Data(data.clone()), needs, ("data", name.to_owned()))
    }

    fn command(&mut self, name: &str) -> StageId {
        let stage = format!("commands.{name}");
        if let Some(id) = self.known(&stage) {
            return id;
        }
        let command = &self.experiment.commands[name];
        let mut needs = Vec::new();
        for (input, source) in &command.inputs {
            let stage = match source {
                Input::Path(_) => continue,
                Input::From(output) => self.command(&output.command),
                Input::Model(model) => self.model(model),
                Input::Data(data) => self.data(data),
                Input::Gram(gram) => self.gram(gram),
            };
            needs.push(Need { role: input.clone(), stage });
        }
        self.add(stage, Spec::Command(command.clone()), needs, ("commands", name.to_owned()))
    }

    fn gram(&mut self, name: &str) -> StageId {
        let stage = format!("grams.{name}");
        if let Some(id) = self.known(&stage) {
            return id;
        }
        let gram = &self.experiment.grams[name];
        let Gram::Capture(capture) = gram else {
            return self.add(stage, Spec::ImportGram(gram.clone()), Vec::new(), ("grams", name.to_owned()));
        };
        let (rows, strict, needs) = self.run(capture);
        let entry = ("grams", name.to_owned());
        let spec = |shard| Spec::Gram { capture: capture.clone(), rows: rows.clone(), strict, shard };
        if capture.shards == 1 {
            return self.add(stage, spec(None), needs, entry);
        }
        let parts = (0..capture.shards).map(|index| {
            let role = format!("shard-{index}");
            let part = self.add(format!("{stage}/{role}"), spec(Some(index)), needs.clone(), entry.clone());
            Need { role, stage: part }
        });
        let parts = parts.collect();
        self.add(stage, Spec::AddGrams(capture.shards), parts, entry)
    }

    fn loss(&mut self, stage: String, (name, suite): (&str, &Suite), model: &str, data: &str) -> StageId {
        let options = &suite.loss;
        let sources: Vec<String> = match (&options.kl, self.experiment.merges.get(model)) {
            (Kl::From(models), _) => models.clone(),
            (Kl::Sources, Some(merge)) => merge.models.iter().map(|model| model.model.clone()).collect(),
            (Kl::Sources | Kl::None, _) => Vec::new(),
        };
        let capture = Capture {
            model: model.to_owned(),
            data: data.to_owned(),
            max_length: options.max_length,
            add_special_tokens: options.add_special_tokens,
            tokens: options.tokens,
            skip_first: 0,
            chat_template: options.chat_template.clone(),
            exclude: Vec::new(),
            dtype: options.dtype.clone(),
            shards: 1,
            engine: Engine::Native,
        };
        let (rows, strict, mut needs) = self.run(&capture);
        for (index, source) in sources.iter().enumerate() {
            needs.push(Need { role: format!("source.{index}"), stage: self.model(source) });
        }
        let on = Calibration { capture, rows, strict };
        self.add(stage, Spec::Loss(Loss { on, sources }), needs, ("evals", name.to_owned()))
    }

    /// How the rows that a model runs on become text, whether all of them must, and what is needed for it.
    fn run(&mut self, capture: &Capture) -> (Rows, bool, Vec<Need>) {
        let data = &self.experiment.data[&capture.data];
        let needs = vec![
            Need { role: "model".to_owned(), stage: self.model(&capture.model) },
            Need { role: "data".to_owned(), stage: self.data(&capture.data) },
        ];
        (data.format.clone(), data.strict, needs)
    }

    fn fisher(&mut self, name: &str) -> StageId {
        let stage = format!("fishers.{name}");
        if let Some(id) = self.known(&stage) {
            return id;
        }
        let fisher = &self.experiment.fishers[name];
        let (rows, strict, needs) = self.run(&fisher.capture);
        let spec = Spec::Fisher { fisher: fisher.clone(), rows, strict };
        self.add(stage, spec, needs, ("fishers", name.to_owned()))
    }

    fn merge(&mut self, name: &str) -> StageId {
        let stage = format!("merges.{name}");
        if let Some(id) = self.known(&stage) {
            return id;
        }
        let merge = &self.experiment.merges[name];
        let mut needs = Vec::new();
        for (index, model) in merge.models.iter().enumerate() {
            needs.push(Need { role: index.to_string(), stage: self.model(&model.model) });
        }
        for (index, Calibration { capture, .. }) in merge.captures.iter().enumerate() {
            needs.push(Need { role: format!("data.{index}"), stage: self.data(&capture.data) });
        }
        let grams: &[String] = if merge.captures.is_empty() { &merge.grams } else { &[] };
        for (role, grams) in [("grams", grams), ("held_out", &merge.held_out)] {
            for (index, gram) in grams.iter().enumerate() {
                needs.push(Need { role: format!("{role}.{index}"), stage: self.gram(gram) });
            }
        }
        for (index, fisher) in merge.fishers.iter().enumerate() {
            needs.push(Need { role: format!("fishers.{index}"), stage: self.fisher(fisher) });
        }
        if let Some(base) = &merge.base {
            needs.push(Need { role: "base".to_owned(), stage: self.model(base) });
        }
        self.add(stage, Spec::Merge(merge.clone()), needs, ("merges", name.to_owned()))
    }
}
