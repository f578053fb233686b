//! Each promise of SPECIFICATION.md names what checks it, and what it names exists.
//!
//! A promise is a list item that begins `- **P12**` or a row that begins `| P12`. It names tests or benches as
//! `path/from/the/root.rs::function` or chores as `cargo xtask VERB`, in backticks.

use super::{Finding, Tree};
use crate::VERBS;

const DOCUMENT: &str = "SPECIFICATION.md";

pub fn check(tree: &Tree) -> Vec<Finding> {
    let text = tree.document(DOCUMENT);
    let promises = promises(text);
    let mut findings = Vec::new();
    if promises.is_empty() {
        findings.push(Finding::new(
            DOCUMENT,
            0,
            "promises nothing, begin each promise with `- **P1**` or `| P1`",
        ));
    }
    for (number, line) in text.lines().enumerate() {
        for witness in witnesses(line) {
            if let Some(what) = missing(tree, &witness) {
                findings.push(Finding::new(DOCUMENT, number, &what));
            }
        }
    }
    for (at, promise) in promises.iter().enumerate() {
        if promise.lines.iter().all(|line| witnesses(line).is_empty()) {
            let what = format!(
                "{} names nothing that checks it, name a test (`file.rs::name`) or a verb",
                promise.id
            );
            findings.push(Finding::new(DOCUMENT, promise.number, &what));
        }
        if let Some(first) = promises[..at].iter().find(|earlier| earlier.id == promise.id) {
            let what = format!(
                "{} is promised in line {} too, give one another number",
                promise.id,
                first.number + 1
            );
            findings.push(Finding::new(DOCUMENT, promise.number, &what));
        }
    }
    findings
}

pub fn count(tree: &Tree) -> usize {
    promises(tree.document(DOCUMENT)).len()
}

struct Promise<'a> {
    id: &'a str,
    number: usize,
    /// An item goes on until a blank line, the next item or a heading; a row is one line.
    lines: Vec<&'a str>,
}

fn promises(text: &str) -> Vec<Promise<'_>> {
    let mut promises: Vec<Promise> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        if let Some((id, item)) = begins(line) {
            promises.push(Promise { id, number, lines: vec![line] });
            open = item;
        } else if line.trim().is_empty() || line.starts_with(['-', '#', '|']) {
            open = false;
        } else if open && let Some(promise) = promises.last_mut() {
            promise.lines.push(line);
        }
    }
    promises
}

/// The number of the promise that begins on a line, and whether it is an item (or else a row).
fn begins(line: &str) -> Option<(&str, bool)> {
    let (rest, item) = match line.strip_prefix("- **") {
        Some(rest) => (rest, true),
        None => (line.strip_prefix("| ")?.trim_start_matches(['*', '`']), false),
    };
    let digits = rest.strip_prefix('P')?.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| (&rest[..digits + 1], item))
}

/// What a line says checks it.
#[derive(Debug, PartialEq)]
enum Witness<'a> {
    Function { path: &'a str, name: &'a str },
    Verb(&'a str),
}

fn witnesses(line: &str) -> Vec<Witness<'_>> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|text| {
            if let Some(rest) = text.strip_prefix("cargo xtask ") {
                return rest.split_whitespace().next().map(Witness::Verb);
            }
            let (path, name) = text.split_once("::").filter(|(path, _)| path.ends_with(".rs"))?;
            Some(Witness::Function { path, name: name.rsplit("::").next().unwrap_or(name) })
        })
        .collect()
}

/// What is wrong with a witness, if anything.
fn missing(tree: &Tree, witness: &Witness) -> Option<String> {
    match *witness {
        Witness::Verb(name) => {
            let known = VERBS.iter().any(|verb| verb.name == name);
            (!known).then(|| format!("`cargo xtask {name}` is no verb, mend it or write the verb"))
        }
        Witness::Function { path, name } => match tree.rust.iter().find(|file| file.path == path) {
            None => Some(format!("{path} does not exist, mend the path or write the test")),
            Some(file) if !file.source.has_function(name) => {
                Some(format!("{path} has no function {name}, mend the name or write the test"))
            }
            Some(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Witness, begins, check, count, witnesses};
    use crate::tidy::Tree;

    fn tree(specification: &str) -> Tree {
        Tree::of(&[
            ("SPECIFICATION.md", specification),
            ("crates/tine-cli/tests/serve.rs", "#[test]\nfn a_client_is_served() {}\n// fn gone() {}\n"),
        ])
    }

    fn found(specification: &str) -> Vec<String> {
        check(&tree(specification)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_promise_with_its_test_passes() {
        assert!(
            found("- **P1** Clients are served.\n  `crates/tine-cli/tests/serve.rs::a_client_is_served`\n")
                .is_empty()
        );
        assert!(found("| P1 | served | `crates/tine-cli/tests/serve.rs::a_client_is_served` |\n").is_empty());
        assert!(found("- **P1** Many are: `cargo xtask churn 1000000`.\n").is_empty());
    }

    #[test]
    fn a_promise_with_nothing_is_found() {
        let found = found("# S\n- **P1** Clients are served.\n\n`cargo xtask churn` is elsewhere\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("SPECIFICATION.md:2: P1 names nothing"), "{}", found[0]);
    }

    #[test]
    fn a_test_that_does_not_exist_is_found() {
        for line in [
            "- **P1** `crates/tine-cli/tests/serve.rs::gone`",
            "- **P1** `crates/tine-cli/tests/serve.rs::a_client_is`",
            "- **P1** `serve.rs::a_client_is_served`",
            "- **P1** `cargo xtask frobnicate`",
        ] {
            assert_eq!(found(line).len(), 1, "{line}");
        }
    }

    #[test]
    fn a_number_is_given_once() {
        let found = found("- **P1** `cargo xtask churn`\n- **P1** `cargo xtask faults`\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("SPECIFICATION.md:2: "), "{}", found[0]);
    }

    #[test]
    fn a_document_without_promises_is_found() {
        assert_eq!(found("# Specification\n- **Performance** matters\n").len(), 1);
        assert_eq!(count(&tree("- **P1** a\n| P2 | b |\n| Promise | c |\n")), 2);
    }

    #[test]
    fn promises_and_witnesses_are_read_as_written() {
        assert_eq!(begins("- **P12** x"), Some(("P12", true)));
        assert_eq!(begins("| P3 | x |"), Some(("P3", false)));
        assert_eq!(begins("| Promise | x |"), None);
        assert_eq!(
            witnesses("`a/b.rs::tests::c` and `other` and `cargo xtask churn 5`"),
            [Witness::Function { path: "a/b.rs", name: "c" }, Witness::Verb("churn")]
        );
    }
}
