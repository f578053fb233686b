//! What is not finished, and tests that wait for time instead of an event; and a change log that takes the next change.

use super::source::stands_alone;
use super::{Finding, Tree};

/// What no code says, and what to do instead.
const IN_CODE: &[(&str, &str)] = &[
    ("todo!", "write it, or leave it out"),
    ("unimplemented!", "write it, or leave it out"),
    ("#[ignore", "mend the test or remove it; what is long is a verb of xtask"),
];

/// What no comment says.
const IN_COMMENTS: &[&str] = &["FIXME", "TODO", "XXX"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.rust {
        let mut find = |line: usize, what: String| findings.push(Finding::new(&file.path, line, &what));
        for (number, (code, comment)) in file.source.code.iter().zip(&file.source.comments).enumerate() {
            for (word, instead) in IN_CODE {
                if has(code, word) {
                    find(number, format!("`{word}`, {instead}"));
                }
            }
            for word in IN_COMMENTS {
                if has(comment, word) {
                    find(number, format!("{word}, do it now or say how things are"));
                }
            }
            if is_test(&file.path) && has(code, "thread::sleep") {
                find(number, "a test that sleeps, wait for an event or poll with a deadline".to_string());
            }
        }
    }
    let log = tree.document("CHANGELOG.md");
    if !log.lines().any(|line| line.starts_with("## ") && line.contains("Unreleased")) {
        findings.push(Finding::new("CHANGELOG.md", 0, "has no section `## Unreleased`, add it at the top"));
    }
    findings
}

fn has(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| stands_alone(line, at, word))
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|folder| folder == "tests")
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::tidy::Tree;

    fn found(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text), ("CHANGELOG.md", "# Changes\n\n## Unreleased\n")])).len()
    }

    #[test]
    fn unfinished_code_is_found() {
        assert_eq!(found("crates/tine/src/lib.rs", "fn f() { todo!() }\nfn g() { unimplemented!() }\n"), 2);
        assert_eq!(found("crates/tine/tests/x.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n"), 1);
        assert_eq!(found("crates/tine/src/lib.rs", "// FIXME: later\n/* TODO */\n"), 2);
    }

    #[test]
    fn speaking_of_it_is_not() {
        assert_eq!(found("xtask/src/x.rs", "const WORDS: &str = \"todo! FIXME #[ignore\";\n"), 0);
        assert_eq!(found("xtask/src/x.rs", "// a todo! in a comment, or #[ignore\nfn not_todo() {}\n"), 0);
    }

    #[test]
    fn only_tests_must_not_sleep() {
        assert_eq!(found("crates/tine/tests/x.rs", "std::thread::sleep(d);\n"), 1);
        assert_eq!(found("testkit/src/poll.rs", "std::thread::sleep(d);\n"), 0);
    }

    #[test]
    fn a_log_takes_the_next_change() {
        let without = Tree::of(&[("CHANGELOG.md", "# Changes\n\n## 0.1.0\nUnreleased no more\n")]);
        assert_eq!(check(&without).len(), 1);
    }
}
