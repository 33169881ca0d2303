//! The house rules that a program can check: the crate graph, where heavy crates may live, what a source file looks
//! like, that documents are true to the code, that the README and the CI run the same commands.
//!
//! Each test gathers everything that breaks its rule and names file and line, so that one run shows all there is to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use minik8s_tests::tools::workspace;
use serde_json::Value;

/// What the binary may import: everything, to wire it.
const ALL_ROOMS: &[&str] = &[
    "clock",
    "metrics",
    "streaming",
    "api",
    "store",
    "cri",
    "runtime",
    "apiserver",
    "client",
    "scheduler",
    "controllers",
    "kubelet",
];
/// Who may import whom, bottom up. `docs/ARCHITECTURE.md` draws it and says why.
const CRATE_GRAPH: [(&str, &[&str]); 14] = [
    ("clock", &[]),
    ("metrics", &[]),
    ("streaming", &[]),
    ("api", &["clock"]),
    ("store", &["clock"]),
    ("cri", &["clock", "streaming"]),
    ("runtime", &["clock", "streaming", "cri"]),
    ("apiserver", &["clock", "metrics", "streaming", "api", "store"]),
    ("client", &["clock", "metrics", "api"]),
    ("scheduler", &["clock", "metrics", "api", "client"]),
    ("controllers", &["clock", "metrics", "api", "client"]),
    ("kubelet", &["clock", "streaming", "api", "cri", "client"]),
    ("minik8s", ALL_ROOMS),
    ("tests", &["clock", "api"]),
];

/// Crates that are kept in few places, and the places. Tests and build scripts may use them anywhere.
const CONFINED: [(&str, &[&str]); 10] = [
    ("anyhow", &["minik8s"]),
    ("clap", &["minik8s"]),
    ("kube", &["client", "scheduler", "controllers", "kubelet", "minik8s"]),
    ("protobuf", &["store"]),
    ("raft", &["store"]),
    ("sled", &["store"]),
    ("tonic", &["cri", "kubelet", "runtime"]),
    ("brush-parser", &["runtime"]),
    ("cel", &["api"]),
    ("rcgen", &["controllers", "kubelet", "minik8s"]),
];

/// Lines of a Rust file, tables and tests included. Beyond it, a file holds two ideas.
const MAX_FILE_LINES: usize = 900;
/// Names of modules that say nothing about what is in them.
const JUNK_DRAWERS: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "misc", "shared", "stuff"];

/// What broke a rule, a line each.
#[derive(Default)]
struct Breaches(String);

impl Breaches {
    fn add(&mut self, path: &Path, line: usize, what: impl std::fmt::Display) {
        let path = path.strip_prefix(workspace()).unwrap_or(path).display();
        let _ = writeln!(self.0, "  {path}:{line}: {what}");
    }

    #[track_caller]
    fn none(self, rule: &str) {
        assert!(self.0.is_empty(), "{rule}\n{}", self.0);
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Every file below the root that ends with `ending`, in order; build output and hidden folders aside.
fn files(ending: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("cannot list {}: {error}", dir.display()));
        for entry in entries {
            let path = entry.expect("an entry of a folder").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    walk(&path, ending, found);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(workspace(), ending, &mut found);
    found.sort();
    assert!(!found.is_empty(), "there are files that end with {ending}");
    found
}

/// The lines of a text that are not in a ``` block, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((at + 1, line));
        }
    }
    lines
}

fn documents() -> Vec<PathBuf> {
    files(".md")
}

// --- crates -----------------------------------------------------------------------------------------------------------

/// A crate as cargo sees it.
struct Package {
    folder: String,
    manifest: PathBuf,
    license: String,
    /// Name and kind (`null`, `dev`, `build`).
    dependencies: Vec<(String, Option<String>)>,
}

