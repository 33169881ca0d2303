//! Files of variables: a small part of the shell's language, in which every value stands in single quotes.
//!
//! ```text
//! # a comment
//! NAME='value'
//! LINES='one
//! two' # another
//! ```
//! (kubelet: `util/env/env_util.go`.)

/// The value of the variable `key` in the file; empty if it has none.
///
/// # Errors
/// What is wrong with the file, up to where the variable is.
pub fn value(text: &str, key: &str) -> Result<String, String> {
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let invalid = |why: &str| Err(format!("invalid environment variable format at line {number}: {why}"));
        let line = line.trim_start_matches(BLANKS);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return invalid("missing '='");
        };
        if name.trim_end_matches(BLANKS).is_empty() {
            return invalid("empty variable name");
        }
        if name.ends_with(BLANKS) {
            return invalid("whitespace before '=' is not allowed");
        }
        if value.starts_with(BLANKS) {
            // To a shell the variable is empty, and what follows is a command.
            if name == key {
                return Ok(String::new());
            }
            continue;
        }
        let Some(mut rest) = value.strip_prefix('\'') else {
            return invalid("value must be enclosed in single quotes");
        };
        let mut content = String::new();
        let after = loop {
            match rest.split_once('\'') {
                Some((last, after)) => {
                    content.push_str(last);
                    break after.trim_start_matches(BLANKS);
                }
                None => {
                    content.push_str(rest);
                    content.push('\n');
                }
            }
            let Some((_, next)) = lines.next() else {
                return Err(format!(
                    "invalid environment variable format starting at line {number}: unclosed single quote"
                ));
            };
            rest = next;
        };
        if !after.is_empty() && !after.starts_with('#') {
            return invalid("unexpected content after closing quote");
        }
        if name == key {
            return Ok(content);
        }
    }
    Ok(String::new())
}

const BLANKS: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<&str, &str>) {
        assert_eq!(value(text, "K").as_deref().map_err(String::as_str), expect, "{text}");
    }

    #[test]
    fn values_stand_in_single_quotes() {
        check("# c\n\n  A='1'\nK='v $x' # c\n", Ok("v $x"));
        check("K='one\ntwo'", Ok("one\ntwo"));
        check("K= 'v'\n", Ok(""));
        check("A='1'\n", Ok(""));
        check("K=v", Err("invalid environment variable format at line 1: value must be enclosed in single quotes"));
        check("\nK ='v'", Err("invalid environment variable format at line 2: whitespace before '=' is not allowed"));
        check("K", Err("invalid environment variable format at line 1: missing '='"));
        check("='v'", Err("invalid environment variable format at line 1: empty variable name"));
        check("K='v'w", Err("invalid environment variable format at line 1: unexpected content after closing quote"));
        check("A='1'\nK='v\n", Err("invalid environment variable format starting at line 2: unclosed single quote"));
    }
}
