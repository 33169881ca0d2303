//! The string grammar of label selectors (apimachinery `pkg/labels/selector.go`, `Lexer` and `Parser`).
//!
//! ```text
//! selector    = [ requirement { "," requirement } ]
//! requirement = [ "!" ] key | key ("in" | "notin") "(" values ")" | key ("=" | "==" | "!=" | "<" | ">") [ value ]
//! values      = [ value ] { "," [ value ] }
//! ```
//! `in` and `notin` are operators only after a key: elsewhere they are ordinary names.

use super::SelectorError;
use super::label::{Operator, Requirement};
use crate::strategy::names::qualified_name;

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    End,
    Identifier,
    OpenParen,
    ClosedParen,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    GreaterThan,
    LessThan,
}

/// Where a token stands: `in` and `notin` are values among values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    KeyAndOperator,
    Values,
}

pub(super) fn parse(selector: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(selector), position: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.look_ahead() {
            (Token::Identifier | Token::Not, _) => {
                let requirement =
                    parser.requirement().map_err(|e| syntax(format!("unable to parse requirement: {e}")))?;
                requirements.push(requirement);
                match parser.consume(Context::Values) {
                    (Token::End, _) => return Ok(requirements),
                    (Token::Comma, _) => match parser.look_ahead() {
                        (Token::Identifier | Token::Not, _) => {}
                        (_, found) => {
                            return Err(syntax(format!("found '{found}', expected: identifier after ','")));
                        }
                    },
                    (_, found) => {
                        return Err(syntax(format!("found '{found}', expected: ',' or 'end of string'")));
                    }
                }
            }
            (Token::End, _) => return Ok(requirements),
            (_, found) => {
                return Err(syntax(format!("found '{found}', expected: !, identifier, or 'end of string'")));
            }
        }
    }
}

