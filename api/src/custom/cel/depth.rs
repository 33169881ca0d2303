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
                (b'"' | b'\'', _) => (quoted(self.0, true), None),
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
        let inside = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_' || (number && **byte == b'.');
        let length = self.0.iter().take_while(inside).count();
        let (word, rest) = self.0.split_at(length);
        if matches!(rest.first(), Some(b'"' | b'\'')) && length <= 2 && word.iter().all(|byte| b"rRbB".contains(byte)) {
            let escapes = !word.iter().any(|byte| b"rR".contains(byte));
            return (length + quoted(rest, escapes), None);
        }
        (length, (word == b"in").then_some(Sign::Relation))
    }
}

/// How many bytes a literal has, its quotes included: one or three on either side.
fn quoted(text: &[u8], escapes: bool) -> usize {
    let quote = text[0];
    let quotes = if text.starts_with(&[quote; 3]) { 3 } else { 1 };
    let mut at = quotes;
    while at < text.len() && !text[at..].starts_with(&[quote; 3][..quotes]) {
        at += if escapes && text[at] == b'\\' { 2 } else { 1 };
    }
    at + quotes
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
            ("'not closed (((", 0),
        ] {
            assert_eq!(of(source), levels, "{source}");
        }
    }
}
