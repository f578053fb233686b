//! `unsafe` stays in tine-os, and each use of it says why it is sound.

use super::source::Source;
use super::{Finding, Tree};

/// The one crate that may use `unsafe`.
const HOME: &str = "crates/tine-os/";

/// A reason shorter than this names no condition and nobody who keeps it.
const REASON_CHARS_MIN: usize = 40;

/// What people write instead of a reason; it does not count towards its length.
const HOLLOW: &[&str] = &[
    "valid arguments",
    "the arguments are valid",
    "all arguments are valid",
    "arguments are valid",
    "valid pointers",
    "pointers are valid",
    "pointer is valid",
    "this call is safe",
    "the call is safe",
    "this is safe",
    "is always safe",
    "always safe",
    "safe to call",
    "trivially safe",
    "obviously safe",
    "this is sound",
    "this is fine",
    "trust me",
    "by construction",
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.rust {
        if file.path.starts_with(HOME) {
            findings.extend(reasons(&file.path, &file.source));
        } else {
            findings.extend(file.source.words("unsafe").map(|(line, _)| {
                Finding::new(
                    &file.path,
                    line,
                    "`unsafe` outside tine-os, move the call there behind a safe function",
                )
            }));
            if is_crate_root(&file.path) && !forbids(&file.source) {
                findings.push(Finding::new(
                    &file.path,
                    0,
                    "does not forbid unsafe, add `#![forbid(unsafe_code)]`",
                ));
            }
        }
    }
    findings
}

/// Is this the first file of a crate that the workspace builds from `src`?
fn is_crate_root(path: &str) -> bool {
    let Some((_, inside)) = path.split_once("src/") else { return false };
    matches!(inside, "lib.rs" | "main.rs") || (inside.starts_with("bin/") && inside.matches('/').count() == 1)
}

fn forbids(source: &Source) -> bool {
    source.code.iter().any(|line| line.split_whitespace().collect::<String>() == "#![forbid(unsafe_code)]")
}

/// Each `unsafe` of a file that lacks its reason.
fn reasons(path: &str, source: &Source) -> Vec<Finding> {
    source
        .words("unsafe")
        .filter_map(|(line, at)| {
            let kind = Kind::of(&source.after(line, at + "unsafe".len()))?;
            if matches!(kind, Kind::Fn) && implements_a_trait(source, line) {
                return None; // what its caller keeps is in the documentation of the trait
            }
            let note = note_above(source, line);
            let marker = kind.markers().iter().find_map(|marker| note.split_once(marker));
            let what = match marker {
                None => {
                    format!("{} without its reason, write `{}` directly above it", kind.name(), kind.asks())
                }
                Some((_, reason)) if says_too_little(reason) => format!(
                    "{} whose note gives no reason, say what must hold and what makes it hold",
                    kind.name()
                ),
                Some(_) => return None,
            };
            Some(Finding::new(path, line, &what))
        })
        .collect()
}

/// What an `unsafe` introduces.
#[derive(Clone, Copy)]
enum Kind {
    Block,
    Impl,
    Fn,
    Trait,
    Extern,
    Attribute,
}

impl Kind {
    /// Tells by the code after the word; the type of a function pointer promises nothing and is none of these.
    fn of(after: &str) -> Option<Self> {
        let word = after.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        match (word, after.chars().next()) {
            (_, Some('(')) => Some(Kind::Attribute),
            ("impl", _) => Some(Kind::Impl),
            ("trait" | "auto", _) => Some(Kind::Trait),
            ("fn" | "extern", _) => match after.split_once("fn") {
                Some((before, _)) if before.contains('{') => Some(Kind::Extern),
                Some((_, name)) => (!name.trim_start().starts_with('(')).then_some(Kind::Fn),
                None => Some(Kind::Extern),
            },
            _ => Some(Kind::Block),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Block => "unsafe block",
            Kind::Impl => "unsafe impl",
            Kind::Fn => "unsafe fn",
            Kind::Trait => "unsafe trait",
            Kind::Extern => "unsafe extern block",
            Kind::Attribute => "unsafe attribute",
        }
    }

    /// How the note may begin: what callers must keep is documentation, the rest a comment.
    fn markers(self) -> &'static [&'static str] {
        match self {
            Kind::Fn | Kind::Trait => &["# Safety", "SAFETY:"],
            _ => &["SAFETY:"],
        }
    }

    fn asks(self) -> &'static str {
        match self {
            Kind::Fn | Kind::Trait => "/// # Safety",
            _ => "// SAFETY: ...",
        }
    }
}

/// Is the innermost thing around a line, as the indentation shows it, `impl SomeTrait for SomeType`?
fn implements_a_trait(source: &Source, line: usize) -> bool {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let inner = depth(&source.code[line]);
    let around = source.code[..line].iter().rev().find(|line| !line.trim().is_empty() && depth(line) < inner);
    around.is_some_and(|line| line.contains("impl") && line.contains(" for "))
}

/// The comment directly above the statement or item that a line belongs to, as one line of text.
fn note_above(source: &Source, line: usize) -> String {
    let mut above = line;
    while above > 0 && belongs_to_the_next(&source.code[above - 1], &source.comments[above - 1]) {
        above -= 1;
    }
    let mut note = Vec::new();
    while above > 0
        && source.code[above - 1].trim().is_empty()
        && !source.comments[above - 1].trim().is_empty()
    {
        above -= 1;
        note.push(source.comments[above].trim().trim_start_matches(['/', '*', '!']).trim().to_string());
    }
    note.reverse();
    note.join(" ")
}

