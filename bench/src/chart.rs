//! Bars, as SVG: one for each server, its length the median, with a line from the least to the most of the rounds. Pure.

use std::fmt::Write as _;

use crate::stats::Summary;

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Whose.
    pub name: String,
    /// How long.
    pub value: Summary,
    /// Whether it is ours, which has a colour of its own.
    pub ours: bool,
    /// Whether it is a bare loop.
    pub bare: bool,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 90.0;
const ROW: f64 = 24.0;
const TOP: f64 = 56.0;

/// A chart of these bars, in their order.
pub fn bars(title: &str, about: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.value.most).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT + value / most * (WIDTH - LEFT - RIGHT);
    let height = TOP + ROW * bars.len() as f64 + 34.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\" role=\"img\">\n<title>{0}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"16\" font-weight=\"bold\" fill=\"#222\">{0}</text>\n\
         <text x=\"12\" y=\"41\" fill=\"#555\">{1}</text>\n",
        escaped(title),
        escaped(about),
    );
    // A String takes whatever is written to it.
    for (number, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * number as f64;
        let fill = if bar.ours {
            "#c2410c"
        } else if bar.bare {
            "#94a3b8"
        } else {
            "#3b6ea5"
        };
        let middle = y + 9.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#222\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"18\" fill=\"{fill}\"/>\
             <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#111\" stroke-width=\"1.5\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#222\">{}</text>",
            LEFT - 8.0,
            y + 14.0,
            escaped(&bar.name),
            x(bar.value.median) - LEFT,
            x(bar.value.least),
            x(bar.value.most),
            x(bar.value.most) + 6.0,
            y + 14.0,
            figure(bar.value.median),
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"12\" y=\"{:.1}\" fill=\"#555\" font-size=\"11\">orange: tine; blue: peers; grey: bare loops. \
         Bars are medians, lines go from the least to the most of the rounds.</text>\n</svg>",
        height - 12.0
    );
    svg
}

/// A number with as many digits as mean something, thousands set apart.
pub fn figure(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_readable() {
        let shown: Vec<String> = [0.123, 12.34, 999.6, 1234.5, 1_234_567.0, -4321.0].map(figure).to_vec();
        assert_eq!(shown, ["0.12", "12.3", "1,000", "1,234", "1,234,567", "-4,321"]);
    }

    #[test]
    fn a_chart_has_a_bar_for_each_and_says_nothing_that_is_markup() {
        let bar = |name: &str, median: f64| Bar {
            name: name.into(),
            value: Summary { median, least: median / 2.0, most: median * 2.0 },
            ours: false,
            bare: false,
        };
        let svg = bars("a < b", "x & y", &[bar("one", 10.0), bar("<two>", 20.0)]);
        assert_eq!(svg.matches("<rect x=").count(), 2);
        assert!(svg.contains("a &lt; b") && svg.contains("x &amp; y") && svg.contains("&lt;two&gt;"));
        // The longest one reaches the right side and no further.
        let ends: Vec<f64> = svg
            .split("\"><path")
            .next()
            .into_iter()
            .flat_map(|_| svg.split('H').skip(1))
            .filter_map(|rest| rest.split('"').next()?.parse().ok())
            .collect();
        assert!(ends.iter().all(|end| *end <= WIDTH - RIGHT), "{ends:?}");
    }
}