fn packages() -> Vec<Package> {
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(workspace()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("packages").iter().map(|package| {
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let folder = manifest.parent().and_then(Path::file_name).expect("a crate has a folder");
        let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
        Package {
            folder: folder.to_string_lossy().into_owned(),
            license: text(&package["license"]),
            dependencies: dependencies
                .map(|dependency| (text(&dependency["name"]), dependency["kind"].as_str().map(str::to_owned)))
                .collect(),
            manifest,
        }
    });
    packages.collect()
}

#[test]
fn the_crate_graph_is_the_drawn_one() {
    let allowed: BTreeMap<_, _> = CRATE_GRAPH.into_iter().collect();
    let packages = packages();
    let mut breaches = Breaches::default();
    for package in &packages {
        let Some(allowed) = allowed.get(package.folder.as_str()) else {
            breaches.add(&package.manifest, 1, "is a crate that the graph does not have");
            continue;
        };
        for (dependency, _) in &package.dependencies {
            if let Some(room) = dependency.strip_prefix("minik8s-")
                && !allowed.contains(&room)
            {
                breaches.add(&package.manifest, 1, format_args!("{} must not import {room}", package.folder));
            }
        }
    }
    assert_eq!(packages.len(), CRATE_GRAPH.len(), "the graph has crates that are not there");
    breaches.none("crates meet only where the graph says so");
}

#[test]
fn heavy_crates_stay_where_they_belong() {
    let mut breaches = Breaches::default();
    for package in packages() {
        for (dependency, kind) in &package.dependencies {
            let confined = CONFINED.iter().find(|(name, _)| name == dependency);
            if let (Some((name, rooms)), None) = (confined, kind)
                && !rooms.contains(&package.folder.as_str())
            {
                breaches.add(&package.manifest, 1, format_args!("{name} belongs to {}", rooms.join(", ")));
            }
        }
    }
    breaches.none("some dependencies are a matter of few crates");
}

#[test]
fn crates_take_versions_lints_and_licence_from_the_workspace() {
    let mut breaches = Breaches::default();
    for package in packages() {
        let text = read(&package.manifest);
        let mut dependencies = false;
        for (at, line) in text.lines().enumerate() {
            if line.starts_with('[') {
                dependencies = line.ends_with("dependencies]");
            } else if dependencies && line.contains('=') && !line.contains("workspace = true") {
                breaches.add(&package.manifest, at + 1, "a version of its own: versions stand in the root Cargo.toml");
            }
        }
        if !text.contains("[lints]\nworkspace = true") {
            breaches.add(&package.manifest, 1, "lacks `[lints] workspace = true`");
        }
        if package.license != "Apache-2.0" {
            breaches.add(&package.manifest, 1, "lacks `license.workspace = true`");
        }
    }
    breaches.none("one place for what all crates share");
}

#[test]
fn every_dependency_has_a_word_on_why_and_a_user() {
    let manifest = workspace().join("Cargo.toml");
    let used: BTreeSet<String> =
        packages().into_iter().flat_map(|package| package.dependencies).map(|(name, _)| name).collect();
    let mut breaches = Breaches::default();
    let text = read(&manifest);
    let lines = text.lines().enumerate().skip_while(|(_, line)| *line != "[workspace.dependencies]").skip(1);
    for (at, line) in lines.take_while(|(_, line)| !line.starts_with('[')) {
        let Some((name, rest)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else { continue };
        if !rest.contains("path = ") && !rest.contains(" # ") {
            breaches.add(&manifest, at + 1, format_args!("{name}: no word on why"));
        }
        if !used.contains(name) && !rest.contains("package = ") {
            breaches.add(&manifest, at + 1, format_args!("{name}: no crate uses it"));
        }
    }
    breaches.none("a dependency says why it is here");
}

#[test]
fn the_entry_of_every_library_is_a_chapter() {
    let mut breaches = Breaches::default();
    for (folder, _) in CRATE_GRAPH {
        let path = workspace().join(folder).join("src").join("lib.rs");
        if folder == "tests" || !path.exists() {
            continue;
        }
        let text = read(&path);
        for heading in ["Invariants", "Left out, compared with"] {
            let has = |line: &str| line.starts_with("//! #") && line.contains(heading);
            if !text.lines().any(has) {
                breaches.add(&path, 1, format_args!("has no heading \"{heading}\""));
            }
        }
        if !text.to_lowercase().contains("read in this order") && !text.to_lowercase().contains("reading order") {
            breaches.add(&path, 1, "gives no reading order");
        }
        for (at, line) in text.lines().enumerate() {
            if ["fn ", "pub fn ", "impl ", "struct ", "pub struct "].iter().any(|start| line.starts_with(start)) {
                breaches.add(&path, at + 1, "has logic: lib.rs is a map");
            }
        }
    }
    breaches.none("lib.rs is a chapter and a map");
}

// --- source files -----------------------------------------------------------------------------------------------------

#[test]
fn every_source_file_says_what_it_is() {
    let mut breaches = Breaches::default();
    for path in files(".rs") {
        let text = read(&path);
        if !text.starts_with("//!") {
            breaches.add(&path, 1, "does not begin with a module document (`//!`)");
        }
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            breaches.add(&path, lines, format_args!("more than {MAX_FILE_LINES} lines: split at the idea"));
        }
    }
    breaches.none("a source file begins with what it is about, and ends before it is about two things");
}

#[test]
fn there_are_no_junk_drawers() {
    let mut breaches = Breaches::default();
    for path in files(".rs") {
        let inside = path.strip_prefix(workspace()).expect("below the root");
        for part in inside.with_extension("").components() {
            if let Component::Normal(name) = part
                && JUNK_DRAWERS.iter().any(|junk| name == *junk)
            {
                breaches.add(&path, 1, format_args!("{} is no noun of the domain", name.display()));
            }
        }
    }
    breaches.none("a module is named after what is in it");
}

/// What must not stand in a source file: the text, and why. Spelled in halves, so that this file may hold it.
const BANNED: [(&str, &str, &str); 9] = [
    ("to", "do!(", "finish it"),
    ("unimple", "mented!(", "answer with an error that says so"),
    ("#[ig", "nore", "a test that does not run proves nothing"),
    ("TO", "DO", "finish it, or write down what is left out"),
    ("XX", "X", "finish it, or write down what is left out"),
    ("HA", "CK", "find the right way"),
    ("tokio::", "time::", "wait on the injected clock"),
    ("dbg", "!(", "trace instead"),
    ("SystemTime", "::now", "ask the injected clock"),
];

/// Whether `text` stands in `line` as a word of its own.
fn has_word(line: &str, text: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || c == '_';
    let (starts, ends) = (text.starts_with(inner), text.ends_with(inner));
    line.match_indices(text).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + text.len()..]);
        !(starts && before.ends_with(inner) || ends && after.starts_with(inner))
    })
}