/// Does a line of code go on in the next one? Attributes do, and so do statements that have not ended.
fn belongs_to_the_next(code: &str, comment: &str) -> bool {
    let code = code.trim();
    if code.is_empty() || !comment.is_empty() {
        return false;
    }
    (code.starts_with("#[") && code.ends_with(']')) || !code.ends_with([';', '{', '}', ',', ']'])
}

fn says_too_little(reason: &str) -> bool {
    let mut reason = reason.to_lowercase();
    for phrase in HOLLOW {
        reason = reason.replace(phrase, "");
    }
    reason.trim().chars().count() < REASON_CHARS_MIN
}

#[cfg(test)]
mod tests {
    use super::{check, is_crate_root};
    use crate::tidy::Tree;

    const GOOD: &str =
        "// SAFETY: `set` was filled by sigemptyset above and outlives the call; null is allowed.\n";

    /// What is found in a file of tine-os.
    fn found(text: &str) -> Vec<String> {
        found_in("crates/tine-os/src/signal.rs", text)
    }

    fn found_in(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)])).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unsafe_elsewhere_is_named_with_its_line() {
        let found = found_in("crates/tine/src/life/bind.rs", "fn f() {\n    unsafe { g() }\n}\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("crates/tine/src/life/bind.rs:2: "), "{}", found[0]);
        assert!(
            found_in("crates/tine/src/life/bind.rs", "// unsafe\nconst S: &str = \"unsafe {\";\n").is_empty()
        );
    }

    #[test]
    fn every_other_crate_forbids_it_at_its_root() {
        assert_eq!(found_in("crates/tine/src/lib.rs", "//! Docs\n").len(), 1);
        assert_eq!(found_in("xtask/src/main.rs", "// #![forbid(unsafe_code)]\n").len(), 1);
        assert!(found_in("crates/tine/src/lib.rs", "//! Docs\n#![forbid(unsafe_code)]\n").is_empty());
        assert!(found("pub mod fork;\n").is_empty());
        assert!(is_crate_root("testkit/src/bin/probe.rs"));
        assert!(!is_crate_root("crates/tine/src/life/lib/x.rs"));
        assert!(!is_crate_root("crates/tine-cli/tests/main.rs"));
    }

    #[test]
    fn a_block_with_a_reason_passes() {
        assert!(found(&format!("{GOOD}unsafe {{ g() }}\n")).is_empty());
        assert!(found(&format!("    {GOOD}    let x =\n        unsafe {{ g() }};\n")).is_empty());
        assert!(found(&format!("{GOOD}let x = match unsafe {{ g() }} {{\n")).is_empty());
        assert!(found(&format!("{GOOD}#[cfg(x)]\nunsafe impl Send for X {{}}\n")).is_empty());
        let two_lines =
            "// SAFETY: the descriptor\n// is ours alone, made by socket above.\nunsafe { g() }\n";
        assert!(found(two_lines).is_empty());
    }

    #[test]
    fn a_block_without_one_does_not() {
        assert_eq!(found("unsafe { g() }\n").len(), 1);
        assert_eq!(found("// calls g\nunsafe { g() }\n").len(), 1);
        assert_eq!(found(&format!("{GOOD}\nunsafe {{ g() }}\n")).len(), 1, "a blank line between");
        assert_eq!(
            found(&format!("{GOOD}let a = 1;\nunsafe {{ g() }}\n")).len(),
            1,
            "another statement between"
        );
        assert_eq!(
            found(&format!("{GOOD}unsafe {{ g() }}\nunsafe {{ h() }}\n")).len(),
            1,
            "one note for two"
        );
        assert_eq!(
            found(
                "let s = \"// SAFETY: it is only a text that says so, however long it may be\";\nunsafe {}"
            )
            .len(),
            1
        );
    }

    #[test]
    fn a_hollow_note_is_no_reason() {
        assert_eq!(found("// SAFETY: ok\nunsafe { g() }\n").len(), 1);
        assert_eq!(
            found(
                "// SAFETY: the arguments are valid, and this call is safe. Obviously safe!\nunsafe { g() }\n"
            )
            .len(),
            1
        );
    }

    #[test]
    fn an_unsafe_function_documents_what_its_caller_keeps() {
        let docs = "/// Closes.\n///\n/// # Safety\n///\n/// Nobody else may own `fd`, or use it after this returns.\n";
        assert!(found(&format!("{docs}pub unsafe fn close(fd: i32) {{\n")).is_empty());
        assert!(
            found(&format!("{docs}#[inline]\npub unsafe extern \"C\" fn close(fd: i32) {{\n")).is_empty()
        );
        assert_eq!(found("/// Closes.\npub unsafe fn close(fd: i32) {\n").len(), 1);
        assert_eq!(found("/// # Safety\n/// Be safe.\npub unsafe fn close(fd: i32) {\n").len(), 1);
    }

    #[test]
    fn the_function_of_a_trait_is_documented_there() {
        let within = |head: &str| found(&format!("{GOOD}{head} {{\n    unsafe fn alloc(&self) {{}}\n}}\n"));
        assert!(within("unsafe impl GlobalAlloc for Counting").is_empty());
        assert_eq!(within("impl Counting").len(), 1);
    }

    #[test]
    fn the_type_of_a_function_needs_no_note() {
        assert!(found("type Entry = unsafe extern \"C\" fn(i32) -> i32;\n").is_empty());
        assert!(found("let f: unsafe fn() = g;\n").is_empty());
    }

    #[test]
    fn other_kinds_need_one_each() {
        assert_eq!(found("unsafe impl Send for X {}\n").len(), 1);
        assert_eq!(found("unsafe extern \"C\" {\n    fn fork() -> i32;\n}\n").len(), 1);
        assert_eq!(found("#[unsafe(no_mangle)]\npub fn f() {}\n").len(), 1);
        assert_eq!(found("pub unsafe trait Plain {}\n").len(), 1);
    }
}
