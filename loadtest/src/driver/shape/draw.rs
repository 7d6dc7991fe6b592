//! Line charts as SVG, with nothing but text.

use std::fmt::Write as _;

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

/// A line; its class says how it looks.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) class: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How values go to the axis.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    /// By their logarithm, because they differ by orders of magnitude.
    Logarithmic,
    /// Percentiles: each step to the right is a tenth of what is left to 100.
    Percentile,
}

/// A chart.
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    pub(crate) x_scale: Scale,
    /// How far the x axis goes at least, so that charts of one run are alike.
    pub(crate) x_to: f64,
    pub(crate) y_scale: Scale,
    pub(crate) lines: Vec<Line<'a>>,
    /// Names with the part of the x axis that they stand for.
    pub(crate) marks: Vec<(&'a str, f64, f64)>,
}

/// An axis: from values to pixels.
struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
    begin: f64,
    end: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let (value, from, to) = (self.of(value), self.of(self.from), self.of(self.to));
        let part = (value - from) / (to - from).max(1e-9);
        self.begin + (self.end - self.begin) * part.clamp(0.0, 1.0)
    }

    fn of(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1e-3).log10(),
            Scale::Percentile => -(1.0 - (value / 100.0).min(0.999_99)).log10(),
        }
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = nice((self.to - self.from) / 6.0);
                let count = ((self.to - self.from) / step + 1e-9).floor() as usize;
                (0..=count)
                    .map(|tick| self.from + step * tick as f64)
                    .collect()
            }
            Scale::Logarithmic => [1.0, 2.0, 5.0]
                .into_iter()
                .flat_map(|first| (-3..7).map(move |power| first * 10_f64.powi(power)))
                .filter(|tick| (self.from..=self.to).contains(tick))
                .collect(),
            Scale::Percentile => [50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99]
                .into_iter()
                .filter(|tick| *tick <= self.to + 1e-9)
                .collect(),
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.max(1e-6).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|first| first * power)
        .find(|nice| *nice >= step - 1e-9)
        .unwrap_or(power * 10.0)
}

impl Chart<'_> {
    /// The chart, with a legend above it.
    pub(crate) fn svg(&self) -> String {
        let mut text = String::new();
        let _ = write!(
            text,
            "<figure><figcaption>{}</figcaption><p class=\"legend\">",
            escape(self.title)
        );
        for line in &self.lines {
            let (class, name) = (line.class, escape(line.name));
            let _ = write!(
                text,
                "<span><svg width=\"22\" height=\"8\" aria-hidden=\"true\"><line class=\"line {class}\" x1=\"0\" x2=\"22\" y1=\"4\" y2=\"4\"/></svg> {name}</span>"
            );
        }
        let _ = write!(
            text,
            "</p><svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.title)
        );
        let (x, y) = (self.x_axis(), self.y_axis());
        self.draw_marks(&mut text, &x);
        self.draw_axes(&mut text, &x, &y);
        for line in &self.lines {
            draw_line(&mut text, line, &x, &y);
        }
        text.push_str("</svg></figure>\n");
        text
    }

    fn range(&self, of: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
        let values = self.lines.iter().flat_map(|line| &line.points).map(of);
        values.fold((f64::INFINITY, 0.0), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    }

    fn x_axis(&self) -> Axis {
        let (_, last) = self.range(|point| point.0);
        Axis {
            scale: self.x_scale,
            from: match self.x_scale {
                Scale::Percentile => 50.0,
                _ => 0.0,
            },
            to: last.max(self.x_to).max(1e-3),
            begin: LEFT,
            end: WIDTH - RIGHT,
        }
    }

    fn y_axis(&self) -> Axis {
        let (low, high) = self.range(|point| point.1);
        let (from, to) = match self.y_scale {
            Scale::Logarithmic => (low.clamp(0.1, 1e6) * 0.8, (high * 1.25).max(1.0)),
            _ => (0.0, (high * 1.05).max(1.0)),
        };
        Axis {
            scale: self.y_scale,
            from,
            to,
            begin: HEIGHT - BOTTOM,
            end: TOP,
        }
    }

    fn draw_marks(&self, text: &mut String, x: &Axis) {
        for (name, from, until) in &self.marks {
            let (left, right) = (x.place(*from), x.place(*until));
            let (width, height) = ((right - left).max(1.5), HEIGHT - TOP - BOTTOM);
            let name = escape(name);
            let _ = write!(
                text,
                "<rect class=\"mark\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"><title>{name}</title></rect>\
                 <text class=\"mark-name\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
                left + 4.0,
                TOP + 11.0
            );
        }
    }

    fn draw_axes(&self, text: &mut String, x: &Axis, y: &Axis) {
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ = write!(
                text,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                number(tick)
            );
        }
        for tick in x.ticks() {
            let at = x.place(tick);
            let _ = write!(
                text,
                "<text class=\"tick centre\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
                HEIGHT - BOTTOM + 16.0,
                number(tick)
            );
        }
        let (x, y) = (escape(self.x), escape(self.y));
        let _ = write!(
            text,
            "<text class=\"unit end\" x=\"{:.1}\" y=\"{:.1}\">{x}</text><text class=\"unit\" x=\"4\" y=\"{:.1}\">{y}</text>",
            WIDTH - RIGHT,
            HEIGHT - 4.0,
            TOP - 3.0
        );
    }
}

fn draw_line(text: &mut String, line: &Line<'_>, x: &Axis, y: &Axis) {
    let points: Vec<String> = line
        .points
        .iter()
        .map(|(at, value)| format!("{:.1},{:.1}", x.place(*at), y.place(*value)))
        .collect();
    let (class, name) = (line.class, escape(line.name));
    let _ = write!(
        text,
        "<polyline class=\"line {class}\" points=\"{}\"/>",
        points.join(" ")
    );
    for ((at, value), point) in line.points.iter().zip(&points) {
        let (left, top) = point.split_once(',').unwrap_or(("0", "0"));
        let _ = write!(
            text,
            "<circle class=\"dot {class}\" cx=\"{left}\" cy=\"{top}\" r=\"5\"><title>{name}: {} at {}</title></circle>",
            number(*value),
            number(*at)
        );
    }
}

/// As few digits as tell it from its neighbours.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        let text = text.trim_end_matches('0').trim_end_matches('.');
        return text.to_owned();
    }
    text
}

/// Text that is safe between and in the tags of HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale, from: f64, to: f64) -> Axis {
        Axis {
            scale,
            from,
            to,
            begin: 0.0,
            end: 100.0,
        }
    }

    #[test]
    fn values_go_where_their_scale_says() {
        let linear = axis(Scale::Linear, 0.0, 50.0);
        assert!((linear.place(25.0) - 50.0).abs() < 1e-9);
        assert_eq!(linear.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        let logarithmic = axis(Scale::Logarithmic, 1.0, 100.0);
        assert!((logarithmic.place(10.0) - 50.0).abs() < 1e-9);
        let percentile = axis(Scale::Percentile, 0.0, 99.0);
        assert!((percentile.place(90.0) - 50.0).abs() < 1e-6);
        assert_eq!(percentile.ticks(), [50.0, 75.0, 90.0, 95.0, 99.0]);
    }

    #[test]
    fn numbers_have_the_digits_they_need() {
        for (value, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (12.5, "12.5"),
            (1_234.5, "1234"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
