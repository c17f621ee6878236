//! The page that the measurements make. Each part has a section between two marks, which it replaces; what people wrote
//! between the sections stays, and so does what other parts measured.

use std::path::{Path, PathBuf};

use crate::arguments::Arguments;
use crate::error::BenchError;
use crate::figure::{Figure, Figures};
use crate::part::Part;
use crate::plot;

const TITLE: &str = "# Measurements\n\n";
const SHORT: (&str, &str) = ("<!-- README: begin -->\n", "<!-- README: end -->\n");

/// What a part says of itself.
#[derive(Debug, Clone)]
pub struct Section {
    pub part: Part,
    /// Markdown, with its heading.
    pub text: String,
    pub figures: Vec<Figure>,
}

/// The page so far.
pub struct Page {
    path: Option<PathBuf>,
    text: String,
    figures: Figures,
}

impl Page {
    /// The page as it is, with its figures beside it; an empty one where there is none.
    pub fn open(arguments: &Arguments) -> Result<Self, BenchError> {
        let path = arguments.output.clone();
        let there = |path: &Path| if path.exists() { std::fs::read_to_string(path) } else { Ok(String::new()) };
        let (text, figures) = match &path {
            None => (String::new(), String::new()),
            Some(path) => (there(path)?, there(&path.with_extension("tsv"))?),
        };
        let text = if text.is_empty() { TITLE.to_owned() } else { text };
        Ok(Self { path, text, figures: Figures::read(&figures)? })
    }

    /// Puts a part's section in the place of the one that it had, and writes the page, the figures and the plot.
    pub fn put(&mut self, section: Section) -> Result<(), BenchError> {
        let name = section.part.name();
        let marks = (format!("<!-- bench: {name} -->\n"), format!("<!-- /bench: {name} -->\n"));
        self.text = between(&self.text, (&marks.0, &marks.1), &format!("\n{}\n", section.text.trim()));
        self.figures.replace(section.part, section.figures);
        self.write()
    }

    /// Writes the page with its table, the figures and the plot.
    pub fn write(&mut self) -> Result<(), BenchError> {
        self.text = between(&self.text, SHORT, &self.figures.table());
        let Some(path) = &self.path else { return Ok(()) };
        std::fs::write(path, &self.text)?;
        std::fs::write(path.with_extension("tsv"), self.figures.text())?;
        if let Some(svg) = plot::svg(&self.figures) {
            std::fs::write(path.with_extension("svg"), svg)?;
        }
        Ok(())
    }

    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The page with this between two marks, at its end where they were not there.
fn between(page: &str, (begin, end): (&str, &str), text: &str) -> String {
    let inside = page.find(begin).map(|at| at + begin.len());
    let span = inside.and_then(|from| Some((from, from + page[from..].find(end)?)));
    match span {
        Some((from, to)) => format!("{}{text}{}", &page[..from], &page[to..]),
        None => format!("{}\n\n{begin}{text}{end}", page.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(part: Part, text: &str) -> Section {
        Section { part, text: text.into(), figures: Vec::new() }
    }

    #[test]
    fn a_section_replaces_itself_and_nothing_that_stands_around_it() {
        let text = format!("{TITLE}Written by hand.\n");
        let mut page = Page { path: None, text, figures: Figures::default() };
        page.put(section(Part::Contest, "## Speed\n\nfast")).expect("nothing is written");
        page.put(section(Part::Lag, "## Lag\n\nlate")).expect("nothing is written");
        page.text.push_str("More by hand.\n");
        page.put(section(Part::Contest, "## Speed\n\nfaster")).expect("nothing is written");
        let text = page.text();
        for kept in ["Written by hand.", "More by hand.", "faster", "late", SHORT.0] {
            assert_eq!(text.matches(kept).count(), 1, "{kept}: {text}");
        }
        assert!(!text.contains("fast\n"), "{text}");
    }
}
