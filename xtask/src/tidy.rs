//! `cargo xtask tidy`: facts about the tree that a document or a rule claims, each checked where it can be checked.
//!
//! A failure is one line, `file:line: what is wrong, what to do`. Each check is a function from a [`Tree`] to findings
//! and reads no file itself, so that its tests are small samples.

mod architecture;
mod habits;
mod promises;
mod source;
mod unsafety;

use std::fmt;
use std::path::Path;

use source::Source;

use crate::args::Args;
use crate::run::root;
use crate::{Result, man};

pub fn run(args: &[String]) -> Result {
    Args::new(args).end()?;
    let tree = Tree::read(root())?;
    let mut findings: Vec<String> = [
        unsafety::check(&tree),
        architecture::modules(&tree),
        architecture::dependencies(&tree),
        promises::check(&tree),
        habits::check(&tree),
    ]
    .concat()
    .iter()
    .map(ToString::to_string)
    .collect();
    match man::stale() {
        Ok(lines) => findings.extend(lines),
        Err(why) => findings.push(format!("man/tine.8:1: not compared, {why}")),
    }
    match man::lint() {
        Ok(lines) => findings.extend(lines),
        Err(why) if in_ci() => findings.push(format!("man/tine.8:1: not checked, {why}")),
        Err(why) => println!("skip   man pages were not checked: {why}"),
    }
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy   files={} promises={}", tree.rust.len(), promises::count(&tree));
            Ok(())
        }
        n => Err(format!("{n} {} not as they should be", if n == 1 { "thing is" } else { "things are" })),
    }
}

fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    /// `line` counts from 0, as indices do; people are shown it from 1.
    fn new(path: &str, line: usize, what: &str) -> Self {
        Finding { path: path.to_string(), line: line + 1, what: what.to_string() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// The text of the tree: every Rust file, every manifest, and the documents at its root. Paths are relative to it.
#[derive(Default)]
struct Tree {
    rust: Vec<RustFile>,
    manifests: Vec<(String, String)>,
    documents: Vec<(String, String)>,
}

struct RustFile {
    path: String,
    source: Source,
}

/// Folders that hold nothing of ours to read.
const NOT_OURS: &[&str] = &["target", ".git", "corpus", "artifacts"];

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let mut tree = Tree::default();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries = folder.read_dir().map_err(|why| format!("read {}: {why}", folder.display()))?;
            let mut entries: Vec<_> = entries.filter_map(|entry| entry.ok()).collect();
            entries.sort_by_key(|entry| entry.file_name());
            for entry in entries {
                let path = entry.path();
                let kind = entry.file_type().map_err(|why| format!("{}: {why}", path.display()))?;
                if kind.is_dir() && !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
                    folders.push(path);
                } else if kind.is_file() {
                    let name =
                        path.strip_prefix(root).expect("found below the root").to_string_lossy().into_owned();
                    if is_read(&name) {
                        let text =
                            std::fs::read_to_string(&path).map_err(|why| format!("read {name}: {why}"))?;
                        tree.add(name, text);
                    }
                }
            }
        }
        Ok(tree)
    }

    fn add(&mut self, path: String, text: String) {
        if path.ends_with(".rs") {
            self.rust.push(RustFile { path, source: Source::new(&text) });
        } else if path.ends_with("Cargo.toml") {
            self.manifests.push((path, text));
        } else {
            self.documents.push((path, text));
        }
    }

    /// A document at the root; empty if there is none.
    fn document(&self, name: &str) -> &str {
        self.documents.iter().find(|(path, _)| path == name).map_or("", |(_, text)| text)
    }

    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Tree::default();
        for (path, text) in files {
            tree.add(path.to_string(), text.to_string());
        }
        tree
    }
}

fn is_read(path: &str) -> bool {
    path.ends_with(".rs") || path.ends_with("Cargo.toml") || (path.ends_with(".md") && !path.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::{Finding, Tree, is_read};
    use crate::run::root;

    #[test]
    fn a_finding_is_one_line_that_editors_jump_to() {
        assert_eq!(Finding::new("a/b.rs", 0, "is wrong, mend it").to_string(), "a/b.rs:1: is wrong, mend it");
    }

    #[test]
    fn the_tree_holds_this_very_file_and_nothing_that_was_built() {
        let tree = Tree::read(root()).expect("the tree can be read");
        assert!(tree.rust.iter().any(|file| file.path == "xtask/src/tidy.rs"));
        assert!(tree.manifests.iter().any(|(path, _)| path == "xtask/Cargo.toml"));
        assert!(!tree.rust.iter().any(|file| file.path.starts_with("target/")));
        assert!(!is_read("docs/README.md"));
    }
}