#[test]
fn nothing_is_left_for_later() {
    let mut breaches = Breaches::default();
    let banned = BANNED.map(|(start, end, why)| (format!("{start}{end}"), why));
    // The one place that may look at the machine's clock is the clock.
    let clock = workspace().join("clock");
    for path in files(".rs").into_iter().filter(|path| !path.starts_with(&clock)) {
        for (at, line) in read(&path).lines().enumerate() {
            for (text, why) in banned.iter().filter(|(text, _)| has_word(line, text)) {
                breaches.add(&path, at + 1, format_args!("`{text}`: {why}"));
            }
        }
    }
    breaches.none("what is here is finished");
}

#[test]
fn every_select_says_what_comes_first() {
    let mut breaches = Breaches::default();
    for path in files(".rs") {
        let text = read(&path);
        for (at, _) in text.match_indices(concat!("select", "! {")) {
            let inside = text[at..].split_once('{').map_or("", |(_, inside)| inside.trim_start());
            if !inside.starts_with("biased;") {
                let line = text[..at].lines().count();
                breaches.add(
                    &path,
                    line,
                    "a `select!` without `biased;` begins where chance says, and no seed replays it",
                );
            }
        }
    }
    breaches.none("a run is decided by its seed");
}

#[test]
fn tests_do_not_sleep() {
    let mut breaches = Breaches::default();
    for path in files(".rs") {
        let inside = path.strip_prefix(workspace()).expect("below the root");
        if !inside.components().skip(1).any(|part| part.as_os_str() == "tests") {
            continue;
        }
        for (at, line) in read(&path).lines().enumerate() {
            if line.contains(concat!("thread::", "sleep(")) {
                breaches.add(&path, at + 1, "waits for time to pass: wait for what must come true");
            }
        }
    }
    breaches.none("a test waits for events, not for time");
}

// --- documents --------------------------------------------------------------------------------------------------------

/// The links of a line: text and target.
fn links(line: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("](") {
        let start = line[..at].rfind('[').map_or(0, |open| open + 1);
        if let Some(length) = line[at + 2..].find(')') {
            found.push((&line[start..at], &line[at + 2..at + 2 + length]));
        }
    }
    found
}

/// The code spans of a line.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Whether `text` names something that a reader finds in the source `code`: the last part of a path, as a word.
fn names_something_in(text: &str, code: &str) -> bool {
    let name = text.trim_matches('`').trim_end_matches("()").rsplit("::").next().unwrap_or_default();
    code.lines().any(|line| has_word(line, name))
}

