//! Values by tensor name, and which of two lists of them certainly meet at a tensor, whatever the models' tensors are called.

use std::borrow::Cow;

use super::diagnostics::Span;
use super::scalar::{number, plain};
use super::tree::{Node, Value};

/// A value, for the tensors that fit its filter and none of those before it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Filtered<'a> {
    /// What is part of the tensors' names; `None` fits all.
    pub(super) filter: Option<&'a str>,
    /// One number, or some over depth.
    pub(super) values: Cow<'a, [f64]>,
    /// Where it stands; `None` of one that is not stated.
    pub(super) place: Option<Span>,
}

impl<'a> Filtered<'a> {
    /// A value for all tensors that nothing states.
    pub(super) fn default(value: f64) -> Self {
        Self { filter: None, values: vec![value].into(), place: None }
    }

    /// What stands at a node; `None` where that is not numbers, which is reported where it is read.
    pub(super) fn of(node: &'a Node) -> Option<Vec<Self>> {
        let one = |node: &'a Node, filter, place| {
            let values = match &node.value {
                Value::List(items) => items.iter().map(|item| number(plain(item)?)).collect::<Option<Vec<_>>>()?,
                _ => vec![number(plain(node)?)?],
            };
            let values = values.into();
            Some(Self { filter, values, place: Some(place) })
        };
        let items = node.as_list().filter(|items| items.iter().any(|item| item.as_map().is_some()));
        let Some(items) = items else { return Some(vec![one(node, None, node.span)?]) };
        let item = |item: &'a Node| {
            let map = item.as_map()?;
            let filter = map.get("filter").filter(|field| !field.value.is_null());
            let filter = filter.map(|field| field.value.as_scalar()).unwrap_or_default();
            one(&map.get("value")?.value, filter.filter(|filter| *filter != "*"), item.span)
        };
        items.iter().map(|node| item(node)).collect()
    }

    /// Whether whatever fits another filter fits this one too.
    fn holds(&self, other: Option<&str>) -> bool {
        self.filter.is_none_or(|filter| other.is_some_and(|other| other.contains(filter)))
    }

    /// The value at a part of the way from the first layer to the last.
    pub(super) fn at(&self, share: f64) -> Option<f64> {
        let position = share * (self.values.len().checked_sub(1)? as f64);
        let (low, high) = (position.floor() as usize, position.ceil() as usize);
        let (low, high, rest) = (self.values[low], self.values[high], position - position.floor());
        Some(low + (high - low) * rest)
    }
}

/// What counts of another list for all tensors that an item of `own` is for; `None` where that depends on what else they are
/// called.
pub(super) fn partner<'i, 'a>(
    own: &[Filtered<'_>],
    index: usize,
    other: &'i [Filtered<'a>],
) -> Option<&'i Filtered<'a>> {
    let filter = own.get(index)?.filter;
    // Tensors that an earlier item of its own list takes are none of its tensors.
    let taken = |item: &&Filtered<'a>| item.filter.is_some() && own[..index].iter().any(|own| own.holds(item.filter));
    other.iter().find(|item| !taken(item)).filter(|item| item.holds(filter))
}

/// The items of a list that tensors can come to: those up to the first that fits all.
pub(super) fn reached<'i, 'a>(items: &'i [Filtered<'a>]) -> impl Iterator<Item = usize> + use<'i, 'a> {
    let last = items.iter().position(|item| item.filter.is_none()).unwrap_or(items.len());
    (0..items.len()).take(last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[(Option<&'static str>, f64)]) -> Vec<Filtered<'static>> {
        let item = |(filter, value): &(Option<&'static str>, f64)| Filtered {
            filter: *filter,
            values: vec![*value].into(),
            place: None,
        };
        items.iter().map(item).collect()
    }

    fn met(own: &[(Option<&'static str>, f64)], index: usize, other: &[(Option<&'static str>, f64)]) -> Option<f64> {
        partner(&list(own), index, &list(other)).and_then(|item| item.at(0.0))
    }

    #[test]
    fn two_values_meet_where_no_name_of_a_tensor_can_change_that() {
        let by_part = [(Some("mlp"), 1.0), (None, 2.0)];
        assert_eq!(met(&[(None, 0.0)], 0, &[(None, 5.0)]), Some(5.0));
        assert_eq!(met(&by_part, 0, &[(None, 5.0)]), Some(5.0));
        assert_eq!(met(&by_part, 0, &by_part), Some(1.0));
        assert_eq!(met(&by_part, 1, &by_part), Some(2.0));
        assert_eq!(met(&[(Some("mlp.up_proj"), 0.0)], 0, &by_part), Some(1.0));
        // Some of the tensors with `up_proj` have `mlp` in their names, and maybe others have not.
        assert_eq!(met(&[(Some("up_proj"), 0.0)], 0, &by_part), None);
        assert_eq!(met(&[(None, 0.0)], 0, &by_part), None);
    }

    #[test]
    fn what_an_earlier_item_takes_is_none_of_the_tensors_of_a_later_one() {
        let own = [(Some("self_attn"), 0.0), (Some("mlp"), 0.0), (None, 0.0)];
        let other = [(Some("self_attn"), 1.0), (Some("mlp"), 2.0), (None, 3.0)];
        assert_eq!([0, 1, 2].map(|index| met(&own, index, &other)), [Some(1.0), Some(2.0), Some(3.0)]);
        assert_eq!(met(&own[1..], 0, &other), None);
        assert_eq!(reached(&list(&[(Some("mlp"), 0.0), (None, 0.0), (Some("norm"), 0.0)])).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_list_runs_from_the_first_layer_to_the_last() {
        let item = Filtered { filter: None, values: vec![0.0, 1.0, 0.5].into(), place: None };
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|share| item.at(share)), [Some(0.0), Some(0.5), Some(1.0), Some(0.5)]);
    }
}