fn syntax(message: impl Into<String>) -> SelectorError {
    SelectorError::Syntax(message.into())
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn tokens(selector: &str) -> Vec<(Token, &str)> {
    let mut tokens = Vec::new();
    let mut rest = selector.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let (token, length) = if is_special(first) {
            match (first, rest[1..].starts_with('=')) {
                ('=', true) => (Token::DoubleEquals, 2),
                ('!', true) => (Token::NotEquals, 2),
                ('=', false) => (Token::Equals, 1),
                ('!', false) => (Token::Not, 1),
                ('(', _) => (Token::OpenParen, 1),
                (')', _) => (Token::ClosedParen, 1),
                (',', _) => (Token::Comma, 1),
                ('>', _) => (Token::GreaterThan, 1),
                _ => (Token::LessThan, 1),
            }
        } else {
            let length = rest.find(|c| is_space(c) || is_special(c)).unwrap_or(rest.len());
            match &rest[..length] {
                "in" => (Token::In, length),
                "notin" => (Token::NotIn, length),
                _ => (Token::Identifier, length),
            }
        };
        tokens.push((token, &rest[..length]));
        rest = rest[length..].trim_start_matches(is_space);
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    position: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self, context: Context) -> (Token, &'a str) {
        match self.tokens.get(self.position).copied().unwrap_or((Token::End, "")) {
            (Token::In | Token::NotIn, literal) if context == Context::Values => (Token::Identifier, literal),
            token => token,
        }
    }

    fn look_ahead(&self) -> (Token, &'a str) {
        self.peek(Context::Values)
    }

    fn consume(&mut self, context: Context) -> (Token, &'a str) {
        let token = self.peek(context);
        self.position += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut key) = self.consume(Context::Values);
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.consume(Context::Values);
        }
        if token != Token::Identifier {
            return Err(syntax(format!("found '{key}', expected: identifier")));
        }
        let problems = qualified_name(key);
        if !problems.is_empty() {
            // `<nil>` is how Go prints the missing path of a selector that no field holds.
            return Err(syntax(format!("<nil>: Invalid value: {key:?}: {}", problems.join("; "))));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.look_ahead(), (Token::End | Token::Comma, _)) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        match self.consume(Context::KeyAndOperator) {
            (Token::In, _) => Ok(Operator::In),
            (Token::NotIn, _) => Ok(Operator::NotIn),
            (Token::Equals, _) => Ok(Operator::Equals),
            (Token::DoubleEquals, _) => Ok(Operator::DoubleEquals),
            (Token::NotEquals, _) => Ok(Operator::NotEquals),
            (Token::GreaterThan, _) => Ok(Operator::GreaterThan),
            (Token::LessThan, _) => Ok(Operator::LessThan),
            (_, found) => Err(syntax(format!("found '{found}', expected: {OPERATORS}"))),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.consume(Context::Values) {
            (Token::OpenParen, _) => {}
            (_, found) => return Err(syntax(format!("found '{found}' expected: '('"))),
        }
        match self.look_ahead() {
            (Token::Identifier | Token::Comma, _) => self.identifiers(),
            (Token::ClosedParen, _) => {
                // As Go's parser reads it: the set of the empty value.
                self.consume(Context::Values);
                Ok(vec![String::new()])
            }
            (_, found) => Err(syntax(format!("found '{found}', expected: ',', ')' or identifier"))),
        }
    }

    /// The values up to and with the closing parenthesis. An empty place, as in `(,a)` or `(a,)`, is the empty value.
    fn identifiers(&mut self) -> Result<Vec<String>, SelectorError> {
        let mut values = Vec::new();
        loop {
            match self.consume(Context::Values) {
                (Token::Identifier, value) => {
                    values.push(value.to_owned());
                    match self.look_ahead() {
                        (Token::Comma, _) => {}
                        (Token::ClosedParen, _) => break,
                        (_, found) => {
                            return Err(syntax(format!("found '{found}', expected: ',' or ')'")));
                        }
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.look_ahead() {
                        (Token::ClosedParen, _) => {
                            values.push(String::new());
                            break;
                        }
                        (Token::Comma, _) => {
                            self.consume(Context::Values);
                            values.push(String::new());
                        }
                        _ => {}
                    }
                }
                (_, found) => {
                    return Err(syntax(format!("found '{found}', expected: ',', or identifier")));
                }
            }
        }
        self.consume(Context::Values);
        Ok(values)
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.look_ahead(), (Token::End | Token::Comma, _)) {
            return Ok(String::new());
        }
        match self.consume(Context::Values) {
            (Token::Identifier, value) => Ok(value.to_owned()),
            (_, found) => Err(syntax(format!("found '{found}', expected: identifier"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::selector::LabelSelector;

    fn check(selector: &str, expect: &str) {
        let got = LabelSelector::parse(selector).map_or_else(|e| format!("error: {e}"), |s| s.to_string());
        assert_eq!(got, expect, "{selector}");
    }

    #[test]
    fn canonical_form() {
        check("", "");
        check("  ", "");
        check("x=a,y=b,z=c", "x=a,y=b,z=c");
        check("z==1, a != 2", "a!=2,z==1");
        check("x in (b,a,b)", "x in (a,b)");
        check("x notin()", "x notin ()");
        check("x in (,)", "x in ()");
        check("x in (a,,b)", "x in (,a,b)");
        check("in in (in,notin)", "in in (in,notin)");
        check("x,!y", "x,!y");
        check("x=", "x=");
        check("x=,y", "x=,y");
        check("x > 1,y<2", "x>1,y<2");
        check("a.example.com/b in (c)", "a.example.com/b in (c)");
    }

    #[test]
    fn errors() {
        check("a===b", "error: unable to parse requirement: found '=', expected: identifier");
        check("=a", "error: found '=', expected: !, identifier, or 'end of string'");
        check("a,", "error: found '', expected: identifier after ','");
        check("a b", "error: unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt");
        check("!a=b", "error: found '=', expected: ',' or 'end of string'");
        check("!", "error: unable to parse requirement: found '', expected: identifier");
        check("a in b", "error: unable to parse requirement: found 'b' expected: '('");
        check("a in (b", "error: unable to parse requirement: found '', expected: ',' or ')'");
        check("a in (=", "error: unable to parse requirement: found '=', expected: ',', ')' or identifier");
        check("a in (b,(", "error: unable to parse requirement: found '(', expected: ',', or identifier");
        check(
            "a>b",
            "error: unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
        );
        check(
            "a/b/c=d",
            "error: unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        );
        check(
            "a=-",
            "error: unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        );
    }

    #[test]
    fn the_canonical_form_parses_to_itself() {
        for selector in ["x in (,a,b),y notin (c),!z,w", "a=b,c==d,e!=f,g>1,h<2"] {
            let once = LabelSelector::parse(selector).unwrap();
            assert_eq!(LabelSelector::parse(&once.to_string()).unwrap(), once);
        }
    }
}
