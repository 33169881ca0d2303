//! `$x`, `${x:-y}`, `${x##*/}` and all their kin.

use super::Running;
use super::expand::{Fields, Mode};
use crate::pattern;
use brush_parser::ast::UnexpandedArithmeticExpr;
use brush_parser::word::{Parameter, ParameterExpr, ParameterTestType, SpecialParameter, SubstringMatchKind};

/// The value of a parameter.
enum Value {
    Unset,
    One(String),
    /// The positional parameters, and whether they are one text (`$*`).
    All(Vec<String>, bool),
}

impl Running<'_> {
    /// Expands one parameter expression into fields.
    pub(super) async fn parameter(
        &mut self,
        expression: &ParameterExpr,
        quoted: bool,
        mode: Mode,
        fields: &mut Fields,
    ) -> Result<(), String> {
        match expression {
            ParameterExpr::Parameter { parameter, indirect } => {
                let value = self.value(parameter, *indirect)?;
                self.put(parameter, value, quoted, mode, fields)
            }
            ParameterExpr::UseDefaultValues { parameter, indirect, test_type, default_value } => {
                match self.tested(parameter, *indirect, test_type)? {
                    Some(value) => self.put(parameter, value, quoted, mode, fields),
                    None => self.alternative(default_value.as_deref(), quoted, mode, fields).await,
                }
            }
            ParameterExpr::UseAlternativeValue { parameter, indirect, test_type, alternative_value } => {
                match self.tested(parameter, *indirect, test_type)? {
                    Some(_) => self.alternative(alternative_value.as_deref(), quoted, mode, fields).await,
                    None => Ok(()),
                }
            }
            ParameterExpr::AssignDefaultValues { parameter, indirect, test_type, default_value } => {
                if let Some(value) = self.tested(parameter, *indirect, test_type)? {
                    return self.put(parameter, value, quoted, mode, fields);
                }
                let value = self.text(default_value.as_deref().unwrap_or_default()).await?;
                let Parameter::Named(name) = parameter else {
                    return Err(format!("{parameter}: cannot assign in this way"));
                };
                self.shell.set(name, value.clone())?;
                self.add(&value, quoted, mode, fields);
                Ok(())
            }
            ParameterExpr::IndicateErrorIfNullOrUnset { parameter, indirect, test_type, error_message } => {
                match self.tested(parameter, *indirect, test_type)? {
                    Some(value) => self.put(parameter, value, quoted, mode, fields),
                    None => {
                        let message = self.text(error_message.as_deref().unwrap_or("parameter not set")).await?;
                        Err(format!("{}: {message}", plain_name(parameter)))
                    }
                }
            }
            other => {
                let text = self.transformed(other).await?;
                self.add(&text, quoted, mode, fields);
                Ok(())
            }
        }
    }

    /// The expressions that make another text of the value.
    async fn transformed(&mut self, expression: &ParameterExpr) -> Result<String, String> {
        match expression {
            ParameterExpr::ParameterLength { parameter, indirect } => match self.value(parameter, *indirect)? {
                Value::All(values, _) => Ok(values.len().to_string()),
                value => Ok(joined(value).chars().count().to_string()),
            },
            ParameterExpr::RemoveSmallestPrefixPattern { parameter, indirect, pattern } => {
                self.trimmed(parameter, *indirect, pattern.as_deref(), |text, wanted| {
                    prefixes(text).find(|at| pattern::matches(wanted, &text[..*at])).map(|at| text[at..].to_string())
                })
                .await
            }
            ParameterExpr::RemoveLargestPrefixPattern { parameter, indirect, pattern } => {
                self.trimmed(parameter, *indirect, pattern.as_deref(), |text, wanted| {
                    let at = prefixes(text)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .rev()
                        .find(|at| pattern::matches(wanted, &text[..*at]));
                    at.map(|at| text[at..].to_string())
                })
                .await
            }
            ParameterExpr::RemoveSmallestSuffixPattern { parameter, indirect, pattern } => {
                self.trimmed(parameter, *indirect, pattern.as_deref(), |text, wanted| {
                    let at = prefixes(text)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .rev()
                        .find(|at| pattern::matches(wanted, &text[*at..]));
                    at.map(|at| text[..at].to_string())
                })
                .await
            }
            ParameterExpr::RemoveLargestSuffixPattern { parameter, indirect, pattern } => {
                self.trimmed(parameter, *indirect, pattern.as_deref(), |text, wanted| {
                    prefixes(text).find(|at| pattern::matches(wanted, &text[*at..])).map(|at| text[..at].to_string())
                })
                .await
            }
            ParameterExpr::Substring { parameter, indirect, offset, length } => {
                let text = joined(self.value(parameter, *indirect)?);
                self.substring(&text, offset, length.as_ref()).await
            }
            ParameterExpr::ReplaceSubstring { parameter, indirect, pattern, replacement, match_kind } => {
                let text = joined(self.value(parameter, *indirect)?);
                let wanted = self.pattern(pattern).await?;
                let replacement = self.text(replacement.as_deref().unwrap_or_default()).await?;
                Ok(replaced(&text, &wanted, &replacement, match_kind))
            }
            ParameterExpr::UppercasePattern { parameter, indirect, .. } => {
                Ok(joined(self.value(parameter, *indirect)?).to_uppercase())
            }
            ParameterExpr::LowercasePattern { parameter, indirect, .. } => {
                Ok(joined(self.value(parameter, *indirect)?).to_lowercase())
            }
            ParameterExpr::UppercaseFirstChar { parameter, indirect, .. } => {
                let text = joined(self.value(parameter, *indirect)?);
                let mut characters = text.chars();
                let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
                Ok(first + characters.as_str())
            }
            _ => Err("bad substitution: not supported by the simulated shell".to_string()),
        }
    }

    async fn trimmed(
        &mut self,
        parameter: &Parameter,
        indirect: bool,
        wanted: Option<&str>,
        trim: impl Fn(&str, &str) -> Option<String>,
    ) -> Result<String, String> {
        let text = joined(self.value(parameter, indirect)?);
        let wanted = self.pattern(wanted.unwrap_or_default()).await?;
        Ok(trim(&text, &wanted).unwrap_or(text))
    }

    async fn substring(
        &mut self,
        text: &str,
        offset: &UnexpandedArithmeticExpr,
        length: Option<&UnexpandedArithmeticExpr>,
    ) -> Result<String, String> {
        let characters: Vec<char> = text.chars().collect();
        let total = characters.len() as i64;
        let from_end = |at: i64| if at < 0 { (total + at).max(0) } else { at.min(total) };
        let start = from_end(self.arithmetic(&offset.value).await?);
        let end = match length {
            None => total,
            Some(length) => match self.arithmetic(&length.value).await? {
                negative @ ..0 => (total + negative).max(start),
                length => start.saturating_add(length).min(total),
            },
        };
        Ok(characters[start as usize..end as usize].iter().collect())
    }

    /// The value, unless the test finds that there is none.
    fn tested(&self, parameter: &Parameter, indirect: bool, test: &ParameterTestType) -> Result<Option<Value>, String> {
        let value = self.lookup(parameter, indirect)?;
        let empty = match &value {
            Value::Unset => true,
            Value::One(text) => text.is_empty() && matches!(test, ParameterTestType::UnsetOrNull),
            Value::All(values, _) => values.is_empty(),
        };
        Ok(Some(value).filter(|_| !empty))
    }

    async fn alternative(
        &mut self,
        word: Option<&str>,
        quoted: bool,
        mode: Mode,
        fields: &mut Fields,
    ) -> Result<(), String> {
        let Some(word) = word else { return Ok(()) };
        if quoted || mode == Mode::Text {
            let text = self.text(word).await?;
            self.add(&text, true, mode, fields);
            return Ok(());
        }
        self.expand(word, mode, fields).await
    }

    fn put(
        &mut self,
        parameter: &Parameter,
        value: Value,
        quoted: bool,
        mode: Mode,
        fields: &mut Fields,
    ) -> Result<(), String> {
        match value {
            Value::Unset if self.shell.options.unset_is_error => {
                Err(format!("{}: parameter not set", plain_name(parameter)))
            }
            Value::Unset => Ok(()),
            Value::One(text) => {
                self.add(&text, quoted, mode, fields);
                Ok(())
            }
            Value::All(values, concatenate) => {
                if (quoted && concatenate) || mode == Mode::Text {
                    self.add(&values.join(" "), quoted, mode, fields);
                    return Ok(());
                }
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        fields.end();
                    }
                    self.add(value, quoted, mode, fields);
                }
                Ok(())
            }
        }
    }

    /// The value, which `set -u` wants to be there.
    fn value(&self, parameter: &Parameter, indirect: bool) -> Result<Value, String> {
        match self.lookup(parameter, indirect)? {
            Value::Unset if self.shell.options.unset_is_error => {
                Err(format!("{}: parameter not set", plain_name(parameter)))
            }
            value => Ok(value),
        }
    }

    fn lookup(&self, parameter: &Parameter, indirect: bool) -> Result<Value, String> {
        let shell = &self.shell;
        let of = |value: Option<String>| value.map_or(Value::Unset, Value::One);
        let value = match parameter {
            Parameter::Positional(0) => Value::One(shell.name.clone()),
            Parameter::Positional(number) => of(shell.positional.get(*number as usize - 1).cloned()),
            Parameter::Named(name) => match (name.as_str(), shell.get(name)) {
                (_, Some(value)) => Value::One(value.to_string()),
                ("PWD", None) => Value::One(shell.cwd.clone()),
                ("PPID", None) => Value::One("0".to_string()),
                ("RANDOM", None) => Value::One(shell.world.random.below(32768).to_string()),
                ("SECONDS", None) => Value::One(shell.world.clock.monotonic().as_secs().to_string()),
                ("BASH_VERSION", None) if shell.bash => Value::One("5.2.37(1)-release".to_string()),
                _ => Value::Unset,
            },
            Parameter::Special(special) => match special {
                SpecialParameter::AllPositionalParameters { concatenate } => {
                    Value::All(shell.positional.clone(), *concatenate)
                }
                SpecialParameter::PositionalParameterCount => Value::One(shell.positional.len().to_string()),
                SpecialParameter::LastExitStatus => Value::One(shell.status.to_string()),
                SpecialParameter::ProcessId => Value::One(shell.pid.to_string()),
                SpecialParameter::LastBackgroundProcessId => of(shell.last_background.map(|pid| pid.to_string())),
                SpecialParameter::ShellName => Value::One(shell.name.clone()),
                SpecialParameter::CurrentOptionFlags => {
                    Value::One(if shell.interactive { "i" } else { "" }.to_string())
                }
            },
            Parameter::NamedWithIndex { .. } | Parameter::NamedWithAllIndices { .. } => {
                return Err("arrays are not supported by the simulated shell".to_string());
            }
        };
        match (indirect, value) {
            (true, Value::One(name)) => Ok(of(shell.get(&name).map(str::to_string))),
            (_, value) => Ok(value),
        }
    }
}

