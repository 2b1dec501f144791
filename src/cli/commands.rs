//! The `lm_eval` commands that do what evaluations do, for people to copy.

use super::progress::full_name;
use super::session::Session;
use crate::experiment::Model;
use crate::plan::{Facts, Spec, StageId};
use crate::stage::{self, Equivalent};

/// The command of a stage that is an evaluation by the harness, with real paths where they are known.
pub(super) fn equivalent(session: &Session, facts: &Facts, id: StageId) -> Option<Equivalent> {
    let stage = session.graph.stage(id);
    let model = stage.need("model")?;
    let by_path;
    let directory = match (facts.results.get(&model), &session.graph.stage(model).spec) {
        (Some(artifact), _) => Ok(artifact.location.as_path()),
        (None, Spec::Model(Model::Path(path))) => {
            by_path = session.project.resolve(path);
            Ok(by_path.as_path())
        }
        (None, _) => Err(session.graph.stage(model).name.as_str()),
    };
    stage::equivalent(&session.project, session.python.as_ref(), &session.graph, stage, directory)
}

/// Commands as lines for a shell, each after a comment with the stage; nothing where there are none.
pub(super) fn as_text(session: &Session, commands: &[(StageId, Equivalent)]) -> String {
    if commands.is_empty() {
        return String::new();
    }
    let mut text = format!("\n# The same by lm_eval, in {}:\n", session.project.root.display());
    for (id, Equivalent { command, differences }) in commands {
        text += &format!("\n# {}\n", full_name(&session.graph, *id));
        text.extend(differences.iter().map(|difference| format!("# without {difference}\n")));
        text += &format!("{command}\n");
    }
    text
}
