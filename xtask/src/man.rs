//! `cargo xtask man`: what is rendered from the program's one definition of its flags, written into the tree.
//!
//! The pages and completions are committed, so that packagers need not run anything; `--check` (and tidy) compare.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::args::Args;
use crate::run::{build, output, root};
use crate::{Result, run};

/// Each rendered file, and the arguments that make `tine` print it.
const RENDERED: &[(&str, &[&str])] = &[
    ("man/tine.8", &["man"]),
    ("completions/tine.bash", &["completions", "bash"]),
    ("completions/_tine", &["completions", "zsh"]),
    ("completions/tine.fish", &["completions", "fish"]),
];

pub fn run(args: &[String]) -> Result {
    let mut args = Args::new(args);
    let check = args.switch("--check");
    args.end()?;
    if check {
        let stale = stale()?;
        if stale.is_empty() { Ok(()) } else { Err(stale.join("\n")) }
    } else {
        write()
    }
}

fn write() -> Result {
    for (path, text) in render()? {
        let path = root().join(path);
        let folder = path.parent().expect("each lies in a folder of the tree");
        fs::create_dir_all(folder).map_err(|why| format!("create {}: {why}", folder.display()))?;
        fs::write(&path, text).map_err(|why| format!("write {}: {why}", path.display()))?;
    }
    Ok(())
}

/// One line for each committed file that is not what the program renders now.
pub fn stale() -> Result<Vec<String>> {
    Ok(render()?
        .into_iter()
        .filter_map(|(path, text)| {
            let committed = fs::read(root().join(path)).unwrap_or_default();
            difference(&committed, &text).map(|line| {
                format!("{path}:{line}: differs from what the program renders, run `cargo xtask man`")
            })
        })
        .collect())
}

fn render() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let tine = build(&["-p", "tine-cli"])?.join("tine");
    RENDERED
        .iter()
        .map(|(path, args)| {
            let text = output(Command::new(&tine).args(*args).env("COLUMNS", "80").env_remove("NO_COLOR"))?;
            if text.is_empty() {
                return Err(format!("tine {}: printed nothing", args.join(" ")));
            }
            Ok((*path, text))
        })
        .collect()
}

/// The first line in which two texts differ, counted from one.
fn difference(committed: &[u8], rendered: &[u8]) -> Option<usize> {
    if committed == rendered {
        return None;
    }
    let same = committed.iter().zip(rendered).take_while(|(a, b)| a == b).count();
    Some(1 + committed[..same].iter().filter(|byte| **byte == b'\n').count())
}

/// What mandoc finds in the pages under man/, a line each; an error if there is no mandoc.
pub fn lint() -> Result<Vec<String>> {
    if !run::on_path("mandoc") {
        return Err("mandoc is not installed (apt-get install mandoc)".to_string());
    }
    let folder = root().join("man");
    let mut pages: Vec<_> = fs::read_dir(&folder)
        .map_err(|why| format!("read {}: {why}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| is_page(path))
        .collect();
    pages.sort();
    let mut findings = Vec::new();
    for page in pages {
        let output = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(&page)
            .output()
            .map_err(|why| format!("mandoc: {why}"))?;
        let said = [output.stdout, output.stderr].concat();
        let before = findings.len();
        findings.extend(String::from_utf8_lossy(&said).lines().filter_map(|line| finding(&page, line)));
        if !output.status.success() && findings.len() == before {
            let name = page.strip_prefix(root()).unwrap_or(&page);
            findings.push(format!(
                "{}:1: mandoc -T lint fails ({}), run it by hand",
                name.display(),
                output.status
            ));
        }
    }
    Ok(findings)
}

/// `mandoc: PAGE:LINE:COLUMN: WARNING: text`, or the same without a place, as a finding of ours.
fn finding(page: &Path, line: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!("{}:", page.display()))?;
    let (at, what) = rest.split_once(' ')?;
    let at = at.split(':').next().filter(|at| !at.is_empty()).unwrap_or("1");
    let name = page.strip_prefix(root()).unwrap_or(page);
    Some(format!("{}:{at}: mandoc says {}, mend the page or its renderer", name.display(), what.trim()))
}

fn is_page(path: &Path) -> bool {
    path.extension()
        .is_some_and(|section| section.len() == 1 && section.as_encoded_bytes()[0].is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{difference, finding, is_page};
    use crate::run::root;
    use std::path::Path;

    #[test]
    fn the_first_line_that_differs_is_named() {
        assert_eq!(difference(b"a\nb\n", b"a\nb\n"), None);
        assert_eq!(difference(b"a\nb\n", b"a\nc\n"), Some(2));
        assert_eq!(difference(b"", b"a\n"), Some(1));
        assert_eq!(difference(b"a\n", b"a\nb\n"), Some(2));
    }

    #[test]
    fn what_mandoc_says_becomes_one_line_with_file_and_line() {
        let page = root().join("man/tine.8");
        let said = format!("mandoc: {}:12:3: WARNING: missing section title", page.display());
        assert_eq!(
            finding(&page, &said).unwrap(),
            "man/tine.8:12: mandoc says WARNING: missing section title, mend the page or its renderer"
        );
        let said = format!("mandoc: {}: WARNING: missing date, using \"\"", page.display());
        assert!(
            finding(&page, &said).unwrap().starts_with("man/tine.8:1: mandoc says WARNING: missing date")
        );
        assert_eq!(finding(&page, "mandoc: see above the output for WARNING messages."), None);
    }

    #[test]
    fn a_page_has_a_section() {
        assert!(is_page(Path::new("man/tine.8")));
        assert!(!is_page(Path::new("man/tine.8.in")));
        assert!(!is_page(Path::new("man/README.md")));
    }
}
