//! What a command printed, and how it ended.

use std::fmt;

use serde_json::Value;

/// The outcome of a command.
#[derive(Clone, Debug)]
pub struct Output {
    /// The line that was run.
    pub command: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The exit code; -1 where a signal ended it.
    pub code: i32,
}

impl Output {
    /// Standard output of a command that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "should succeed: {self}");
        self.stdout
    }

    /// Standard error of a command that must fail.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_ne!(self.code, 0, "should fail: {self}");
        self.stderr
    }

    /// Standard output of a command that must succeed, as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let shown = self.to_string();
        serde_json::from_str(&self.ok()).unwrap_or_else(|error| panic!("not JSON ({error}): {shown}"))
    }

    /// The cells of a table printed by kubectl: columns stand at least two spaces apart... except where a cell fills
    /// its column, so cells are cut where the header's words begin.
    #[track_caller]
    pub fn table(self) -> Vec<Vec<String>> {
        let text = self.ok();
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        let mut starts = vec![0];
        let bytes = header.as_bytes();
        for at in 2..bytes.len() {
            if bytes[at] != b' ' && bytes[at - 1] == b' ' && bytes[at - 2] == b' ' {
                starts.push(at);
            }
        }
        let cells = |line: &str| {
            let ends = starts.iter().skip(1).copied().chain([usize::MAX]);
            let cut = |(start, end): (usize, usize)| {
                line.chars().skip(start).take(end.saturating_sub(start)).collect::<String>().trim().to_owned()
            };
            starts.iter().copied().zip(ends).map(cut).collect()
        };
        std::iter::once(header).chain(lines).map(cells).collect()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n$ {}\n{}{}(exit code {})", self.command, self.stdout, self.stderr, self.code)
    }
}
