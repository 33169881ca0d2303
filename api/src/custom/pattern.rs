//! Regular expressions as Go's `regexp` reads them, for clients write patterns for Go.
//!
//! The dialects are near, but not the same: classes like `\d` are ASCII's only, a brace that begins no repetition is a
//! brace, brackets in a class are characters. What Go refuses is refused in its words (`regexp/syntax/parse.go`).

use regex::Regex;

/// The most that a counted repetition may ask for.
const MAX_REPEAT: u32 = 1000;

/// The longest pattern, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// The most classes of Unicode in a pattern: `regex` takes kilobytes for each before it bounds what they compile to.
const MAX_CLASSES: usize = 64;

/// Compiles a pattern of Go's; the error is Go's text.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_BYTES {
        return Err(format!("error parsing regexp: expression too large: more than {MAX_BYTES} bytes"));
    }
    let out = String::with_capacity(pattern.len());
    let mut reader = Reader { text: pattern, at: 0, out, depth: 0, classes: Vec::new() };
    let refusal = |(code, part): Refusal<'_>| format!("error parsing regexp: {code}: `{part}`");
    reader.read().map_err(refusal)?;
    Regex::new(&reader.out).map_err(|error| {
        // Compiling a class takes long enough that it is only done where one must be at fault.
        let unknown = reader.classes.iter().find(|class| Regex::new(class).is_err());
        match unknown {
            Some(class) => refusal(("invalid character class range", class)),
            None => error.to_string().lines().last().unwrap_or_default().to_owned(),
        }
    })
}

/// What is wrong, and with which part of the pattern.
type Refusal<'a> = (&'static str, &'a str);

