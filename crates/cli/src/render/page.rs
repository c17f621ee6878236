//! A page: sections with headings, pairs of name and value, and lines. Empty sections leave no trace.

use super::paint::Paint;

/// Width of the names in a section.
const NAME_WIDTH: usize = 15;

/// A page that is being written.
pub struct Page {
    text: String,
    /// Its colours.
    pub paint: Paint,
}

impl Page {
    /// An empty page.
    pub fn new(paint: Paint) -> Self {
        Self { text: String::new(), paint }
    }

    /// A heading, with a remark beside it.
    pub fn heading(&mut self, title: &str, remark: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let title = self.paint.bold(title);
        if remark.is_empty() {
            self.push(&title);
        } else {
            self.push(&format!("{title}  {}", self.paint.dim(remark)));
        }
    }

    /// `  name          value`; later lines of the value stand under its first.
    pub fn pair(&mut self, name: &str, value: &str) {
        let mut lines = value.lines();
        self.push(&format!("  {name:<NAME_WIDTH$} {}", lines.next().unwrap_or_default()));
        for line in lines {
            self.push(&format!("  {:<NAME_WIDTH$} {line}", ""));
        }
    }

    /// An indented line.
    pub fn line(&mut self, text: &str) {
        self.push(&format!("  {text}"));
    }

    /// A section of sentences, or nothing.
    pub fn list(&mut self, title: &str, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        self.heading(title, "");
        for line in lines {
            self.line(line);
        }
    }

    /// One name, many values, or nothing.
    pub fn pairs(&mut self, name: &str, values: &[String]) {
        if !values.is_empty() {
            self.pair(name, &values.join("\n"));
        }
    }

    /// A line that cannot be overlooked.
    pub fn banner(&mut self, text: &str) {
        let edge = "!".repeat(text.chars().count() + 8);
        let loud = format!("!!  {text}  !!");
        self.text.push('\n');
        for line in [&edge, &loud, &edge] {
            let line = self.paint.red(line);
            self.line(&line);
        }
    }

    /// A line as it is.
    pub fn push(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// The text.
    pub fn text(self) -> String {
        self.text
    }
}
