//! Shell patterns: `*`, `?`, `[a-z]`, `[!a-z]` and `\` before a literal character (POSIX shell, 2.13).

/// Whether the whole text matches the pattern.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    matches_at(&pattern, &text)
}

/// Backtracks to the last `*` only, so that the time is bounded by the product of the lengths.
fn matches_at(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        match one(&pattern[p..], text[t]) {
            Some(used) => {
                p += used;
                t += 1;
            }
            None => match star.as_mut() {
                Some((after, from)) => {
                    *from += 1;
                    (p, t) = (*after, *from);
                }
                None => return false,
            },
        }
    }
}

/// Matches one character; returns how much of the pattern it took.
fn one(pattern: &[char], character: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '\\' if pattern.len() > 1 => (pattern[1] == character).then_some(2),
        '[' => match bracket(pattern, character) {
            Some((matched, used)) => matched.then_some(used),
            // A bracket that is never closed stands for itself.
            None => (character == '[').then_some(1),
        },
        literal => (*literal == character).then_some(1),
    }
}

fn bracket(pattern: &[char], character: char) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(1), Some('!' | '^'));
    let first = if negated { 2 } else { 1 };
    let mut at = first;
    let mut matched = false;
    loop {
        let low = *pattern.get(at)?;
        if low == ']' && at > first {
            return Some((matched != negated, at + 1));
        }
        if low == '[' && pattern.get(at + 1) == Some(&':') {
            let close = (at + 2..pattern.len()).find(|i| pattern[*i] == ':' && pattern.get(i + 1) == Some(&']'))?;
            let class: String = pattern[at + 2..close].iter().collect();
            matched |= in_class(&class, character);
            at = close + 2;
            continue;
        }
        if pattern.get(at + 1) == Some(&'-') && pattern.get(at + 2).is_some_and(|high| *high != ']') {
            matched |= (low..=pattern[at + 2]).contains(&character);
            at += 3;
        } else {
            matched |= low == character;
            at += 1;
        }
    }
}

/// The character classes of POSIX, for ASCII.
pub fn in_class(class: &str, character: char) -> bool {
    match class {
        "alpha" => character.is_ascii_alphabetic(),
        "digit" => character.is_ascii_digit(),
        "alnum" => character.is_ascii_alphanumeric(),
        "upper" => character.is_ascii_uppercase(),
        "lower" => character.is_ascii_lowercase(),
        "space" => character.is_ascii_whitespace(),
        "blank" => matches!(character, ' ' | '\t'),
        "punct" => character.is_ascii_punctuation(),
        "xdigit" => character.is_ascii_hexdigit(),
        _ => false,
    }
}

/// Whether the text has characters that make it a pattern.
pub fn is_pattern(text: &str) -> bool {
    let mut escaped = false;
    text.chars().any(|character| {
        let special = !escaped && matches!(character, '*' | '?' | '[');
        escaped = character == '\\' && !escaped;
        special
    })
}

/// The text as a pattern that matches nothing but it.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Undoes [`escape`].
pub fn unescape(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            character => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        let yes = [
            ("*", ""),
            ("a*c", "abbc"),
            ("1.[0-9]*", "1.27-alpine"),
            ("[!a]?", "bc"),
            ("\\*", "*"),
            ("*.txt", "a.b.txt"),
        ];
        let no = [("a*c", "abd"), ("?", ""), ("[a-c]", "d"), ("\\*", "x"), ("nginx", "nginx2"), ("[[:digit:]]", "x")];
        yes.iter().for_each(|(pattern, text)| assert!(matches(pattern, text), "{pattern} {text}"));
        no.iter().for_each(|(pattern, text)| assert!(!matches(pattern, text), "{pattern} {text}"));
        assert!(matches(&escape("a*[b]\\"), "a*[b]\\"));
        assert_eq!(unescape(&escape("a*[b]\\")), "a*[b]\\");
    }
}
