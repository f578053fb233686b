//! Text for a reader at a terminal: words in lines that are not too long.

/// How long a line may be.
const WIDTH: usize = 100;

/// Adds a paragraph to a page: `head` begins its first line, and as many blanks as `indent` says each other one.
pub fn paragraph(page: &mut String, head: &str, indent: usize, text: &str) {
    let mut line = head.to_owned();
    let mut length = head.chars().count();
    let mut begun = false;
    for word in text.split_whitespace() {
        let more = word.chars().count() + usize::from(begun);
        if begun && length + more > WIDTH {
            page.push_str(&line);
            page.push('\n');
            line = " ".repeat(indent);
            length = indent;
            begun = false;
        }
        if begun {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += word.chars().count();
        begun = true;
    }
    page.push_str(line.trim_end());
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_broken_between_words_and_no_line_is_too_long_unless_a_word_is() {
        let mut page = String::new();
        paragraph(&mut page, "  head  ", 8, &"word ".repeat(40));
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() <= WIDTH));
        assert!(lines[0].starts_with("  head  word") && lines[1].starts_with("        word"));
        page.clear();
        paragraph(&mut page, "", 2, &"x".repeat(WIDTH + 1));
        assert_eq!(page, format!("{}\n", "x".repeat(WIDTH + 1)));
        page.clear();
        paragraph(&mut page, "alone ", 2, "");
        assert_eq!(page, "alone\n");
    }
}
