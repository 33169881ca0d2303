//! What is wrong with a JSON text, in the words of Go's `encoding/json` scanner.
//!
//! Only looked at once serde_json has refused the text: kubectl users know these sentences.

use crate::status::go_quote;

/// How deep Go lets arrays and objects nest.
const GO_MAX_DEPTH: usize = 10_000;

/// Go's sentence about the first fault in `text`; `None` where there is none.
pub fn syntax_error(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, at: 0, nested: Vec::new() };
    scanner.document().err()
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// The objects (`{`) and arrays (`[`) that are open.
    nested: Vec<u8>,
}

type Scanned = Result<(), String>;

impl Scanner<'_> {
    fn document(&mut self) -> Scanned {
        self.value_start()?;
        loop {
            // A value has just ended.
            self.space();
            let Some(open) = self.nested.last().copied() else {
                return match self.text.get(self.at) {
                    None => Ok(()),
                    Some(_) => self.invalid("after top-level value"),
                };
            };
            match (open, self.next()?) {
                (b'{', b',') => {
                    self.at += 1;
                    self.space();
                    self.member()?;
                }
                (b'[', b',') => {
                    self.at += 1;
                    self.value_start()?;
                }
                (b'{', b'}') | (b'[', b']') => {
                    self.at += 1;
                    self.nested.pop();
                }
                (b'{', _) => return self.invalid("after object key:value pair"),
                _ => return self.invalid("after array element"),
            }
        }
    }

    /// Up to the end of a scalar or an empty container, or into the first scalar of nested ones.
    fn value_start(&mut self) -> Scanned {
        loop {
            self.space();
            match self.next()? {
                open @ (b'{' | b'[') => {
                    if self.nested.len() >= GO_MAX_DEPTH {
                        return self.invalid("exceeded max depth");
                    }
                    self.nested.push(open);
                    self.at += 1;
                    self.space();
                    match (open, self.next()?) {
                        (b'{', b'}') | (b'[', b']') => {
                            self.at += 1;
                            self.nested.pop();
                            return Ok(());
                        }
                        (b'{', _) => {
                            self.key()?;
                        }
                        _ => {}
                    }
                }
                b'"' => return self.string(),
                b't' => return self.literal("true"),
                b'f' => return self.literal("false"),
                b'n' => return self.literal("null"),
                b'-' | b'0'..=b'9' => return self.number(),
                _ => return self.invalid("looking for beginning of value"),
            }
        }
    }

    fn member(&mut self) -> Scanned {
        self.key()?;
        self.value_start()
    }

    fn key(&mut self) -> Scanned {
        if self.next()? != b'"' {
            return self.invalid("looking for beginning of object key string");
        }
        self.string()?;
        self.space();
        if self.next()? != b':' {
            return self.invalid("after object key");
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Scanned {
        self.at += 1;
        loop {
            match self.next()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    match self.next()? {
                        b'u' => {
                            for _ in 0..4 {
                                self.at += 1;
                                if !self.next()?.is_ascii_hexdigit() {
                                    return self.invalid("in \\u hexadecimal character escape");
                                }
                            }
                        }
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                        _ => return self.invalid("in string escape code"),
                    }
                }
                c if c < 0x20 => return self.invalid("in string literal"),
                _ => {}
            }
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Scanned {
        for expected in word.bytes() {
            if self.next()? != expected {
                return self.invalid(&format!("in literal {word} (expecting '{}')", expected as char));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Scanned {
        if self.text[self.at] == b'-' {
            self.at += 1;
        }
        match self.next()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            _ => return self.invalid("in numeric literal"),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            if !self.next()?.is_ascii_digit() {
                return self.invalid("after decimal point in numeric literal");
            }
            self.digits();
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.next()?, b'+' | b'-') {
                self.at += 1;
            }
            if !self.next()?.is_ascii_digit() {
                return self.invalid("in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn next(&self) -> Result<u8, String> {
        self.text.get(self.at).copied().ok_or_else(|| "unexpected end of JSON input".to_owned())
    }

    /// Go shows the byte as the character of that number.
    fn invalid(&self, context: &str) -> Scanned {
        let shown = match self.text[self.at] {
            b'\'' => r"'\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            byte => format!("'{}'", go_quote(&(byte as char).to_string()).trim_matches('"')),
        };
        Err(format!("invalid character {shown} {context}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_worded_as_go_words_them() {
        for (text, expected) in [
            (&b"{\"apiVersion\": \"v1\", "[..], "unexpected end of JSON input"),
            (b"", "unexpected end of JSON input"),
            (b"{\"a\": }", "invalid character '}' looking for beginning of value"),
            (b"{a: 1}", "invalid character 'a' looking for beginning of object key string"),
            (b"{\"a\" 1}", "invalid character '1' after object key"),
            (b"{\"a\": 1 2}", "invalid character '2' after object key:value pair"),
            (b"[1 2]", "invalid character '2' after array element"),
            (b"{} x", "invalid character 'x' after top-level value"),
            (b"\"\n\"", "invalid character '\\n' in string literal"),
            (b"\"\\q\"", "invalid character 'q' in string escape code"),
            (b"\"\\u12g4\"", "invalid character 'g' in \\u hexadecimal character escape"),
            (b"trux", "invalid character 'x' in literal true (expecting 'e')"),
            (b"-x", "invalid character 'x' in numeric literal"),
            (b"1.x", "invalid character 'x' after decimal point in numeric literal"),
            (b"1ex", "invalid character 'x' in exponent of numeric literal"),
            (b"\xcf", "invalid character '\u{cf}' looking for beginning of value"),
            (b"{\"a\": [1, {\"b\": null}, ]}", "invalid character ']' looking for beginning of value"),
        ] {
            assert_eq!(syntax_error(text).as_deref(), Some(expected), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_is_json_has_no_fault() {
        for text in [&b"{}"[..], b" [1, -2.5e+3, true, null, {\"a\": [], \"b\": {\"c\": \"\\u00e9\\n\"}}] "] {
            assert_eq!(syntax_error(text), None);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(GO_MAX_DEPTH + 1);
        assert_eq!(syntax_error(deep.as_bytes()).unwrap(), "invalid character '[' exceeded max depth");
    }
}
