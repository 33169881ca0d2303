//! `minik8s logs`: print the log of the cluster's process.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::cli::Name;
use crate::home::Home;

/// How often a followed log is read.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The options of `logs`.
#[derive(Args)]
pub struct Logs {
    #[command(flatten)]
    name: Name,
    /// Go on as the log grows
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
}

impl Logs {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        let path = Home::open()?.existing(&self.name.name)?.log();
        let mut file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let mut out = std::io::stdout().lock();
        out.write_all(last_lines(&text, self.tail))?;
        if !self.follow {
            return Ok(());
        }
        loop {
            out.flush()?;
            thread::sleep(LOOK_EVERY);
            // The process starts the file anew when it has grown too long.
            if file.metadata()?.len() < file.stream_position()? {
                file.seek(SeekFrom::Start(0))?;
            }
            text.clear();
            file.read_to_end(&mut text)?;
            out.write_all(&text)?;
        }
    }
}

fn last_lines(text: &[u8], count: Option<usize>) -> &[u8] {
    let Some(count) = count else { return text };
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let starts = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    match (count, starts.take(count).nth(count.saturating_sub(1))) {
        (0, _) => &[],
        (_, Some(start)) => &text[start..],
        (_, None) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_last_lines_are_whole_lines() {
        let text = b"a\nb\nc\n";
        assert_eq!(last_lines(text, Some(0)), b"");
        assert_eq!(last_lines(text, Some(1)), b"c\n");
        assert_eq!(last_lines(text, Some(2)), b"b\nc\n");
        assert_eq!(last_lines(text, Some(9)), text);
        assert_eq!(last_lines(text, None), text);
    }
}
