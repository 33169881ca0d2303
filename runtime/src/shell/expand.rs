//! From words to fields: expansion, splitting, file names, quotes (POSIX shell, 2.6).

use super::depth::{self, deep};
use super::syntax::{self, SyntaxError};
use super::{Descriptor, Flow, NESTING_LIMIT, Outcome, Running, interpreter, parser_options};
use crate::pattern;
use crate::process::{Capture, Output};
use brush_parser::ast::Word;
use brush_parser::word::{
    self, BraceExpressionMember, BraceExpressionOrText, TildeExpr, WordPiece, WordPieceWithSource,
};
use futures::future::BoxFuture;

/// How many words one brace expression or file name pattern may become.
const WORD_LIMIT: usize = 100_000;

/// Fields while they are put together. Text is kept as a pattern: what was quoted is escaped.
#[derive(Default)]
pub(super) struct Fields {
    done: Vec<String>,
    current: String,
    /// Whether the current field exists even when it is empty, because something was quoted.
    present: bool,
}

impl Fields {
    pub(super) fn quoted(&mut self, text: &str) {
        self.current += &pattern::escape(text);
        self.present = true;
    }

    fn literal(&mut self, text: &str) {
        self.current += text;
        self.present |= !text.is_empty();
    }

    /// Adds the result of an unquoted expansion, which is split.
    fn split(&mut self, text: &str, separators: &str) {
        let is_separator = |character: char| separators.contains(character);
        let mut rest = text;
        while let Some(at) = rest.find(is_separator) {
            self.literal(&rest[..at]);
            let separator = rest[at..].chars().next().unwrap_or(' ');
            rest = &rest[at + separator.len_utf8()..];
            if separator.is_whitespace() {
                self.end();
            } else {
                self.present = true;
                self.end();
            }
        }
        self.literal(rest);
    }

    pub(super) fn end(&mut self) {
        if self.present {
            self.done.push(std::mem::take(&mut self.current));
        }
        self.present = false;
    }

    fn finish(mut self) -> Vec<String> {
        self.end();
        self.done
    }
}

/// How a word is expanded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Into fields.
    Fields,
    /// Into one text, without splitting.
    Text,
}

