//! A Rust file seen twice: its code with every comment and literal blanked out, and its comments alone.
//!
//! Not a parser. It knows just enough of the language to tell code from text: nested comments, raw strings, and
//! lifetimes that look like the beginning of a character.

/// A file, split. All three parts have the same number of lines.
pub struct Source {
    /// The code; comments, and what stands between quotes, are blanks.
    pub code: Vec<String>,
    /// The comments, with their slashes; everything else is left out.
    pub comments: Vec<String>,
}

impl Source {
    pub fn new(text: &str) -> Self {
        let mut reader =
            Reader { chars: text.chars().collect(), at: 0, code: String::new(), comments: String::new() };
        reader.read();
        let lines = |text: &str| text.split('\n').map(str::to_string).collect();
        Source { code: lines(&reader.code), comments: lines(&reader.comments) }
    }

    /// Where a word of the language stands: line (from 0) and byte in the line.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
        self.code.iter().enumerate().flat_map(move |(number, line)| {
            line.match_indices(word)
                .filter(|(at, _)| stands_alone(line, *at, word))
                .map(move |(at, _)| (number, at))
        })
    }

    /// The code that follows a place, on its line and the next ones, as one line with single blanks.
    pub fn after(&self, line: usize, at: usize) -> String {
        let mut words: Vec<&str> = self.code[line][at..].split_whitespace().collect();
        for line in self.code.iter().skip(line + 1).take(3) {
            words.extend(line.split_whitespace());
        }
        words.join(" ")
    }

    /// Is there a function of this name?
    pub fn has_function(&self, name: &str) -> bool {
        self.words("fn").any(|(line, at)| {
            let after = self.after(line, at + "fn".len());
            after.strip_prefix(name).is_some_and(|rest| rest.starts_with(['(', '<', ' ']))
        })
    }
}

/// Is what stands at this byte of the line a word of its own, not a part of a longer one?
pub fn stands_alone(line: &str, at: usize, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part) && !line[..at].ends_with("r#")
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    code: String,
    comments: String,
}

