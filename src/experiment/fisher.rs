//! `fishers:`.

use mergelab_wire::Labels;

use super::context::{Context, Item};
use super::gram::capture;
use super::keys::{FISHER, GRADIENT_DTYPES, LABELS, RUN};
use super::read::Fields;
use super::types::{Data, Fisher, Section};

/// Reads one Fisher entry. `known` are the data sets that could be read.
pub(super) fn fisher(context: &Context<'_>, item: Item<'_>, known: &Section<Data>) -> Option<Fisher> {
    let fields = Fields::open(context.report, &item.member.view, item.place, "a Fisher entry", &[FISHER, RUN])?;
    fields.require(&["model", "data"]);
    let seed = fields.get("seed", |seed| seed.whole(0, u64::MAX)).unwrap_or(context.settings.seed);
    let capture = capture(context, item, &fields, known, GRADIENT_DTYPES);
    let labels = match fields.get_or("labels", Labels::Data, |labels| labels.choice(LABELS))? {
        Labels::Model { .. } => Labels::Model { seed },
        Labels::Data => {
            fields.refuse(&["seed"], "without `labels: model`: nothing is drawn");
            Labels::Data
        }
    };
    Some(Fisher { capture: capture?, labels })
}
