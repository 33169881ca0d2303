//! Prometheus' text format, by families.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::Counts;

/// How the values of a family behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// They come and go.
    Gauge,
    /// They are counted by size.
    Histogram,
}

/// Metrics on their way to a reader. Who writes to a family that another has begun adds to it, because a family may
/// stand only once in a text.
#[derive(Default)]
pub struct Text(BTreeMap<&'static str, Family>);

struct Family {
    kind: Kind,
    help: &'static str,
    lines: String,
}

/// One family that is being written.
pub struct Samples<'t> {
    name: &'static str,
    lines: &'t mut String,
}

impl Text {
    /// Begins a family, or goes on with it.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Samples<'_> {
        let family = self.0.entry(name).or_insert_with(|| Family { kind, help, lines: String::new() });
        Samples { name, lines: &mut family.lines }
    }

    /// The text, families in the order of their names. Those without samples are left out.
    pub fn finish(self) -> String {
        let mut out = String::with_capacity(self.0.values().map(|family| family.lines.len() + 200).sum());
        for (name, Family { kind, help, lines }) in self.0 {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            if !lines.is_empty() {
                let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
            }
        }
        out
    }
}

impl Samples<'_> {
    /// A value; labels in the order in which they are to stand.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// What a histogram holds.
    pub fn histogram(&mut self, labels: &[(&str, &str)], counts: &Counts) -> &mut Self {
        for (bound, count) in &counts.buckets {
            self.line("_bucket", labels, Some(&bound.to_string()), count);
        }
        self.line("_bucket", labels, Some("+Inf"), counts.count);
        self.line("_sum", labels, None, counts.sum);
        self.line("_count", labels, None, counts.count);
        self
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>, value: impl Display) {
        let _ = write!(self.lines, "{}{suffix}", self.name);
        let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut between = '{';
        for (label, text) in labels {
            let _ = write!(self.lines, "{between}{label}=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.lines.push_str("\\\\"),
                    '"' => self.lines.push_str("\\\""),
                    '\n' => self.lines.push_str("\\n"),
                    other => self.lines.push(other),
                }
            }
            self.lines.push('"');
            between = ',';
        }
        if between == ',' {
            self.lines.push('}');
        }
        let _ = writeln!(self.lines, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::Histogram;
    use super::*;

    #[test]
    fn families_stand_once_whoever_writes_them() {
        let mut text = Text::default();
        text.family("b_total", Kind::Counter, "Bs.").sample(&[("of", "a\"\\\n")], 1);
        text.family("a", Kind::Gauge, "An a.").sample(&[], 2.5);
        text.family("b_total", Kind::Counter, "Bs.").sample(&[("of", "other")], 2);
        text.family("none", Kind::Gauge, "Nothing.");
        let histogram = Histogram::new(&[0.5, 1.0]);
        histogram.observe(0.75);
        text.family("c_seconds", Kind::Histogram, "Cs.").histogram(&[("x", "y")], &histogram.counts());
        let expect = "# HELP a An a.\n# TYPE a gauge\na 2.5\n\
                      # HELP b_total Bs.\n# TYPE b_total counter\nb_total{of=\"a\\\"\\\\\\n\"} 1\nb_total{of=\"other\"} 2\n\
                      # HELP c_seconds Cs.\n# TYPE c_seconds histogram\n\
                      c_seconds_bucket{x=\"y\",le=\"0.5\"} 0\nc_seconds_bucket{x=\"y\",le=\"1\"} 1\n\
                      c_seconds_bucket{x=\"y\",le=\"+Inf\"} 1\nc_seconds_sum{x=\"y\"} 0.75\nc_seconds_count{x=\"y\"} 1\n";
        assert_eq!(text.finish(), expect);
    }
}