impl Reader {
    fn read(&mut self) {
        while let Some(c) = self.peek(0) {
            match c {
                '/' if self.peek(1) == Some('/') => self.line_comment(),
                '/' if self.peek(1) == Some('*') => self.block_comment(),
                '"' => self.string(),
                'r' | 'b' | 'c' if !self.inside_a_word() => self.perhaps_a_raw_string(),
                '\'' => self.character_or_lifetime(),
                _ => self.code(1),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn inside_a_word(&self) -> bool {
        self.at > 0 && (self.chars[self.at - 1].is_alphanumeric() || self.chars[self.at - 1] == '_')
    }

    /// The next `count` characters are code.
    fn code(&mut self, count: usize) {
        for c in &self.chars[self.at..self.at + count] {
            self.code.push(*c);
            if *c == '\n' {
                self.comments.push('\n');
            }
        }
        self.at += count;
    }

    /// The next `count` characters, as far as there are as many, are no code; perhaps they are a comment.
    fn text(&mut self, count: usize, comment: bool) {
        let end = (self.at + count).min(self.chars.len());
        for c in &self.chars[self.at..end] {
            self.code.push(if *c == '\n' { '\n' } else { ' ' });
            if comment || *c == '\n' {
                self.comments.push(*c);
            }
        }
        self.at = end;
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.text(1, true);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('*')) => {
                    depth += 1;
                    self.text(2, true);
                }
                ('*', Some('/')) => {
                    depth -= 1;
                    self.text(2, true);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.text(1, true),
            }
        }
    }

    fn string(&mut self) {
        self.code(1);
        while let Some(c) = self.peek(0) {
            match c {
                '\\' => self.text(2, false),
                '"' => return self.code(1),
                _ => self.text(1, false),
            }
        }
    }

    /// `r"..."`, `br#"..."#` and the like; a raw name (`r#type`), or any other word, is code.
    fn perhaps_a_raw_string(&mut self) {
        let prefix =
            self.chars[self.at..].iter().take(2).take_while(|c| matches!(c, 'r' | 'b' | 'c')).count();
        let raw = self.chars[self.at..self.at + prefix].contains(&'r');
        let hashes = self.chars[self.at + prefix..].iter().take_while(|c| **c == '#').count();
        let quote = self.peek(prefix + hashes) == Some('"');
        if !raw || !quote {
            return self.code(1);
        }
        self.code(prefix + hashes + 1);
        while self.at < self.chars.len() {
            let closes = self.peek(0) == Some('"')
                && self.chars[self.at + 1..].iter().take_while(|c| **c == '#').take(hashes).count() == hashes;
            if closes {
                return self.code(1 + hashes);
            }
            self.text(1, false);
        }
    }

    fn character_or_lifetime(&mut self) {
        let escaped = self.peek(1) == Some('\\');
        if !escaped && self.peek(2) != Some('\'') {
            return self.code(1); // a lifetime or a label
        }
        self.code(1);
        self.text(if escaped { 2 } else { 1 }, false);
        while self.peek(0).is_some_and(|c| c != '\'' && c != '\n') {
            self.text(1, false); // the rest of '\u{...}' or '\x..'
        }
        if self.peek(0) == Some('\'') {
            self.code(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    fn words(text: &str) -> usize {
        Source::new(text).words("unsafe").count()
    }

    #[test]
    fn a_word_in_code_is_found_with_its_line() {
        let source = Source::new("fn f() {\n    unsafe { g() }\n}\n");
        assert_eq!(source.words("unsafe").collect::<Vec<_>>(), [(1, 4)]);
        assert_eq!(source.after(1, 4), "unsafe { g() } }");
    }

    #[test]
    fn a_word_in_text_is_not() {
        assert_eq!(words("// unsafe\n"), 0);
        assert_eq!(words("/// unsafe { }\n//! unsafe\n"), 0);
        assert_eq!(words("/* unsafe /* unsafe */ unsafe */ fn f() {}"), 0);
        assert_eq!(words(r#"let s = "unsafe";"#), 0);
        assert_eq!(words(r#"let s = "\" unsafe";"#), 0);
        assert_eq!(words("let s = \"one\n unsafe\n\";"), 0);
        assert_eq!(words(r###"let s = r#"" unsafe "#;"###), 0);
        assert_eq!(words(r###"let s = br##"unsafe "# unsafe"##;"###), 0);
        assert_eq!(words(r#"let s = b"unsafe"; let t = c"unsafe";"#), 0);
    }

    #[test]
    fn a_part_of_a_longer_word_is_not() {
        assert_eq!(words("#![forbid(unsafe_code)]"), 0);
        assert_eq!(words("let not_unsafe = r#unsafe;"), 0);
    }

    #[test]
    fn code_after_text_is_code_again() {
        assert_eq!(words(r#"let s = "\\"; unsafe {}"#), 1);
        assert_eq!(words("let c = '\"'; unsafe {}"), 1);
        assert_eq!(words(r"let c = '\''; unsafe {}"), 1);
        assert_eq!(words(r"let c = '\u{22}'; unsafe {}"), 1);
        assert_eq!(words("fn f<'a>(x: &'a str) { unsafe {} }"), 1);
        assert_eq!(words("'label: loop { unsafe {} }"), 1);
        assert_eq!(words("/* a */ unsafe {} // b"), 1);
        assert_eq!(words(r##"let s = r"\"; unsafe {} let t = r#"x"#;"##), 1);
        assert_eq!(words("let r = b'\\''; unsafe {}"), 1);
        assert_eq!(words("let bar = car; let rb = 1; unsafe {}"), 1);
    }

    #[test]
    fn what_is_never_closed_ends_with_the_file() {
        for text in ["\"", "r#\"", "/*", "'\\", "'", "//", "b", "r", "br#", "\"\\"] {
            assert_eq!(words(text), 0, "{text}");
        }
    }

    #[test]
    fn comments_keep_their_lines() {
        let source = Source::new("let a = \"// no\"; // yes\n/* one\ntwo */ let b = 1;\n");
        assert_eq!(source.comments, ["// yes", "/* one", "two */", ""]);
        assert_eq!(source.code[2].trim(), "let b = 1;");
    }

    #[test]
    fn functions_are_found_by_their_whole_name() {
        let source = Source::new("fn one_two() {}\n// fn three() {}\nfn\n  four<T>() {}\n");
        assert!(source.has_function("one_two"));
        assert!(!source.has_function("one"));
        assert!(!source.has_function("three"));
        assert!(source.has_function("four"));
    }
}