struct Reader<'a> {
    text: &'a str,
    at: usize,
    out: String,
    depth: usize,
    /// The classes of Unicode that were met.
    classes: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn literal(&mut self, character: char) {
        self.out.push_str(&regex::escape(character.encode_utf8(&mut [0; 4])));
    }

    fn read(&mut self) -> Result<(), Refusal<'a>> {
        // Whether there is something to repeat, and where the repetition that stands last began.
        let (mut operand, mut repetition) = (false, None);
        while let Some(next) = self.peek() {
            let start = self.at;
            if let Some(operator) = self.repetition(next)? {
                if let Some(before) = repetition {
                    return Err(("invalid nested repetition operator", &self.text[before..self.at]));
                }
                if !operand {
                    return Err(("missing argument to repetition operator", operator));
                }
                repetition = Some(start);
                continue;
            }
            repetition = None;
            self.at = start + next.len_utf8();
            operand = true;
            match next {
                '(' => {
                    operand = false;
                    self.group(start)?;
                }
                ')' if self.depth == 0 => return Err(("unexpected )", self.text)),
                ')' => {
                    self.depth -= 1;
                    self.out.push(')');
                }
                '|' => {
                    operand = false;
                    self.out.push('|');
                }
                '[' => self.class(start)?,
                '\\' => self.escape(start, false).map(drop)?,
                '.' | '^' | '$' => self.out.push(next),
                other => self.literal(other),
            }
        }
        if self.depth > 0 { Err(("missing closing )", self.text)) } else { Ok(()) }
    }

    /// Reads `*`, `+`, `?` or `{2,3}`, lazy or not.
    fn repetition(&mut self, next: char) -> Result<Option<&'a str>, Refusal<'a>> {
        let start = self.at;
        match next {
            '*' | '+' | '?' => self.at += 1,
            '{' => match counted(&self.text[start..]) {
                Some((length, least, most)) => {
                    let part = &self.text[start..start + length];
                    if least > MAX_REPEAT || most.is_some_and(|most| most > MAX_REPEAT || most < least) {
                        return Err(("invalid repeat count", part));
                    }
                    self.at += length;
                }
                None => return Ok(None),
            },
            _ => return Ok(None),
        }
        if self.peek() == Some('?') {
            self.at += 1;
        }
        let part = &self.text[start..self.at];
        self.out.push_str(part);
        Ok(Some(part))
    }

    /// A group whose parenthesis is read.
    fn group(&mut self, start: usize) -> Result<(), Refusal<'a>> {
        let rest = &self.text[self.at..];
        if !rest.starts_with('?') {
            self.depth += 1;
            self.out.push('(');
            return Ok(());
        }
        if let Some(name) = rest.strip_prefix("?P<").or_else(|| rest.strip_prefix("?<")) {
            let Some((name, after)) = name.split_once('>') else {
                return Err(("invalid named capture", &self.text[start..]));
            };
            let end = self.text.len() - after.len();
            if name.is_empty() || !name.chars().all(|one| one == '_' || one.is_ascii_alphanumeric()) {
                return Err(("invalid named capture", &self.text[start..end]));
            }
            self.at = end;
            self.depth += 1;
            self.out.push_str(&format!("(?P<{name}>"));
            return Ok(());
        }
        self.at += 1;
        while let Some(next) = self.next() {
            match next {
                'i' | 'm' | 's' | 'U' | '-' => {}
                ':' => {
                    self.depth += 1;
                    break;
                }
                ')' => break,
                _ => return Err(("invalid or unsupported Perl syntax", &self.text[start..self.at])),
            }
        }
        self.out.push_str(&self.text[start..self.at]);
        Ok(())
    }

    /// A class whose bracket is read.
    fn class(&mut self, start: usize) -> Result<(), Refusal<'a>> {
        self.out.push('[');
        if self.peek() == Some('^') {
            self.at += 1;
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let from = self.at;
            let Some(next) = self.next() else { return Err(("missing closing ]", &self.text[start..])) };
            if next == ']' && !first {
                break;
            }
            first = false;
            if next == '['
                && self.peek() == Some(':')
                && let Some(end) = self.text[self.at..].find(":]")
            {
                self.at += end + 2;
                self.out.push_str(&self.text[from..self.at]);
                continue;
            }
            let Some(low) = self.class_character(next, from)? else { continue };
            let rest = &self.text[self.at..];
            if !rest.starts_with('-') || rest.starts_with("-]") || rest.len() == 1 {
                continue;
            }
            self.at += 1;
            self.out.push('-');
            let Some(next) = self.next() else { continue };
            let high = self.class_character(next, self.at - next.len_utf8())?;
            if high.is_none_or(|high| high < low) {
                return Err(("invalid character class range", &self.text[from..self.at]));
            }
        }
        self.out.push(']');
        Ok(())
    }

    /// One character of a class; `None` if it was a class of its own.
    fn class_character(&mut self, next: char, from: usize) -> Result<Option<char>, Refusal<'a>> {
        match next {
            '\\' => self.escape(from, true),
            '-' | '[' | ']' | '&' | '~' | '^' => {
                self.out.push('\\');
                self.out.push(next);
                Ok(Some(next))
            }
            other => {
                self.literal(other);
                Ok(Some(other))
            }
        }
    }

    /// What follows a backslash; the character it stands for, if it is one.
    fn escape(&mut self, start: usize, in_class: bool) -> Result<Option<char>, Refusal<'a>> {
        let Some(next) = self.next() else { return Err(("trailing backslash at end of expression", "")) };
        let (class, negated) = match next {
            'd' => ("0-9", false),
            'D' => ("0-9", true),
            's' => (r"\t\n\f\r ", false),
            'S' => (r"\t\n\f\r ", true),
            'w' => ("0-9A-Za-z_", false),
            'W' => ("0-9A-Za-z_", true),
            _ => return self.escaped(next, start, in_class),
        };
        match (in_class, negated) {
            (true, false) => self.out.push_str(class),
            (_, true) => self.out.push_str(&format!("[^{class}]")),
            (false, false) => self.out.push_str(&format!("[{class}]")),
        }
        Ok(None)
    }

    fn escaped(&mut self, next: char, start: usize, in_class: bool) -> Result<Option<char>, Refusal<'a>> {
        let known = |name: char| match name {
            'a' => Some('\u{7}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            _ => None,
        };
        let found = match next {
            'Q' if !in_class => {
                let rest = &self.text[self.at..];
                let end = rest.find("\\E").unwrap_or(rest.len());
                self.out.push_str(&regex::escape(&rest[..end]));
                self.at = (self.at + end + 2).min(self.text.len());
                return Ok(None);
            }
            'b' if !in_class => {
                self.out.push_str(r"(?-u:\b)");
                return Ok(None);
            }
            'A' | 'z' | 'B' if !in_class => {
                self.out.push_str(&self.text[start..self.at]);
                return Ok(None);
            }
            'p' | 'P' => {
                match self.peek() {
                    Some('{') => self.at += self.text[self.at..].find('}').map_or(1, |end| end + 1),
                    _ => drop(self.next()),
                }
                let part = &self.text[start..self.at];
                self.classes.push(part);
                if self.classes.len() > MAX_CLASSES {
                    return Err(("expression too large", part));
                }
                self.out.push_str(part);
                return Ok(None);
            }
            'x' => self.hexadecimal(),
            '0'..='7' => self.octal(next),
            other if known(other).is_some() => known(other),
            other if other.is_ascii() && !other.is_ascii_alphanumeric() => Some(other),
            _ => None,
        };
        let Some(found) = found else { return Err(("invalid escape sequence", &self.text[start..self.at])) };
        self.out.push_str(&format!(r"\x{{{:X}}}", u32::from(found)));
        Ok(Some(found))
    }

    fn hexadecimal(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        let (digits, length) = match rest.strip_prefix('{') {
            Some(braced) => braced.split_once('}').map(|(digits, _)| (digits, digits.len() + 2))?,
            None => (rest.get(..2)?, 2),
        };
        self.at += length;
        u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)
    }

    /// One digit that is not zero would be a reference to a group, which Go has not.
    fn octal(&mut self, first: char) -> Option<char> {
        let digit = |one: char| one.to_digit(8);
        if first != '0' && self.peek().and_then(digit).is_none() {
            return None;
        }
        let mut number = digit(first)?;
        for _ in 0..2 {
            let Some(next) = self.peek().and_then(digit) else { break };
            self.at += 1;
            number = number * 8 + next;
        }
        char::from_u32(number)
    }
}