/// What is wrong with a link of the document at `path`.
fn broken(path: &Path, shown: &str, target: &str) -> Option<String> {
    if target.contains("://") {
        return None;
    }
    let (file, section) = target.split_once('#').unwrap_or((target, ""));
    let linked = if file.is_empty() { path.to_owned() } else { path.with_file_name(file) };
    if !linked.exists() {
        return Some(format!("{target} is not there"));
    }
    let names_code = shown.starts_with('`') && !shown.contains(['/', '.']) && file.ends_with(".rs");
    if names_code && !names_something_in(shown, &read(&linked)) {
        return Some(format!("{shown} is not in {file}"));
    }
    let heading = |(_, line): &(usize, &str)| line.starts_with('#') && anchor(line) == section;
    if !section.is_empty() && !prose(&read(&linked)).iter().any(heading) {
        return Some(format!("{target} has no such heading"));
    }
    None
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut breaches = Breaches::default();
    for path in documents() {
        let text = read(&path);
        for (at, line) in prose(&text) {
            for why in links(line).into_iter().filter_map(|(shown, target)| broken(&path, shown, target)) {
                breaches.add(&path, at, why);
            }
        }
    }
    breaches.none("a link in a document leads somewhere, and a name that links to a source file is in that file");
}

#[test]
fn files_named_in_documents_are_there() {
    const ENDINGS: [&str; 8] = [".rs", ".md", ".tsv", ".yaml", ".toml", ".proto", ".py", "/"];
    let mut breaches = Breaches::default();
    for path in documents() {
        let text = read(&path);
        for (at, line) in prose(&text) {
            for span in code_spans(line) {
                let rooted = CRATE_GRAPH.iter().any(|(folder, _)| span.split('/').next() == Some(folder))
                    || ["docs/", "examples/", ".ci/"].iter().any(|start| span.starts_with(start));
                let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
                let a_path = span.contains('/') && ENDINGS.iter().any(|ending| span.ends_with(ending));
                if rooted && plain && a_path && !workspace().join(span).exists() {
                    breaches.add(&path, at, format_args!("`{span}` is not there"));
                }
            }
        }
    }
    breaches.none("a file that a document names is there");
}

/// What the architecture calls absent, and the table has.
#[test]
fn absent_controllers_are_absent() {
    let path = workspace().join("docs").join("ARCHITECTURE.md");
    let (document, table) = (read(&path), read(&workspace().join("controllers").join("src").join("table.rs")));
    let (_, absent) =
        document.split_once("**Absent controllers.**").expect("the architecture lists absent controllers");
    let absent = absent.split("\n- ").next().expect("a list item has an end");
    let mut breaches = Breaches::default();
    for name in code_spans(absent).filter(|name| name.ends_with("-controller")) {
        if table.contains(&format!("\"{name}\"")) {
            breaches.add(&path, 1, format_args!("{name} is in controllers/src/table.rs"));
        }
    }
    breaches.none("the list of absent controllers is true");
}

/// Whose bounds `docs/bounds.md` lists.
const BOUNDED: [&str; 8] = ["apiserver", "store", "client", "kubelet", "runtime", "streaming", "cri", "minik8s"];
/// Words in the name of a constant that is a bound.
const BOUND_WORDS: [&str; 9] =
    ["MAX", "LIMIT", "TIMEOUT", "QUEUE", "CAPACITY", "REMEMBERED", "BACKLOG", "PENDING", "RETRIES"];

/// The name of the number or duration that a line declares as a constant.
fn constant(line: &str) -> Option<&str> {
    let declared = line.trim_start();
    let visible = ["pub ", "pub(crate) ", "pub(super) "].iter().find_map(|start| declared.strip_prefix(start));
    let declared = visible.unwrap_or(declared);
    let (name, kind) = declared.strip_prefix("const ")?.split_once(": ")?;
    let counts = ["usize", "u64", "u32", "i64", "i32", "Duration"].iter().any(|start| kind.starts_with(start));
    counts.then_some(name)
}