impl Running<'_> {
    /// The fields of words, as commands get them.
    pub(super) async fn fields(&mut self, words: impl Iterator<Item = &Word>) -> Result<Vec<String>, String> {
        let mut fields = Vec::new();
        for word in words {
            for text in self.braces(&word.value)? {
                let mut expanded = Fields::default();
                self.expand(&text, Mode::Fields, &mut expanded).await?;
                for field in expanded.finish() {
                    fields.extend(self.file_names(field));
                    if fields.len() > WORD_LIMIT {
                        return Err("argument list too long".to_string());
                    }
                }
            }
        }
        Ok(fields)
    }

    /// [`Running::fields`], where a failure ends the shell (`${x:?}`, `set -u`).
    pub(super) async fn fields_or_complain(&mut self, words: impl Iterator<Item = &Word>) -> Result<Vec<String>, Flow> {
        match self.fields(words).await {
            Ok(fields) => Ok(fields),
            Err(message) => Err(self.raise(message).await.err().unwrap_or(Flow::Exit(2))),
        }
    }

    /// What an error of the shell itself does, such as a failed expansion: it ends a script, and leads back to a prompt.
    pub(super) async fn raise(&mut self, message: String) -> Outcome {
        self.shell.complain(message).await;
        self.shell.status = 2;
        Err(if self.shell.interactive { Flow::Interrupt } else { Flow::Exit(2) })
    }

    /// A word as one text.
    pub(super) async fn text(&mut self, word: &str) -> Result<String, String> {
        Ok(pattern::unescape(&self.pattern(word).await?))
    }

    /// A word as a pattern: what it has in quotes stands for itself.
    pub(super) async fn pattern(&mut self, word: &str) -> Result<String, String> {
        let mut fields = Fields::default();
        self.expand(word, Mode::Text, &mut fields).await?;
        Ok(fields.finish().join(" "))
    }

    /// The text of a here-document, where quotes mean nothing.
    pub(super) async fn here_text(&mut self, text: &str) -> Result<String, String> {
        let options = parser_options(self.shell.bash);
        let pieces = depth::parsing(depth::expansions(text), || word::parse_heredoc(text, &options));
        let pieces = pieces.and_then(Result::ok).ok_or_else(|| bad(text))?;
        let mut fields = Fields::default();
        self.pieces(&pieces, true, Mode::Text, &mut fields).await?;
        Ok(pattern::unescape(&fields.finish().concat()))
    }

    pub(super) fn expand<'a>(
        &'a mut self,
        word: &'a str,
        mode: Mode,
        fields: &'a mut Fields,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let options = parser_options(self.shell.bash);
            let pieces = depth::parsing(depth::expansions(word), || word::parse(word, &options));
            let pieces = pieces.and_then(Result::ok).ok_or_else(|| bad(word))?;
            self.pieces(&pieces, false, mode, fields).await
        })
    }

    fn pieces<'a>(
        &'a mut self,
        pieces: &'a [WordPieceWithSource],
        quoted: bool,
        mode: Mode,
        fields: &'a mut Fields,
    ) -> BoxFuture<'a, Result<(), String>> {
        deep(async move {
            for WordPieceWithSource { piece, .. } in pieces {
                match piece {
                    WordPiece::Text(text) if quoted => fields.quoted(text),
                    WordPiece::Text(text) => fields.literal(text),
                    WordPiece::SingleQuotedText(text) => fields.quoted(text),
                    WordPiece::AnsiCQuotedText(text) => fields.quoted(&ansi_c(text)),
                    WordPiece::DoubleQuotedSequence(inner) | WordPiece::GettextDoubleQuotedSequence(inner) => {
                        // Even with nothing in it there is a field, unless "$@" says that there is none.
                        let only_all = matches!(inner.as_slice(), [one] if is_all_positional(&one.piece));
                        fields.present |= !only_all;
                        self.pieces(inner, true, mode, fields).await?;
                    }
                    WordPiece::EscapeSequence(text) => match text.strip_prefix('\\') {
                        Some("\n") => {}
                        Some(escaped) if quoted && !"$`\"\\".contains(escaped) => fields.quoted(text),
                        Some(escaped) => fields.quoted(escaped),
                        None => fields.quoted(text),
                    },
                    WordPiece::TildeExpansion(tilde) => {
                        let text = self.tilde(tilde);
                        fields.quoted(&text);
                    }
                    WordPiece::ParameterExpansion(expression) => {
                        self.parameter(expression, quoted, mode, fields).await?
                    }
                    WordPiece::CommandSubstitution(command) => {
                        let text = self.substitute_command(command).await?;
                        self.add(&text, quoted, mode, fields);
                    }
                    WordPiece::BackquotedCommandSubstitution(command) => {
                        let text = self.substitute_command(&command.replace("\\`", "`").replace("\\$", "$")).await?;
                        self.add(&text, quoted, mode, fields);
                    }
                    WordPiece::ArithmeticExpression(expression) => {
                        let value = self.arithmetic(&expression.value).await?.to_string();
                        self.add(&value, quoted, mode, fields);
                    }
                }
            }
            Ok(())
        })
    }

    /// Adds the value of an expansion.
    pub(super) fn add(&mut self, text: &str, quoted: bool, mode: Mode, fields: &mut Fields) {
        match (quoted, mode) {
            (true, _) => fields.quoted(text),
            (false, Mode::Text) => fields.literal(text),
            (false, Mode::Fields) => {
                let separators = self.shell.get("IFS").unwrap_or(" \t\n").to_string();
                fields.split(text, &separators);
            }
        }
    }

    fn tilde(&self, tilde: &TildeExpr) -> String {
        match tilde {
            TildeExpr::Home => self.shell.get("HOME").unwrap_or("/").to_string(),
            TildeExpr::UserHome(user) if user == "root" => "/root".to_string(),
            TildeExpr::UserHome(user) => format!("/home/{user}"),
            TildeExpr::OldWorkingDir => self.shell.get("OLDPWD").unwrap_or("~-").to_string(),
            _ => self.shell.cwd.clone(),
        }
    }

    /// `$(…)`: the output of a subshell, without the newlines at its end.
    async fn substitute_command(&mut self, command: &str) -> Result<String, String> {
        let program = syntax::parse(command, self.shell.bash).map_err(|error| match error {
            SyntaxError::TooDeep => error.to_string(),
            SyntaxError::Parser(_) => format!("syntax error in $({command})"),
        })?;
        let mut shell = self.shell.clone();
        shell.nesting += 1;
        if shell.nesting > NESTING_LIMIT {
            return Err(format!("maximum nesting level exceeded ({NESTING_LIMIT})"));
        }
        shell.interactive = false;
        let output = Capture::default();
        shell.descriptors.insert(1, Descriptor::Out(Output::new(output.clone())));
        let mut status = 0;
        shell.status = self.shell.status;
        for list in &program.complete_commands {
            status = interpreter::list_in_subshell(&mut shell, list).await;
            shell.status = status;
        }
        self.shell.substituted = Some(status);
        let output = output.take();
        // Bytes that a variable cannot hold are left out, as shells do.
        let text: String = String::from_utf8_lossy(&output).chars().filter(|character| *character != '\0').collect();
        Ok(text.trim_end_matches('\n').to_string())
    }

    /// `{a,b}` and `{1..3}`, which bash has and POSIX has not.
    fn braces(&self, word: &str) -> Result<Vec<String>, String> {
        if !self.shell.bash || !word.contains('{') {
            return Ok(vec![word.to_string()]);
        }
        match word::parse_brace_expansions(word, &parser_options(true)) {
            Ok(Some(parts)) => alternatives(&parts),
            _ => Ok(vec![word.to_string()]),
        }
    }

    /// The file names that a field matches, if it is a pattern and there are any; else the field itself.
    fn file_names(&self, field: String) -> Vec<String> {
        if self.shell.options.no_glob || !pattern::is_pattern(&field) {
            return vec![pattern::unescape(&field)];
        }
        let (mut found, rest) = match field.strip_prefix('/') {
            Some(rest) => (vec!["/".to_string()], rest),
            None => (vec![String::new()], field.as_str()),
        };
        for part in rest.split('/') {
            let mut next = Vec::new();
            for base in &found {
                let join = |name: &str| {
                    if base.is_empty() || base.ends_with('/') {
                        format!("{base}{name}")
                    } else {
                        format!("{base}/{name}")
                    }
                };
                if !pattern::is_pattern(part) {
                    let name = join(&pattern::unescape(part));
                    if self.shell.world.fs.symlink_metadata(&self.shell.path(&name)).is_ok() {
                        next.push(name);
                    }
                    continue;
                }
                let entries = self.shell.world.fs.list(&self.shell.path(base)).unwrap_or_default();
                let wanted =
                    |name: &str| pattern::matches(part, name) && (!name.starts_with('.') || part.starts_with('.'));
                next.extend(entries.iter().filter(|entry| wanted(&entry.name)).map(|entry| join(&entry.name)));
            }
            next.truncate(WORD_LIMIT);
            found = next;
        }
        match found.is_empty() {
            true => vec![pattern::unescape(&field)],
            false => found,
        }
    }
}

