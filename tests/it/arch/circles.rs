//! Files of one room do not import each other in circles: what is beneath can be read without what is above.
//!
//! A file depends on the file that defines what it names, in a `use` or as a path. A re-export by the file of
//! a folder (`mod.rs`) is a signpost, not a dependency; a re-export by any other file is one.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, expect_none, sources};

/// Names that a file takes from another one, by the paths of both.
type Edges = BTreeMap<(String, String), BTreeSet<String>>;

struct Module {
    file: String,
    room: String,
    /// By the name they have in this file: `*` for a glob, `_` for none.
    imports: Vec<(String, Vec<String>)>,
    /// The code without its imports.
    body: String,
}

/// All by their path from the crate's root.
struct Tree(BTreeMap<Vec<String>, Module>);

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

impl Tree {
    fn of(all: Vec<Source>) -> Self {
        let module = |source: Source| {
            let path = source.path.trim_start_matches("src/");
            let path = path.trim_end_matches(".rs").split('/').map(str::to_owned);
            let mut path: Vec<String> = path.collect();
            if ["mod", "lib"].contains(&path[path.len() - 1].as_str()) {
                path.pop();
            }
            let (imports, body) = imports_and_body(&source.code);
            let module = Module {
                file: source.path,
                room: source.room,
                imports,
                body,
            };
            (path, module)
        };
        Self(all.into_iter().map(module).collect())
    }

    fn has_children(&self, path: &[String]) -> bool {
        let mut below = self.0.keys();
        below.any(|other| other.len() == path.len() + 1 && other.starts_with(path))
    }

    fn has_child(&self, path: &[String], name: &str) -> bool {
        let child: Vec<String> = path.iter().cloned().chain([name.to_owned()]).collect();
        self.0.contains_key(&child)
    }

    /// The modules that a path leads through and to, the last one defining what it names.
    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Vec<Vec<String>> {
        let mut at = from.to_vec();
        let mut rest = path;
        match path.first().map(String::as_str) {
            Some("crate") => at.clear(),
            Some("super") => {
                at.pop();
            }
            Some("self") => {}
            Some(first) if self.has_child(from, first) => at.push(first.to_owned()),
            _ => return Vec::new(),
        }
        rest = &rest[1..];
        while let Some(name) = rest.first() {
            if name == "super" {
                at.pop();
            } else if self.has_child(&at, name) {
                at.push(name.clone());
            } else {
                break;
            }
            rest = &rest[1..];
        }
        let (Some(name), Some(module)) = (rest.first(), self.0.get(&at)) else {
            return vec![at];
        };
        let mut reexport = None;
        for (alias, target) in &module.imports {
            if alias == name {
                reexport = Some(target.iter().chain(&rest[1..]).cloned().collect());
            } else if alias == "*" && self.defines(&at, target, name) {
                reexport = Some(target.iter().chain(rest).cloned().collect::<Vec<_>>());
            }
        }
        let Some(target) = reexport.filter(|_| depth > 0) else {
            return vec![at];
        };
        let further = self.resolve(&at, &target, depth - 1);
        if further.is_empty() || self.has_children(&at) {
            return further;
        }
        [vec![at], further].concat()
    }

    /// Whether the module that a glob names has an item of this name.
    fn defines(&self, from: &[String], glob: &[String], name: &str) -> bool {
        let last = self.resolve(from, glob, 4).pop();
        let Some(module) = last.and_then(|path| self.0.get(&path)) else {
            return false;
        };
        let words: Vec<&str> = module.body.split(|c| !is_word(c)).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let kinds = ["struct", "enum", "trait", "type", "fn", "const", "static"];
        let mut pairs = words.windows(2);
        pairs.any(|pair| kinds.contains(&pair[0]) && pair[1] == name)
    }

    /// What each file takes from others of its room.
    fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (at, module) in &self.0 {
            let is_signpost = self.has_children(at);
            let words: BTreeSet<&str> = module.body.split(|c| !is_word(c)).collect();
            let imports = module.imports.iter().filter_map(|(alias, path)| {
                let is_used = alias == "_" || words.contains(alias.as_str());
                (is_used || !is_signpost).then_some(path)
            });
            let paths = paths_in(&module.body);
            for path in imports.chain(&paths) {
                for target in self.resolve(at, path, 4) {
                    let Some(other) = self.0.get(&target) else {
                        continue;
                    };
                    if other.file != module.file && other.room == module.room {
                        let ends = (module.file.clone(), other.file.clone());
                        let name = path.last().cloned().unwrap_or_default();
                        edges.entry(ends).or_default().insert(name);
                    }
                }
            }
        }
        edges
    }
}

/// Every `use`, one entry for each name, and the code without them.
fn imports_and_body(code: &str) -> (Vec<(String, Vec<String>)>, String) {
    let mut imports = Vec::new();
    let mut body = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let is_whole = !rest[..at].chars().next_back().is_some_and(is_word);
        let end = rest[at..].find(';').map_or(rest.len(), |end| at + end);
        body.push_str(&rest[..at]);
        if is_whole {
            imports_of(&rest[at + 4..end], &[], &mut imports);
        } else {
            body.push_str(&rest[at..end]);
        }
        rest = &rest[end..];
    }
    body.push_str(rest);
    (imports, body)
}

