//! Signals, by Linux's numbers.

use std::fmt;

/// A signal that a process can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Signal {
    Hup,
    Int,
    Quit,
    Kill,
    Usr1,
    Usr2,
    Pipe,
    Alrm,
    Term,
    Chld,
    Cont,
    Stop,
    Winch,
}

impl Signal {
    const TABLE: [(Signal, i32, &'static str); 13] = [
        (Signal::Hup, 1, "HUP"),
        (Signal::Int, 2, "INT"),
        (Signal::Quit, 3, "QUIT"),
        (Signal::Kill, 9, "KILL"),
        (Signal::Usr1, 10, "USR1"),
        (Signal::Usr2, 12, "USR2"),
        (Signal::Pipe, 13, "PIPE"),
        (Signal::Alrm, 14, "ALRM"),
        (Signal::Term, 15, "TERM"),
        (Signal::Chld, 17, "CHLD"),
        (Signal::Cont, 18, "CONT"),
        (Signal::Stop, 19, "STOP"),
        (Signal::Winch, 28, "WINCH"),
    ];

    fn row(self) -> (Signal, i32, &'static str) {
        // Every variant has a row.
        Signal::TABLE.into_iter().find(|row| row.0 == self).unwrap_or(Signal::TABLE[8])
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.row().1
    }

    /// Its name, without `SIG`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// A signal by number or name, with or without `SIG`, in any case.
    pub fn parse(text: &str) -> Option<Signal> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = name.parse::<i32>().ok();
        Signal::TABLE.into_iter().find(|row| row.2 == name || Some(row.1) == number).map(|row| row.0)
    }

    /// Every signal with its number.
    pub fn all() -> impl Iterator<Item = Signal> {
        Signal::TABLE.into_iter().map(|row| row.0)
    }

    /// Whether a process that does not handle the signal goes on as if nothing had happened.
    pub fn ignored_by_default(self) -> bool {
        matches!(self, Signal::Chld | Signal::Cont | Signal::Winch | Signal::Stop)
    }

    /// The exit code of a process that the signal ends.
    pub fn exit_code(self) -> i32 {
        128 + self.number()
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIG{}", self.name())
    }
}
