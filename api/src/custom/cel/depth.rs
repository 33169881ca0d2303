//! How deep an expression is, and room on the stack for it: a chain of operators or fields is a tree as deep as it is long,
//! and whoever may write a rule must not be able to end the process that reads it.

/// How deep an expression may be (`maxRecursionDepth` of cel-go's parser).
pub(super) const DEPTH_LIMIT: usize = 250;

/// What those who follow a tree use for a level of its source, twice over: in a debug build 160 KiB for a loop within a
/// loop, which pays as it goes.
const LEVEL_BYTES: usize = if cfg!(debug_assertions) { 320 << 10 } else { 96 << 10 };
/// What they use besides.
const BASE_BYTES: usize = 128 << 10;

/// Calls `follow` with room on the stack for an expression of so many levels.
pub(super) fn with_room<T>(levels: usize, follow: impl FnOnce() -> T) -> T {
    let needed = BASE_BYTES + levels * LEVEL_BYTES;
    stacker::maybe_grow(needed, needed, follow)
}

/// How many levels an expression has: the longest way from its whole to a name or literal, over operators, members, calls
/// and brackets. `&&` and `||` are balanced and do not count. Of what is no expression it says no less than a parser finds.
pub(super) fn of(source: &str) -> usize {
    let mut text = Text(source.as_bytes());
    let (mut level, mut outside) = (Level::default(), Vec::new());
    while let Some(sign) = text.next() {
        match sign {
            Sign::Open => outside.push(std::mem::take(&mut level)),
            Sign::Close => match outside.pop() {
                Some(outer) => level = level.close(outer),
                // What nothing opened is the parser's to tell.
                None => level.end_item(),
            },
            Sign::Separator => level.end_item(),
            Sign::Member => level.members += 1,
            Sign::Arithmetic => level.end_term(true),
            Sign::Relation => level.end_relation(true),
            Sign::Logic => level.end_condition(),
            Sign::Choice => level.end_choice(),
        }
    }
    outside.into_iter().rfold(level, Level::close).depth()
}

/// What stands between two brackets, up to where it was read. Each number counts what a tree has above the operands of one
/// kind of operator; what goes with it is the deepest of these operands.
#[derive(Default)]
struct Level {
    members: usize,
    inner: usize,
    arithmetic: usize,
    term: usize,
    relations: usize,
    operand: usize,
    choices: usize,
    condition: usize,
    item: usize,
}

impl Level {
    fn end_term(&mut self, more: bool) {
        let ended = std::mem::take(&mut self.members) + std::mem::take(&mut self.inner);
        self.term = self.term.max(ended);
        self.arithmetic += usize::from(more);
    }

    fn end_relation(&mut self, more: bool) {
        self.end_term(false);
        let ended = std::mem::take(&mut self.arithmetic) + std::mem::take(&mut self.term);
        self.operand = self.operand.max(ended);
        self.relations += usize::from(more);
    }

    fn end_condition(&mut self) {
        self.end_relation(false);
        let ended = std::mem::take(&mut self.relations) + std::mem::take(&mut self.operand);
        self.condition = self.condition.max(ended);
    }

    fn end_choice(&mut self) {
        self.end_condition();
        self.choices += 1;
    }

    fn end_item(&mut self) {
        self.end_condition();
        let ended = std::mem::take(&mut self.choices) + std::mem::take(&mut self.condition);
        self.item = self.item.max(ended);
    }

    /// What stands around it, when its bracket closes.
    fn close(self, mut outer: Level) -> Level {
        outer.inner = outer.inner.max(self.depth());
        outer.members += 1;
        outer
    }

    fn depth(mut self) -> usize {
        self.end_item();
        self.item
    }
}

/// What makes a tree deeper, or begins another branch of it.
#[derive(Clone, Copy)]
enum Sign {
    Open,
    Close,
    Member,
    Arithmetic,
    Relation,
    Logic,
    Choice,
    Separator,
}

