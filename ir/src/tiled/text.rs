//! Words of the text form, which printer and parser share.

use super::ReshardKind;
use crate::access::Monoid;

/// Combinations with their names.
pub(super) const MONOIDS: [(Monoid, &str); 8] = [
    (Monoid::Sum, "sum"),
    (Monoid::Prod, "prod"),
    (Monoid::Max, "max"),
    (Monoid::Min, "min"),
    (Monoid::ArgMax { last: false }, "arg_max"),
    (Monoid::ArgMax { last: true }, "arg_max_last"),
    (Monoid::ArgMin { last: false }, "arg_min"),
    (Monoid::ArgMin { last: true }, "arg_min_last"),
];

/// Collectives with their names.
pub(super) const RESHARD_KINDS: [(ReshardKind, &str); 7] = [
    (ReshardKind::Slice, "slice"),
    (ReshardKind::AllGather, "all_gather"),
    (ReshardKind::AllReduce, "all_reduce"),
    (ReshardKind::ReduceScatter, "reduce_scatter"),
    (ReshardKind::Halo, "halo"),
    (ReshardKind::AllToAll, "all_to_all"),
    (ReshardKind::Redistribute, "redistribute"),
];

/// The name of an entry of one of these tables.
pub(crate) fn name_of<T: PartialEq>(table: &[(T, &'static str)], value: &T) -> &'static str {
    table
        .iter()
        .find(|(v, _)| v == value)
        .map_or("?", |(_, name)| name)
}

/// The entry of a name.
pub(crate) fn named<T: Copy>(table: &[(T, &str)], name: &str) -> Option<T> {
    table.iter().find(|(_, n)| *n == name).map(|(v, _)| *v)
}