fn bad(text: &str) -> String {
    format!("syntax error: bad substitution in {text}")
}

fn is_all_positional(piece: &WordPiece) -> bool {
    use brush_parser::word::{Parameter, ParameterExpr, SpecialParameter};
    let all = Parameter::Special(SpecialParameter::AllPositionalParameters { concatenate: false });
    matches!(piece, WordPiece::ParameterExpansion(ParameterExpr::Parameter { parameter, .. })
        if parameter.to_string() == all.to_string())
}

/// `$'…'`.
fn ansi_c(text: &str) -> String {
    let pairs =
        [("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r"), ("\\e", "\u{1b}"), ("\\'", "'"), ("\\\"", "\""), ("\\\\", "\\")];
    let mut out = String::new();
    let mut rest = text;
    'text: while !rest.is_empty() {
        for (escape, meaning) in pairs {
            if let Some(after) = rest.strip_prefix(escape) {
                out += meaning;
                rest = after;
                continue 'text;
            }
        }
        let first = rest.chars().next().unwrap_or_default();
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

/// All texts that a brace expression stands for.
fn alternatives(parts: &[BraceExpressionOrText]) -> Result<Vec<String>, String> {
    let mut texts = vec![String::new()];
    for part in parts {
        let choices = match part {
            BraceExpressionOrText::Text(text) => vec![text.clone()],
            BraceExpressionOrText::Expr(members) => {
                let mut choices = Vec::new();
                for member in members {
                    choices.extend(member_texts(member)?);
                }
                choices
            }
        };
        if texts.len().saturating_mul(choices.len()) > WORD_LIMIT {
            return Err("brace expansion: too many words".to_string());
        }
        texts = texts.iter().flat_map(|text| choices.iter().map(move |choice| format!("{text}{choice}"))).collect();
    }
    Ok(texts)
}

fn member_texts(member: &BraceExpressionMember) -> Result<Vec<String>, String> {
    let too_many = || "brace expansion: too many words".to_string();
    match member {
        BraceExpressionMember::Child(parts) => alternatives(parts),
        BraceExpressionMember::NumberSequence { start, end, increment } => {
            let step = increment.unsigned_abs().max(1);
            let count = start.abs_diff(*end) / step;
            if count > WORD_LIMIT as u64 {
                return Err(too_many());
            }
            let step = i64::try_from(step).map_err(|_| too_many())? * if start <= end { 1 } else { -1 };
            Ok((0..=count as i64).map(|index| (start + index * step).to_string()).collect())
        }
        BraceExpressionMember::CharSequence { start, end, increment } => {
            let step = usize::try_from(increment.unsigned_abs().max(1)).map_err(|_| too_many())?;
            let texts = |characters: Vec<char>| characters.into_iter().step_by(step).map(String::from).collect();
            Ok(match start <= end {
                true => texts((*start..=*end).collect()),
                false => texts((*end..=*start).rev().collect()),
            })
        }
    }
}