fn imports_of(tree: &str, before: &[String], imports: &mut Vec<(String, Vec<String>)>) {
    let (head, group) = tree.split_once('{').unwrap_or((tree, ""));
    let (head, alias) = head.split_once(" as ").unwrap_or((head, ""));
    let segments = head.split("::").map(str::trim);
    let segments = segments.filter(|segment| !segment.is_empty());
    let mut path = before.to_vec();
    path.extend(segments.map(str::to_owned));
    if tree.contains('{') {
        let mut depth = 0;
        let group = &group[..group.rfind('}').unwrap_or(group.len())];
        let items = group.split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0 && c == ','
        });
        for item in items.filter(|item| !item.trim().is_empty()) {
            imports_of(item, &path, imports);
        }
        return;
    }
    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
        path.pop();
    }
    let last = path.last().cloned().unwrap_or_default();
    if last == "*" {
        path.pop();
    }
    let alias = alias.trim();
    let name = if alias.is_empty() { &last } else { alias };
    imports.push((name.to_owned(), path));
}

/// Every path of two names or more: `a::b::c`.
fn paths_in(body: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut rest = body;
    while let Some(start) = rest.find(is_word) {
        let mut path = Vec::new();
        rest = &rest[start..];
        loop {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            path.push(rest[..end].to_owned());
            rest = &rest[end..];
            match rest.strip_prefix("::") {
                Some(further) if further.starts_with(is_word) => rest = further,
                _ => break,
            }
        }
        if path.len() > 1 {
            paths.push(path);
        }
    }
    paths
}

/// Sets of files of which each one leads to all of the others.
fn circles(edges: &Edges) -> Vec<BTreeSet<String>> {
    let mut reach: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    for (from, to) in edges.keys() {
        reach.entry(from).or_default().insert(to);
    }
    loop {
        let mut has_grown = false;
        for from in reach.keys().copied().collect::<Vec<_>>() {
            let known = &reach[from];
            let further: BTreeSet<&String> = known
                .iter()
                .filter_map(|to| reach.get(to))
                .flatten()
                .copied()
                .chain(known.iter().copied())
                .collect();
            if further.len() > known.len() {
                has_grown = true;
                reach.insert(from, further);
            }
        }
        if !has_grown {
            break;
        }
    }
    let leads = |from: &String, to: &String| reach.get(from).is_some_and(|far| far.contains(to));
    let on_a_circle = reach.keys().filter(|file| leads(file, file));
    let circle = |file: &&String| {
        let back = reach[*file].iter().filter(|other| leads(other, file));
        back.map(|file| (*file).clone()).collect()
    };
    let all: BTreeSet<BTreeSet<String>> = on_a_circle.map(circle).collect();
    all.into_iter().collect()
}

fn describe(circle: &BTreeSet<String>, edges: &Edges) -> String {
    let mut lines = vec![format!("{} files:", circle.len())];
    for ((from, to), names) in edges {
        if circle.contains(from) && circle.contains(to) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            lines.push(format!("  {from} -> {to}: {}", names.join(", ")));
        }
    }
    lines.join("\n  ")
}

#[test]
fn files_of_a_room_import_each_other_in_no_circle() {
    let edges = Tree::of(sources("src")).edges();
    let circles = circles(&edges);
    let offences: Vec<String> = circles.iter().map(|one| describe(one, &edges)).collect();
    expect_none(&offences, "move what two files need into one beneath both");
}

#[test]
fn circles_are_seen_through_every_kind_of_path() {
    let source = |path: &str, code: &str| Source {
        path: format!("src/{path}"),
        room: "room".to_owned(),
        text: String::new(),
        code: code.to_owned(),
    };
    let edges = |parts: &[(&str, &str)]| {
        let all = parts.iter().map(|(path, code)| source(path, code));
        Tree::of(all.collect()).edges()
    };
    let top = "mod a; mod b; mod c; pub use a::A; pub use b::{self, B as Bee}; pub use c::*;";
    let seen = |in_a: &str, in_b: &str| {
        let c = "use super::a::A; pub struct C;";
        let edges = edges(&[
            ("room/mod.rs", top),
            ("room/a.rs", in_a),
            ("room/b.rs", in_b),
            ("room/c.rs", c),
        ]);
        circles(&edges).len()
    };
    for up in [
        "use super::b::f;",
        "use crate::room::Bee;",
        "use crate::{other, room::{x::Y, Bee}};",
        "fn f() { super::b::f() }",
        "fn f() { let x: crate::room::b::T; }",
    ] {
        assert_eq!(seen(up, "use super::A;"), 1, "{up}");
        assert_eq!(seen(up, ""), 0, "{up}");
    }
    // By the glob of the folder's file.
    assert_eq!(seen("use super::C;", ""), 1);
    assert_eq!(seen("use super::D;", ""), 0);
    // What the folder's file has itself.
    let folder = |top: &str| {
        let below = "use super::Own; pub struct A;";
        circles(&edges(&[("room/mod.rs", top), ("room/a.rs", below)])).len()
    };
    assert_eq!(folder("mod a; pub use a::A; pub struct Own;"), 0);
    assert_eq!(folder("mod a; pub use a::A; pub struct Own(A);"), 1);
    assert_eq!(folder("mod a; pub struct Own(a::A);"), 1);
}
