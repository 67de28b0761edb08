//! The workspace's source files as syntax trees, without what only tests compile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};

/// One source file of the workspace, test files excluded.
pub struct Source {
    /// From the workspace's root, e.g. `crates/core/src/model/load.rs`.
    pub path: String,
    /// `core`, `tools`, ..., or `eomt-edge` for the program itself.
    pub krate: String,
    /// Module path inside the crate, e.g. `["model", "load"]`; empty for the crate's root.
    pub module: Vec<String>,
    /// The whole text.
    pub text: String,
    /// Without the items that only tests compile.
    pub tree: syn::File,
}

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Name of each crate and its folder of sources. Generated bindings are not ours to judge.
pub fn crates() -> Vec<(String, PathBuf)> {
    let mut found = vec![("eomt-edge".to_owned(), root().join("src")), ("fuzz".to_owned(), root().join("fuzz/src"))];
    for entry in std::fs::read_dir(root().join("crates")).expect("readable") {
        let folder = entry.expect("readable").path();
        let name = folder.file_name().expect("named").to_string_lossy().into_owned();
        if name != "v4l2-sys-mit" && folder.join("src").is_dir() {
            found.push((name, folder.join("src")));
        }
    }
    found.sort();
    found
}

/// Every source file that is not compiled for tests alone.
pub fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for (krate, folder) in crates() {
        let mut files = Vec::new();
        rust_files(&folder, &mut files);
        let mut of_crate: Vec<Source> = files.iter().map(|path| parse(&krate, &folder, path)).collect();
        let tests: BTreeSet<Vec<String>> = of_crate.iter().flat_map(test_modules).collect();
        of_crate.retain(|source| !(0..=source.module.len()).any(|length| tests.contains(&source.module[..length])));
        for source in &mut of_crate {
            source.tree.items.retain(|item| !is_test(attributes(item)));
        }
        found.extend(of_crate);
    }
    assert!(found.len() > 200, "the walk finds the sources: {}", found.len());
    found
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn parse(krate: &str, folder: &Path, path: &Path) -> Source {
    let inside = path.strip_prefix(folder).expect("below").with_extension("");
    let mut module: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| ["mod", "lib"].contains(&last.as_str())) {
        module.pop();
    }
    let text = std::fs::read_to_string(path).expect("UTF-8");
    let tree = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let path = path.strip_prefix(root()).expect("below").to_string_lossy().into_owned();
    Source { path, krate: krate.to_owned(), module, text, tree }
}

/// The modules that `source` declares for tests alone: `#[cfg(test)] mod tests;`.
fn test_modules(source: &Source) -> Vec<Vec<String>> {
    let declared = source.tree.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() && is_test(&module.attrs) => Some(module.ident.to_string()),
        _ => None,
    });
    declared.map(|name| source.module.iter().cloned().chain([name]).collect()).collect()
}

/// Whether an item exists in tests alone: `#[test]`, or a `#[cfg]` that demands `test`.
pub fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list().map(|list| list.tokens.to_string()).unwrap_or_default();
        let cfg = attribute.path().is_ident("cfg") && (list == "test" || list.starts_with("all (test") || list.starts_with("all(test"));
        cfg || attribute.path().is_ident("test")
    })
}

/// The attributes of an item, of whatever kind.
pub fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// A path as it stands in the code: `["super", "super", "files"]`.
pub type Used = Vec<String>;

/// Everything that `source` names by a path: imports, types, calls, and what stands in the arguments of macros.
pub fn used_paths(source: &Source) -> Vec<Used> {
    let mut collector = Collector::default();
    collector.visit_file(&source.tree);
    collector.used
}

#[derive(Default)]
struct Collector {
    used: Vec<Used>,
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        flatten(&item.tree, &mut Vec::new(), &mut self.used);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.used.push(words);
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(super)` imports nothing
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        in_tokens(call.tokens.clone(), &mut self.used);
    }
}

fn flatten(tree: &syn::UseTree, before: &mut Vec<String>, used: &mut Vec<Used>) {
    let mut end = |name: &syn::Ident, before: &[String]| {
        let words = before.iter().cloned().chain([name.to_string()]).filter(|word| word != "self" || before.is_empty()).collect();
        used.push(words);
    };
    match tree {
        syn::UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, used);
            before.pop();
        }
        syn::UseTree::Name(name) => end(&name.ident, before),
        syn::UseTree::Rename(rename) => end(&rename.ident, before),
        syn::UseTree::Glob(_) => used.push(before.clone()),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, used)),
    }
}

/// Paths among tokens: words with `::` between them.
fn in_tokens(tokens: TokenStream, used: &mut Vec<Used>) {
    let (mut words, mut colons) = (Vec::new(), 0);
    for token in tokens {
        match token {
            TokenTree::Ident(word) => {
                if colons != 2 {
                    used.push(std::mem::take(&mut words));
                }
                words.push(word.to_string());
                colons = 0;
            }
            TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
            TokenTree::Group(group) => {
                used.push(std::mem::take(&mut words));
                in_tokens(group.stream(), used);
                colons = 0;
            }
            _ => {
                used.push(std::mem::take(&mut words));
                colons = 0;
            }
        }
    }
    used.push(words);
    used.retain(|words| !words.is_empty());
}

/// A function's name, its first line, and how many lines it has from `fn` to its closing brace.
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// All functions of a file but those in a test module at its end. rustfmt puts the closing brace below the `fn` line's first letter.
pub fn functions(source: &Source) -> Vec<Function> {
    let text = without_tests(&source.text);
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some(name) = function_name(line.trim_start()) else { continue };
        let end = lines[index..].iter().position(|line| line.len() == indent + 1 && line.ends_with('}'));
        let one_line = line.ends_with('}') || line.ends_with(';');
        let count = if one_line { 1 } else { end.map_or(1, |end| end + 1) };
        found.push(Function { name, line: index + 1, lines: count });
    }
    found
}

/// The name behind `fn`, whatever stands before it.
fn function_name(line: &str) -> Option<String> {
    let before = ["pub", "const", "async", "unsafe", "extern"];
    let mut words = line.split_whitespace();
    let word = words.find(|word| !before.iter().any(|before| word.starts_with(before)) && !word.starts_with('"'))?;
    let name = (word == "fn").then(|| words.next()).flatten()?;
    Some(name.split(['(', '<']).next().unwrap_or_default().to_owned())
}

/// The text up to the test module at its end.
pub fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default()
}

/// How often `unsafe` stands in a file but for its tests: blocks, functions, implementations, and tokens in macros.
pub fn unsafe_count(source: &Source) -> usize {
    let (mut count, mut walk) = (0, vec![source.tree.items.iter().map(ToTokens::to_token_stream).collect::<TokenStream>()]);
    while let Some(tokens) = walk.pop() {
        for token in tokens {
            match token {
                TokenTree::Ident(word) if word == "unsafe" => count += 1,
                TokenTree::Group(group) => walk.push(group.stream()),
                _ => {}
            }
        }
    }
    count
}
