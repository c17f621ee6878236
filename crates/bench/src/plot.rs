//! The plot of the figures: bars, as an SVG that needs nothing else.

use std::fmt::Write as _;

use crate::figure::{Bound, Figure, Figures, Unit};

const WIDTH: f64 = 880.0;
const LABEL: f64 = 430.0;
const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
const HEAD: f64 = 54.0;
/// Room for the figure behind the longest bar.
const VALUE: f64 = 70.0;

/// Colours that are told apart without colour vision too, on white and on black.
const OURS: &str = "#2b7bba";
const OTHERS: &str = "#9aa5ad";
const TARGET: &str = "#d1495b";

/// Bars of the speeds, and below them those of p99; `None` where nothing was measured.
pub fn svg(figures: &Figures) -> Option<String> {
    let speeds = Panel {
        title: "Rows a second against the one big UPDATE",
        note: "longer is better; a red mark is a target, the line is the UPDATE itself",
        line: Some(1.0),
        show: |value| format!("{value:.2}"),
        bars: figures.of(Unit::Speed),
    };
    let p99 = Panel {
        title: "p99 of an application beside it, in milliseconds",
        note: "shorter is better; a red mark is the target",
        line: None,
        show: |value| format!("{value:.1}"),
        bars: figures.of(Unit::Millis),
    };
    let panels: Vec<Panel<'_>> = [speeds, p99].into_iter().filter(|panel| !panel.bars.is_empty()).collect();
    if panels.is_empty() {
        return None;
    }
    let height: f64 = panels.iter().map(Panel::height).sum();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut top = 0.0;
    for panel in &panels {
        panel.draw(&mut svg, top);
        top += panel.height();
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

struct Panel<'a> {
    title: &'static str,
    note: &'static str,
    /// Where a line goes through all bars.
    line: Option<f64>,
    show: fn(f64) -> String,
    bars: Vec<&'a Figure>,
}

impl Panel<'_> {
    fn height(&self) -> f64 {
        HEAD + ROW * self.bars.len() as f64 + 16.0
    }

    /// The value at the right edge of the longest bar.
    fn most(&self) -> f64 {
        let targets = self.bars.iter().filter_map(|bar| bar.bound).map(|bound| bound.sign().1);
        let all = self.bars.iter().map(|bar| bar.value).chain(targets).chain(self.line);
        all.filter(|value| value.is_finite()).fold(f64::MIN_POSITIVE, f64::max)
    }

    fn draw(&self, svg: &mut String, top: f64) {
        let scale = (WIDTH - LABEL - VALUE) / self.most();
        let at = |value: f64| LABEL + value.max(0.0) * scale;
        let _ = write!(
            svg,
            "<text x=\"12\" y=\"{}\" font-size=\"16\" font-weight=\"600\">{}</text>\n\
             <text x=\"12\" y=\"{}\" fill=\"#5a6570\" font-size=\"12\">{}</text>\n",
            top + 24.0,
            escaped(self.title),
            top + 42.0,
            escaped(self.note)
        );
        for (place, bar) in self.bars.iter().enumerate() {
            let y = top + HEAD + ROW * place as f64;
            let middle = y + BAR * 0.8;
            // What pgmend does is named by its mode; all others are somebody else's.
            let ours = ["stream", "freeze", "undo", "two workers", "pgmend"].iter().any(|word| bar.name.contains(word));
            let _ = write!(
                svg,
                "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>\n\
                 <rect x=\"{LABEL}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{}\"/>\n\
                 <text x=\"{:.1}\" y=\"{middle}\" fill=\"#333\">{}</text>\n",
                LABEL - 8.0,
                escaped(&bar.name),
                at(bar.value) - LABEL,
                if ours { OURS } else { OTHERS },
                at(bar.value) + 6.0,
                (self.show)(bar.value)
            );
            if let Some(Bound::AtLeast(limit) | Bound::AtMost(limit)) = bar.bound {
                let x = at(limit);
                let _ = writeln!(
                    svg,
                    "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"{TARGET}\" stroke-width=\"3\"/>",
                    y - 3.0,
                    y + BAR + 3.0
                );
            }
        }
        if let Some(line) = self.line {
            let (x, from, to) = (at(line), top + HEAD - 6.0, top + HEAD + ROW * self.bars.len() as f64);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{from}\" y2=\"{to}\" stroke=\"#333\" stroke-dasharray=\"4 3\"/>"
            );
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Part;

    #[test]
    fn every_figure_has_a_bar_and_every_target_a_mark() {
        let mut figures = Figures::default();
        assert_eq!(svg(&figures), None);
        let bar =
            |name: &str, unit, value, bound| Figure { part: Part::Contest, unit, name: name.into(), value, bound };
        figures.replace(
            Part::Contest,
            vec![
                bar("stream <images>", Unit::Speed, 0.5, Some(Bound::AtLeast(1.0))),
                bar("a script", Unit::Speed, 0.25, None),
                bar("beside a run", Unit::Millis, 4.0, None),
            ],
        );
        let svg = svg(&figures).expect("there are figures");
        assert_eq!((svg.matches("<rect x=").count(), svg.matches(TARGET).count()), (3, 1));
        let width = WIDTH - LABEL - VALUE;
        for length in [width / 2.0, width / 4.0, width] {
            assert!(svg.contains(&format!("width=\"{length:.1}\"")), "{length}: {svg}");
        }
        assert!(svg.contains("stream &lt;images&gt;"));
    }
}
