//! The rows of the built-in kinds, read from the tables in `api/data`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Column, GroupVersionKind, Kind, Storage, Subresource};
use crate::schema;

const KINDS: &str = include_str!("../../data/kinds.tsv");
const COLUMNS: &str = include_str!("../../data/columns.tsv");

/// The rows, in the order of discovery.
pub(super) fn read_tables() -> Vec<Arc<Kind>> {
    let mut columns: BTreeMap<[&str; 3], Vec<Column>> = BTreeMap::new();
    for line in COLUMNS.lines().skip(1) {
        let cells: Vec<_> = line.split('\t').collect();
        let [group, version, plural, name, ty, format, priority] = cells[..] else {
            panic!("a row of columns.tsv has {} cells: {line}", cells.len());
        };
        columns.entry([core(group), version, plural]).or_default().push(Column {
            name: name.to_owned(),
            ty: ty.to_owned(),
            format: dash(format).to_owned(),
            priority: priority.parse().unwrap_or_else(|_| panic!("priority in columns.tsv: {line}")),
            description: String::new(),
            json_path: None,
        });
    }
    KINDS.lines().skip(1).map(|line| Arc::new(read_kind(line, &mut columns))).collect()
}

fn read_kind<'a>(line: &'a str, columns: &mut BTreeMap<[&'a str; 3], Vec<Column>>) -> Kind {
    let cells: Vec<_> = line.split('\t').collect();
    let [group, version, plural, singular, kind, scope, short, categories, verbs, subresources] = cells[..] else {
        panic!("a row of kinds.tsv has {} cells: {line}", cells.len());
    };
    let group = core(group);
    let schema = schema::built_in().kind(group, version, kind);
    Kind {
        schema: schema.unwrap_or_else(|| panic!("kinds.tsv names {kind}, which has no type")).clone(),
        columns: columns.remove(&[group, version, plural]).unwrap_or_default(),
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        singular: singular.to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        namespaced: scope == "namespaced",
        short_names: list(short),
        categories: list(categories),
        verbs: list(verbs),
        subresources: subresources
            .split(' ')
            .filter(|s| *s != "-" && !s.is_empty())
            .map(|s| read_subresource(s, group, version))
            .collect(),
        storage: storage_of(group, version, plural, kind),
        custom: false,
        definition: None,
    }
}

/// `scale(Scale:get,patch,update)`
fn read_subresource(text: &str, group: &str, version: &str) -> Subresource {
    let parsed = text.strip_suffix(')').and_then(|t| t.split_once('(')).and_then(|(name, rest)| {
        let (kind, verbs) = rest.split_once(':')?;
        Some((name, kind, verbs))
    });
    let Some((name, kind, verbs)) = parsed else { panic!("a subresource in kinds.tsv: {text}") };
    let (group, version) = match kind {
        "Scale" => ("autoscaling", "v1"),
        "Eviction" => ("policy", "v1"),
        "TokenRequest" => ("authentication.k8s.io", "v1"),
        _ => (group, version),
    };
    Subresource { name: name.to_owned(), kind: GroupVersionKind::new(group, version, kind), verbs: list(verbs) }
}

/// Most kinds are stored as served. `convert` knows how to get from one to the other where not.
fn storage_of(group: &str, version: &str, plural: &str, kind: &str) -> Storage {
    let (group, version) = match (group, plural) {
        ("events.k8s.io", "events") => ("", "v1"),
        ("autoscaling", "horizontalpodautoscalers") => ("autoscaling", "v2"),
        _ => (group, version),
    };
    Storage { kind: GroupVersionKind::new(group, version, kind), plural: plural.to_owned() }
}

fn core(group: &str) -> &str {
    if group == "core" { "" } else { group }
}

fn dash(cell: &str) -> &str {
    if cell == "-" { "" } else { cell }
}

fn list(cell: &str) -> Vec<String> {
    dash(cell).split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect()
}
