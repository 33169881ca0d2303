//! Command-line options, as `getopt` reads them.

use crate::process::Process;
use std::io;

/// The options and operands of a command line.
#[derive(Debug, Default, Clone)]
pub(crate) struct Options {
    given: Vec<(String, Option<String>)>,
    /// What is no option.
    pub operands: Vec<String>,
}

impl Options {
    /// Reads a command line. `flags` are options without a value, `values` those with one: single letters stand for `-x`,
    /// words for `--word`. Returns the option that is not known otherwise.
    pub fn parse(arguments: &[String], flags: &[&str], values: &[&str]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                options.operands.extend(arguments.cloned());
                break;
            }
            if let Some(long) = argument.strip_prefix("--") {
                let (name, inline) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                if flags.contains(&name) {
                    options.given.push((name.to_string(), None));
                } else if values.contains(&name) {
                    let value = inline.map(str::to_string).or_else(|| arguments.next().cloned());
                    options.given.push((name.to_string(), Some(value.ok_or_else(|| requires(name))?)));
                } else {
                    return Err(format!("unrecognized option: {name}"));
                }
                continue;
            }
            match argument.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                Some(letters) => options.letters(letters, &mut arguments, flags, values)?,
                None => options.operands.push(argument.clone()),
            }
        }
        Ok(options)
    }

    fn letters<'a>(
        &mut self,
        letters: &str,
        arguments: &mut impl Iterator<Item = &'a String>,
        flags: &[&str],
        values: &[&str],
    ) -> Result<(), String> {
        for (at, letter) in letters.char_indices() {
            let name = letter.to_string();
            if flags.contains(&name.as_str()) {
                self.given.push((name, None));
            } else if values.contains(&name.as_str()) {
                let rest = &letters[at + letter.len_utf8()..];
                let value = if rest.is_empty() { arguments.next().cloned() } else { Some(rest.to_string()) };
                let value = value.ok_or_else(|| requires(&name))?;
                self.given.push((name, Some(value)));
                return Ok(());
            } else {
                return Err(format!("invalid option -- '{letter}'"));
            }
        }
        Ok(())
    }

    /// A command line without options.
    pub fn operands<'a>(words: impl Iterator<Item = &'a String>) -> Options {
        Options { operands: words.cloned().collect(), ..Options::default() }
    }

    /// Whether any of the names was given.
    pub fn has(&self, names: &[&str]) -> bool {
        self.given.iter().any(|(name, _)| names.contains(&name.as_str()))
    }

    /// The last value given under any of the names.
    pub fn value(&self, names: &[&str]) -> Option<&str> {
        let named = self.given.iter().rev().filter(|(name, _)| names.contains(&name.as_str()));
        named.filter_map(|(_, value)| value.as_deref()).next()
    }

    /// All values given under any of the names, in order.
    pub fn all<'a>(&'a self, names: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
        let named =
            |(name, value): &'a (String, Option<String>)| value.as_deref().filter(|_| names.contains(&name.as_str()));
        self.given.iter().filter_map(named)
    }
}

fn requires(option: &str) -> String {
    format!("option requires an argument: {option}")
}

/// Says what is wrong with the command line; returns the exit code for it.
pub(crate) async fn complain_usage(process: &Process, message: String) -> io::Result<i32> {
    process.complain(message).await;
    Ok(if process.world.profile.gnu { 2 } else { 1 })
}
