//! ARCHITECTURE.md names every crate and module that there is, none that there is not, and every dependency.
//!
//! A crate has a section, whose heading begins with its name (`## tine-os: ...`, `### crates/tine-os`); the section
//! names its modules by their path below `src` (`life/bind.rs`). A dependency is a word in bold or the first cell of a
//! table's row.

use super::{Finding, Tree};

const DOCUMENT: &str = "ARCHITECTURE.md";

pub fn modules(tree: &Tree) -> Vec<Finding> {
    let text = tree.document(DOCUMENT);
    let crates = crates(tree);
    let sections: Vec<Section> = crates.iter().map(|one| Section::find(text, &one.names())).collect();
    let mut findings = Vec::new();

    for (one, section) in crates.iter().zip(&sections) {
        if section.lines.is_empty() {
            let what =
                format!("says nothing of the crate, add a section headed `{}` to {DOCUMENT}", one.package);
            findings.push(Finding::new(&one.manifest, 0, &what));
            continue;
        }
        for module in &one.modules {
            // The folder of a mod.rs is named with any of its files.
            let folder = module.strip_suffix("mod.rs").filter(|folder| !folder.is_empty());
            let names = |path: &str| path == module || folder.is_some_and(|folder| path.starts_with(folder));
            let named = section.lines.iter().any(|(_, line)| paths(line).any(names));
            if !named {
                let path = format!("{}/src/{module}", one.folder);
                let what = format!("is not in {DOCUMENT}, name `{module}` in the section of {}", one.package);
                findings.push(Finding::new(&path, 0, &what));
            }
        }
    }

    for (number, line) in text.lines().enumerate() {
        let within = sections.iter().position(|section| section.lines.iter().any(|(at, _)| *at == number));
        let folder = within.map(|at| crates[at].folder.as_str());
        for path in paths(line).filter(|path| !exists(tree, folder, path)) {
            let what = format!("names {path}, which does not exist, remove it or mend its path");
            findings.push(Finding::new(DOCUMENT, number, &what));
        }
    }
    findings
}

pub fn dependencies(tree: &Tree) -> Vec<Finding> {
    let text = tree.document(DOCUMENT);
    let ours: Vec<String> = crates(tree).into_iter().map(|one| one.package).collect();
    let mut findings = Vec::new();
    for (path, manifest) in &tree.manifests {
        if package(manifest).is_none() || !is_published(manifest) {
            continue;
        }
        for (number, name) in direct(manifest) {
            if !ours.contains(&name) && !has_a_sentence(text, &name) {
                let what =
                    format!("depends on {name}, say in {DOCUMENT} what it spares us (`**{name}**` or a row)");
                findings.push(Finding::new(path, number, &what));
            }
        }
    }
    findings
}

/// A crate of the workspace, as the tree shows it.
struct Crate {
    package: String,
    folder: String,
    manifest: String,
    /// All files below `src`, by their path from there; without the root of the crate, which its section speaks of.
    modules: Vec<String>,
}

impl Crate {
    /// A section may be headed by the package or by its folder.
    fn names(&self) -> [&str; 2] {
        [&self.package, self.folder.rsplit('/').next().unwrap_or(&self.folder)]
    }
}

fn crates(tree: &Tree) -> Vec<Crate> {
    tree.manifests
        .iter()
        .filter_map(|(path, manifest)| {
            let package = package(manifest)?;
            let folder = path.strip_suffix("/Cargo.toml")?.to_string();
            let below = format!("{folder}/src/");
            let modules = tree
                .rust
                .iter()
                .filter_map(|file| file.path.strip_prefix(&below))
                .filter(|module| !matches!(*module, "lib.rs" | "main.rs"))
                .map(str::to_string)
                .collect();
            Some(Crate { package, folder, manifest: path.clone(), modules })
        })
        .collect()
}

/// The lines of a document under one heading, down to the next heading that is not below it.
struct Section<'a> {
    lines: Vec<(usize, &'a str)>,
}

impl<'a> Section<'a> {
    fn find(text: &'a str, names: &[&str]) -> Self {
        let mut lines = Vec::new();
        let mut inside = None;
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            fenced ^= line.trim_start().starts_with("```");
            let depth = line.chars().take_while(|c| *c == '#').count();
            if depth > 0 && !fenced {
                if names.contains(&first_word(&line[depth..])) {
                    inside = Some(depth);
                } else if inside.is_some_and(|outer| depth <= outer) {
                    inside = None;
                }
            }
            if inside.is_some() {
                lines.push((number, line));
            }
        }
        Section { lines }
    }
}

/// The first word of a heading, without backticks and the folder that crates lie in.
fn first_word(heading: &str) -> &str {
    let name = heading.trim_start().trim_start_matches(['`', '*']);
    let name = name.strip_prefix("crates/").unwrap_or(name);
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '-' && c != '_').unwrap_or(name.len());
    &name[..end]
}

/// All that reads like the path of a Rust file in a line.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && !matches!(c, '/' | '_' | '-' | '.'))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| word.ends_with(".rs") && *word != ".rs")
}

/// Is there such a file: of this crate, of any crate if none is spoken of, or from the root?
fn exists(tree: &Tree, folder: Option<&str>, path: &str) -> bool {
    tree.rust.iter().any(|file| {
        let Some(before) = file.path.strip_suffix(path) else { return false };
        match folder {
            _ if before.is_empty() => true,
            Some(folder) => before == format!("{folder}/") || before == format!("{folder}/src/"),
            None => before.ends_with('/'),
        }
    })
}

