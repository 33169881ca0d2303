//! Command-line flags as Go's `pflag` reads them: `--port 80`, `--port=80`, `--tcp`, `--tcp=false`, `-t 5`.

use super::go_format::parse_duration;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What the value of a flag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    String,
    Duration,
}

/// A flag of a subcommand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flag {
    pub name: &'static str,
    /// Its one-letter form, if it has one.
    pub letter: Option<char>,
    pub kind: Kind,
    /// The value where it is not given, as text.
    pub default: &'static str,
    pub usage: &'static str,
}

impl Flag {
    const fn new(kind: Kind, name: &'static str, default: &'static str, usage: &'static str) -> Flag {
        Flag { name, letter: None, kind, default, usage }
    }

    /// A flag that is true or false.
    pub const fn bool(name: &'static str, default: &'static str, usage: &'static str) -> Flag {
        Flag::new(Kind::Bool, name, default, usage)
    }

    /// A flag with a number.
    pub const fn int(name: &'static str, default: &'static str, usage: &'static str) -> Flag {
        Flag::new(Kind::Int, name, default, usage)
    }

    /// A flag with a text.
    pub const fn string(name: &'static str, default: &'static str, usage: &'static str) -> Flag {
        Flag::new(Kind::String, name, default, usage)
    }

    /// A flag with a length of time, as Go writes them: `1m30s`.
    pub const fn duration(name: &'static str, default: &'static str, usage: &'static str) -> Flag {
        Flag::new(Kind::Duration, name, default, usage)
    }

    /// The same flag with a one-letter form.
    pub const fn letter(self, letter: char) -> Flag {
        Flag { letter: Some(letter), ..self }
    }

    fn check(&self, value: &str) -> Result<(), String> {
        let reason = match self.kind {
            Kind::String => return Ok(()),
            Kind::Bool if parse_bool(value).is_some() => return Ok(()),
            Kind::Int if value.parse::<i64>().is_ok() => return Ok(()),
            Kind::Duration if parse_duration(value).is_some() => return Ok(()),
            Kind::Bool => format!("strconv.ParseBool: parsing {value:?}: invalid syntax"),
            Kind::Int => format!("strconv.ParseInt: parsing {value:?}: invalid syntax"),
            Kind::Duration => format!("time: invalid duration {value:?}"),
        };
        let letter = self.letter.map(|letter| format!("-{letter}, ")).unwrap_or_default();
        Err(format!("invalid argument {value:?} for \"{letter}--{}\" flag: {reason}", self.name))
    }
}

/// The line of a usage text.
impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Bool => "",
            Kind::Int => " int",
            Kind::String => " string",
            Kind::Duration => " duration",
        };
        let letter = self.letter.map_or("    ".to_string(), |letter| format!("-{letter}, "));
        write!(f, "  {letter}--{}{kind}   {}", self.name, self.usage)?;
        match (self.kind, self.default) {
            (_, "" | "0" | "0s" | "false") => Ok(()),
            (Kind::String, default) => write!(f, " (default {default:?})"),
            (_, default) => write!(f, " (default {default})"),
        }
    }
}

/// The flags and operands of a command line.
#[derive(Debug, Default)]
pub(super) struct Flags {
    values: BTreeMap<&'static str, String>,
    pub operands: Vec<String>,
}

impl Flags {
    /// Reads a command line; says in `pflag`'s words what is wrong with it.
    pub fn parse(known: &[Flag], words: &[&str]) -> Result<Flags, String> {
        let mut flags = Flags::default();
        for flag in known {
            flags.values.insert(flag.name, flag.default.to_string());
        }
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            if word == "--" {
                flags.operands.extend(words.by_ref().map(str::to_string));
                break;
            }
            let (flag, inline) = if let Some(long) = word.strip_prefix("--") {
                let (name, inline) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                let flag = known.iter().find(|flag| flag.name == name);
                (flag.ok_or_else(|| format!("unknown flag: --{name}"))?, inline)
            } else if let Some(short) = word.strip_prefix('-').filter(|short| !short.is_empty()) {
                let letter = short.chars().next().unwrap_or_default();
                let flag = known.iter().find(|flag| flag.letter == Some(letter));
                let rest = &short[letter.len_utf8()..];
                let inline = Some(rest.strip_prefix('=').unwrap_or(rest)).filter(|rest| !rest.is_empty());
                (flag.ok_or_else(|| format!("unknown shorthand flag: {letter:?} in -{short}"))?, inline)
            } else {
                flags.operands.push(word.to_string());
                continue;
            };
            let value = match (inline, flag.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true",
                (None, _) => words.next().ok_or_else(|| format!("flag needs an argument: {word}"))?,
            };
            flag.check(value)?;
            flags.values.insert(flag.name, value.to_string());
        }
        Ok(flags)
    }

    /// The text of a flag; empty for one that the subcommand does not have.
    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// The number of a flag.
    pub fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or_default()
    }

    /// Whether a flag is true.
    pub fn is(&self, name: &str) -> bool {
        parse_bool(self.text(name)).unwrap_or_default()
    }

    /// The length of time of a flag.
    pub fn duration(&self, name: &str) -> Duration {
        parse_duration(self.text(name)).unwrap_or_default()
    }

    /// The port of a flag: `None` for what is no port.
    pub fn port(&self, name: &str) -> Option<u16> {
        self.text(name).parse().ok()
    }
}

/// The words that Go's `strconv.ParseBool` takes.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Flag; 3] = [
        Flag::int("port", "80", "Port number."),
        Flag::bool("http", "true", "Serve HTTP."),
        Flag::duration("run-duration", "0s", "Total duration of the run").letter('d'),
    ];

    #[test]
    fn flags_are_read_as_pflag_does() {
        let flags = Flags::parse(&KNOWN, &["--port", "81", "--http=false", "-d", "1m30s", "a", "--", "--b"]);
        let flags = flags.expect("valid");
        assert_eq!((flags.port("port"), flags.is("http")), (Some(81), false));
        assert_eq!(flags.duration("run-duration"), Duration::from_secs(90));
        assert_eq!(flags.operands, ["a", "--b"]);
        assert!(Flags::parse(&KNOWN, &[]).expect("valid").is("http"));
    }

    #[test]
    fn what_is_wrong_is_said_in_its_words() {
        let wrong = |words: &[&str]| Flags::parse(&KNOWN, words).expect_err("invalid");
        assert_eq!(wrong(&["--nope"]), "unknown flag: --nope");
        assert_eq!(wrong(&["--port"]), "flag needs an argument: --port");
        assert_eq!(
            wrong(&["--port=x"]),
            "invalid argument \"x\" for \"--port\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            wrong(&["-d=x"]),
            "invalid argument \"x\" for \"-d, --run-duration\" flag: time: invalid duration \"x\""
        );
    }
}