#[test]
fn every_bound_is_on_its_page_and_tested() {
    let page = workspace().join("docs").join("bounds.md");
    let text = read(&page);
    let mut breaches = Breaches::default();
    let mut listed = BTreeSet::new();
    let (answered, _) = text.split_once("## Without an answer").expect("the page has two parts");
    for (at, line) in prose(&text).into_iter().filter(|(_, line)| line.starts_with("| [")) {
        let columns: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        for (name, target) in links(columns[0]) {
            let file = page.with_file_name(target);
            let name = name.trim_matches('`');
            let declares = |line: &str| constant(line) == Some(name) || line.contains(&format!("struct {name} "));
            if !file.exists() || !read(&file).lines().any(declares) {
                breaches.add(&page, at, format_args!("{target} does not declare {name}"));
            }
            listed.insert((name.to_owned(), target.trim_start_matches("../").to_owned()));
        }
        if at > answered.lines().count() {
            continue;
        }
        let tests = columns.get(3).map(|column| links(column)).unwrap_or_default();
        if tests.is_empty() {
            breaches.add(&page, at, "no test goes there");
        }
        for (name, target) in tests {
            let function = format!("fn {}(", name.trim_matches('`'));
            let file = page.with_file_name(target);
            if !file.exists() || !read(&file).contains(&function) {
                breaches.add(&page, at, format_args!("{target} has no test {name}"));
            }
        }
    }
    for path in files(".rs") {
        let inside = path.strip_prefix(workspace()).expect("below the root").to_string_lossy().replace('\\', "/");
        if !BOUNDED.iter().any(|folder| inside.starts_with(&format!("{folder}/src/"))) {
            continue;
        }
        for (at, name) in read(&path).lines().enumerate().filter_map(|(at, line)| Some((at, constant(line)?))) {
            let is_bound = name.split('_').any(|word| BOUND_WORDS.contains(&word));
            if is_bound && !listed.contains(&(name.to_owned(), inside.clone())) {
                breaches.add(&path, at + 1, format_args!("{name} is not in docs/bounds.md"));
            }
        }
    }
    breaches.none("a bound is written down, with what happens there and the test that goes there");
}

/// The commands of the README that cargo runs: what a newcomer types.
fn readme_commands() -> Vec<String> {
    let text = read(&workspace().join("README.md"));
    let mut commands = Vec::new();
    let mut shell = false;
    for line in text.lines() {
        if line.starts_with("```") {
            shell = line == "```sh";
        } else if shell && line.starts_with("cargo ") {
            commands.push(line.to_owned());
        }
    }
    commands
}

#[test]
fn the_readme_has_two_commands() {
    assert_eq!(readme_commands(), ["cargo run --release -- up --nodes 3", "cargo test --workspace"]);
}

#[cfg(unix)]
#[test]
fn the_ci_runs_what_the_readme_says() {
    let run = workspace().join(".ci").join("run");
    let output = Command::new("bash").arg(&run).arg("--list").output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let steps = String::from_utf8_lossy(&output.stdout).into_owned();
    let test = readme_commands().into_iter().find(|command| command.starts_with("cargo test")).expect("a test command");
    assert_eq!(steps.lines().last(), Some(test.as_str()), "the last step is the README's test command:\n{steps}");
    for tool in ["cargo fmt --all --check", "cargo clippy --workspace --all-targets", "cargo doc --workspace --no-deps"]
    {
        assert!(steps.lines().any(|step| step.contains(tool)), "{tool} is a step:\n{steps}");
    }
}

#[test]
fn the_checks_find_what_they_look_for() {
    assert!(has_word("a.b(c)", "b") && !has_word("abc", "b") && !has_word("b_c", "b"));
    assert!(has_word("x.f!(y)", "f!("), "what ends in a bracket may have a letter behind it");
    assert_eq!(constant("    pub(crate) const MAX_X: u64 = 1;"), Some("MAX_X"));
    assert_eq!((constant("pub const A: Duration = B;"), constant("const N: &str = \"\";")), (Some("A"), None));
    assert_eq!(links("see [`a`](b.rs) and [c](d.md#e)"), [("`a`", "b.rs"), ("c", "d.md#e")]);
    assert_eq!(code_spans("a `b` c `d/e.rs`").collect::<Vec<_>>(), ["b", "d/e.rs"]);
    assert_eq!(anchor("## Differences from Kubernetes, on purpose"), "differences-from-kubernetes-on-purpose");
    assert_eq!(prose("a\n```\nb\n```\nc"), [(1, "a"), (5, "c")]);
    let here = workspace().join("docs").join("ARCHITECTURE.md");
    assert_eq!(broken(&here, "`main`", "../minik8s/src/main.rs"), None);
    assert_eq!(broken(&here, "x", "nowhere.md").as_deref(), Some("nowhere.md is not there"));
    assert!(broken(&here, "`nobody`", "../minik8s/src/main.rs").is_some_and(|why| why.contains("is not in")));
    assert!(broken(&here, "x", "#no-such-heading").is_some_and(|why| why.contains("heading")));
}