/// What is not read yet.
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn next(&mut self) -> Option<Sign> {
        loop {
            let (first, rest) = self.0.split_first()?;
            let second = rest.first().copied().unwrap_or_default();
            let (length, sign) = match (*first, second) {
                // What CEL's lexer does not take for a literal is read on behind the quote, as it does.
                (b'"' | b'\'', _) => (quoted(self.0, false).unwrap_or(1), None),
                (b'`', _) => (escaped_name(self.0).unwrap_or(1), None),
                (b'/', b'/') => (self.0.iter().take_while(|byte| **byte != b'\n').count(), None),
                (letter, _) if letter.is_ascii_alphanumeric() || letter == b'_' => self.word(),
                (b'(' | b'[' | b'{', b'?') => (2, Some(Sign::Open)),
                (b'(' | b'[' | b'{', _) => (1, Some(Sign::Open)),
                (b')' | b']' | b'}', _) => (1, Some(Sign::Close)),
                (b'.', b'?') => (2, Some(Sign::Member)),
                (b'.', _) => (1, Some(Sign::Member)),
                (b'=' | b'!' | b'<' | b'>', b'=') => (2, Some(Sign::Relation)),
                (b'<' | b'>', _) => (1, Some(Sign::Relation)),
                // Those that stand one beside the other are one.
                (b'!', _) => (self.0.iter().take_while(|byte| **byte == b'!').count(), Some(Sign::Member)),
                (b'-', _) => (self.0.iter().take_while(|byte| **byte == b'-').count(), Some(Sign::Arithmetic)),
                (b'+' | b'*' | b'/' | b'%', _) => (1, Some(Sign::Arithmetic)),
                (b'&', b'&') | (b'|', b'|') => (2, Some(Sign::Logic)),
                (b'?', _) => (1, Some(Sign::Choice)),
                // Of a choice or an entry: what follows is another branch of the same.
                (b':', _) => (1, Some(Sign::Logic)),
                (b',', _) => (1, Some(Sign::Separator)),
                _ => (1, None),
            };
            self.0 = self.0.get(length..).unwrap_or_default();
            if sign.is_some() {
                return sign;
            }
        }
    }

    /// A name, a number or a literal with letters before its quotes.
    fn word(&self) -> (usize, Option<Sign>) {
        let number = self.0[0].is_ascii_digit();
        let digit = |at: usize| self.0.get(at).is_some_and(u8::is_ascii_digit);
        let inside = |(at, byte): &(usize, &u8)| {
            byte.is_ascii_alphanumeric() || **byte == b'_' || (number && **byte == b'.' && digit(at + 1))
        };
        let length = self.0.iter().enumerate().take_while(inside).count();
        let (word, rest) = self.0.split_at(length);
        let raw = matches!(word, [b'r' | b'R'] | [b'b' | b'B', b'r' | b'R']);
        if raw || matches!(word, [b'b' | b'B']) {
            return (length + quoted(rest, raw).unwrap_or(0), None);
        }
        (length, (word == b"in").then_some(Sign::Relation))
    }
}

/// How many bytes a literal has, its quotes included: three on either side, or one and no end of a line between.
fn quoted(text: &[u8], raw: bool) -> Option<usize> {
    let quote = text.first().filter(|byte| b"\"'".contains(byte))?;
    let long = text.starts_with(&[*quote; 3]).then(|| closed(text, &[*quote; 3], raw)).flatten();
    long.or_else(|| closed(text, &[*quote], raw))
}

fn closed(text: &[u8], quotes: &[u8], raw: bool) -> Option<usize> {
    let mut at = quotes.len();
    loop {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        if rest.starts_with(quotes) {
            return Some(at + quotes.len());
        }
        at += match rest[0] {
            b'\\' if !raw => escape(&rest[1..])?,
            b'\n' | b'\r' if quotes.len() == 1 => return None,
            _ => 1,
        };
    }
}

/// How many bytes an escape has, its backslash included.
fn escape(text: &[u8]) -> Option<usize> {
    let (kind, digits) = text.split_first()?;
    let (count, base) = match kind {
        b'x' | b'X' => (2, 16),
        b'u' => (4, 16),
        b'U' => (8, 16),
        b'0'..=b'3' => (2, 8),
        _ => return b"abfnrtv\"'\\?`".contains(kind).then_some(2),
    };
    let digits = digits.get(..count)?;
    digits.iter().all(|digit| char::from(*digit).is_digit(base)).then_some(2 + count)
}

/// How many bytes a name in backticks has.
fn escaped_name(text: &[u8]) -> Option<usize> {
    let inside = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_.-/ ".contains(byte);
    let length = text[1..].iter().take_while(inside).count();
    (length > 0 && text.get(1 + length) == Some(&b'`')).then_some(length + 2)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn levels_are_those_of_the_tree() {
        for (source, levels) in [
            ("a", 0),
            ("a + b + c", 2),
            ("a.b.c + d.e", 3),
            ("a.b == c.d && e == f || g", 2),
            ("f(a.b, c + d + e) > 1", 4),
            ("a ? b : c ? d.e : f", 3),
            ("[[1]]", 2),
            ("x.all(y, y.all(z, z > 0))", 5),
            (r#"'a + b' + "\"+(" + r'\' + """ " + " """"#, 3),
            ("a // + b + c (\n + d", 1),
            ("1.5 - -2.5", 2),
            ("a in [1] in b", 3),
            ("!!!a", 1),
            ("a.?b[?0].orValue(c)", 4),
            ("((((", 4),
            ("))) + a", 1),
            ("'not closed (((", 3),
            // What hides nothing from the parser: literals that are none, names that look like comments.
            ("'\n + a + b'", 2),
            (r"'\q' '+ a + b'", 2),
            ("''' x ' + a + b '", 2),
            ("rb' ' + a + b", 2),
            ("r'\\' + a + b + ' '", 3),
            ("1.a.b.c", 3),
            ("x.`a//b` + c + d", 3),
        ] {
            assert_eq!(of(source), levels, "{source}");
        }
    }
}