fn plain_name(parameter: &Parameter) -> String {
    match parameter {
        Parameter::Named(name) => name.clone(),
        Parameter::Positional(number) => number.to_string(),
        other => other.to_string(),
    }
}

fn joined(value: Value) -> String {
    match value {
        Value::Unset => String::new(),
        Value::One(text) => text,
        Value::All(values, _) => values.join(" "),
    }
}

/// Where a text may be cut, from the start to the end.
fn prefixes(text: &str) -> impl Iterator<Item = usize> {
    text.char_indices().map(|(at, _)| at).chain(std::iter::once(text.len()))
}

/// The longest match of a pattern that begins at a place.
fn match_at(text: &str, start: usize, wanted: &str) -> Option<usize> {
    let ends: Vec<usize> = prefixes(text).filter(|end| *end > start).collect();
    ends.into_iter().rev().find(|end| pattern::matches(wanted, &text[start..*end]))
}

fn replaced(text: &str, wanted: &str, replacement: &str, kind: &SubstringMatchKind) -> String {
    if let SubstringMatchKind::Suffix = kind {
        let at = prefixes(text).find(|at| pattern::matches(wanted, &text[*at..]));
        return at.map_or_else(|| text.to_string(), |at| format!("{}{replacement}", &text[..at]));
    }
    let mut out = String::new();
    let mut at = 0;
    let mut found = false;
    while at < text.len() {
        let only_first = !matches!(kind, SubstringMatchKind::Anywhere) && found;
        let only_start = matches!(kind, SubstringMatchKind::Prefix) && at > 0;
        match match_at(text, at, wanted).filter(|_| !only_first && !only_start) {
            Some(end) => {
                out += replacement;
                at = end;
                found = true;
            }
            None => {
                let character = text[at..].chars().next().unwrap_or_default();
                out.push(character);
                at += character.len_utf8();
            }
        }
    }
    out
}