/// The length and the bounds of `{2}`, `{2,}` or `{2,3}` at the beginning of a text.
fn counted(text: &str) -> Option<(usize, u32, Option<u32>)> {
    let inside = text.strip_prefix('{')?;
    let (inside, after) = inside.split_at(inside.find(|one: char| !one.is_ascii_digit() && one != ',')?);
    if !after.starts_with('}') {
        return None;
    }
    let number = |digits: &str| -> Option<u32> {
        let fits = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        fits.then(|| digits.parse().unwrap_or(u32::MAX))
    };
    let (least, most) = match inside.split_once(',') {
        None => (number(inside)?, Some(number(inside)?)),
        Some((least, "")) => (number(least)?, None),
        Some((least, most)) => (number(least)?, Some(number(most)?)),
    };
    Some((inside.len() + 2, least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(pattern: &str, words: &str) {
        assert_eq!(compile(pattern).err().as_deref(), Some(format!("error parsing regexp: {words}").as_str()));
    }

    #[track_caller]
    fn matches(pattern: &str, yes: &[&str], no: &[&str]) {
        let compiled = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        yes.iter().for_each(|text| assert!(compiled.is_match(text), "{pattern} {text}"));
        no.iter().for_each(|text| assert!(!compiled.is_match(text), "{pattern} {text}"));
    }

    #[test]
    fn refusals_are_gos() {
        refused("[", "missing closing ]: `[`");
        refused("(?=a)", "invalid or unsupported Perl syntax: `(?=`");
        refused("a{2,1}", "invalid repeat count: `{2,1}`");
        refused("*", "missing argument to repetition operator: `*`");
        refused("a**", "invalid nested repetition operator: `**`");
        refused("(a", "missing closing ): `(a`");
        refused("a)", "unexpected ): `a)`");
        refused(r"a\pL\p{Nope}", r"invalid character class range: `\p{Nope}`");
        refused("[z-a]", "invalid character class range: `z-a`");
        refused(r"(a)\1", r"invalid escape sequence: `\1`");
        refused(r"a\", "trailing backslash at end of expression: ``");
    }

    #[test]
    fn a_long_pattern_is_refused_before_it_is_read() {
        let words = compile(&"{".repeat(3 << 20)).expect_err("too long");
        assert_eq!(words, "error parsing regexp: expression too large: more than 65536 bytes");
        compile(&"{".repeat(MAX_BYTES)).expect("as long as it may be");
        compile(&r"\pL".repeat(MAX_CLASSES)).expect("as many classes as there may be");
        refused(&r"\pL".repeat(MAX_CLASSES + 1), r"expression too large: `\pL`");
    }

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        matches(r"^\d+$", &["12"], &["١٢"]);
        matches("^{a}$", &["{a}"], &["a"]);
        matches("^[[a-]+$", &["[-a"], &["]"]);
        matches(r"^[^\W_]+$", &["a1"], &["_", "-"]);
        matches(r"^\Qa.b\E+$", &["a.bb"], &["acb"]);
        matches(r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z]{2,3}?)*)$", &["a-b.cd"], &["-a"]);
        matches(r"(?i)^x\x41\.\_\<$", &["XA._<"], &["XB._<"]);
        matches(r"^[&&~~]+$", &["&~"], &["a"]);
    }
}