fn package(manifest: &str) -> Option<String> {
    let (_, rest) = manifest.split_once("[package]")?;
    let line = rest.lines().find(|line| key(line) == Some("name"))?;
    line.split('"').nth(1).map(str::to_string)
}

fn is_published(manifest: &str) -> bool {
    !manifest.lines().any(|line| line.split_whitespace().collect::<String>() == "publish=false")
}

/// What a crate depends on when it is built by others, with the line that says so.
fn direct(manifest: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut listing = false;
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            let table = |header: &str| matches!(header, "dependencies" | "build-dependencies");
            listing = table(header.rsplit('.').next().unwrap_or(header));
            if let Some((table_name, name)) = header.rsplit_once('.')
                && table(table_name.rsplit('.').next().unwrap_or(table_name))
            {
                found.push((number, name.to_string()));
            }
        } else if listing && let Some(name) = key(line) {
            found.push((number, name.to_string()));
        }
    }
    found
}

/// The key of a line `key = value` or `key.workspace = true`.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim().split('.').next()?.trim_matches('"');
    (!key.is_empty() && !key.starts_with('#')).then_some(key)
}

fn has_a_sentence(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let cell = line.trim().strip_prefix('|').and_then(|row| row.split('|').next());
        line.contains(&format!("**{name}**"))
            || line.contains(&format!("**`{name}`**"))
            || cell.is_some_and(|cell| cell.trim().trim_matches(['`', '*']) == name)
    })
}

#[cfg(test)]
mod tests {
    use super::{dependencies, direct, first_word, modules, paths};
    use crate::tidy::Tree;

    const MANIFEST: &str = "[package]\nname = \"tine-os\"\n\n[dependencies]\nlibc.workspace = true\n";

    fn found(architecture: &str) -> Vec<String> {
        let tree = Tree::of(&[
            ("ARCHITECTURE.md", architecture),
            ("crates/tine-os/Cargo.toml", MANIFEST),
            ("crates/tine-os/src/lib.rs", ""),
            ("crates/tine-os/src/fork.rs", ""),
            ("crates/tine-os/src/step/mod.rs", ""),
            ("crates/tine-os/src/step/uid.rs", ""),
            ("crates/tine-os/tests/fork.rs", ""),
        ]);
        modules(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_full_section_passes() {
        assert!(
            found("# A\n## `crates/tine-os`: calls\n| `fork.rs` | forks |\n### Steps\n- step/uid.rs.\n")
                .is_empty()
        );
        assert!(
            found("## tine-os\n`fork.rs` `step/uid.rs` `tests/fork.rs` `crates/tine-os/src/lib.rs`\n")
                .is_empty()
        );
    }

    #[test]
    fn a_module_not_named_is_found() {
        let found = found("## tine-os\n`fork.rs`\n");
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("crates/tine-os/src/step/mod.rs:1: "), "{}", found[0]);
        assert!(found[1].starts_with("crates/tine-os/src/step/uid.rs:1: "), "{}", found[1]);
    }

    #[test]
    fn a_module_named_elsewhere_is_not_named() {
        assert_eq!(found("## tine-os\n`fork.rs`\n## Other\n`uid.rs`\n").len(), 2);
        assert_eq!(
            found("## tine\n`fork.rs` `step/uid.rs`\n").len(),
            1,
            "of another crate; this one has no section"
        );
    }

    #[test]
    fn what_does_not_exist_is_found_with_its_line() {
        let found = found("## tine-os\n`fork.rs` step/uid.rs\n\n`vfork.rs` too\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("ARCHITECTURE.md:4: names vfork.rs"), "{}", found[0]);
    }

    #[test]
    fn a_comment_in_a_code_block_is_no_heading() {
        assert!(found("## tine-os\n```\n# not a heading\nfork.rs\n```\nstep/uid.rs\n").is_empty());
    }

    #[test]
    fn headings_and_paths_are_read_as_people_write_them() {
        assert_eq!(first_word(" `tine-os` - every call"), "tine-os");
        assert_eq!(first_word(" tine: the library"), "tine");
        assert_eq!(first_word(" crates/tine-cli/"), "tine-cli");
        assert_eq!(
            paths("see `mode/each.rs`, (bind.rs) and fork.rs.").collect::<Vec<_>>(),
            ["mode/each.rs", "bind.rs", "fork.rs"]
        );
    }

    fn unexplained(manifest: &str, architecture: &str) -> usize {
        dependencies(&Tree::of(&[("ARCHITECTURE.md", architecture), ("crates/tine-os/Cargo.toml", manifest)]))
            .len()
    }

    #[test]
    fn each_dependency_has_a_sentence() {
        assert_eq!(unexplained(MANIFEST, "libc is used"), 1);
        assert_eq!(unexplained(MANIFEST, "**libc** spares us the numbers"), 0);
        assert_eq!(unexplained(MANIFEST, "| `libc` | the numbers |"), 0);
        assert_eq!(unexplained(&MANIFEST.replace("[dep", "publish = false\n[dep"), ""), 0);
    }

    #[test]
    fn all_forms_of_a_dependency_are_read() {
        let manifest = "[dependencies]\na = \"1\"\n# b = \"1\"\nc.workspace = true\n[dependencies.d]\nversion = \"1\"\n\
                        [target.'cfg(unix)'.dependencies]\ne = { version = \"1\" }\n[dev-dependencies]\nf = \"1\"\n\
                        [features]\ng = []\n";
        let names: Vec<String> = direct(manifest).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a", "c", "d", "e"]);
    }
}
