//! Lists of the indexes of a job, as `1,3-5,7` (`pkg/apis/batch/validation.validateIndexesFormat`).

/// How many indexes a text names, of `completions`.
pub fn count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, None);
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let (low, high) = parse(interval, completions)?;
        if let Some(before) = last.filter(|before| *before >= low) {
            return Err(format!("non-increasing order, previous: {before}, current: {low}"));
        }
        total += high - low + 1;
        last = Some(high);
    }
    Ok(total)
}

/// An index that is in both of two texts. Intervals that are none are passed over: [`count`] tells of them.
pub fn overlap(one: &str, other: &str, completions: i64) -> Option<i64> {
    let intervals = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|interval| parse(interval, completions).ok()).collect()
    };
    let (ones, others) = (intervals(one), intervals(other));
    let (mut ones, mut others) = (ones.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(&(a, b)), Some(&(x, y))) = (ones.peek(), others.peek()) {
        if a <= y && x <= b {
            return Some(a.max(x));
        }
        if a <= x {
            ones.next();
        } else {
            others.next();
        }
    }
    None
}

fn parse(interval: &str, completions: i64) -> Result<(i64, i64), String> {
    let number = |part: &str| match part.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {part:?}")),
        Ok(index) if index >= completions => Err(format!("too large index: {part:?}")),
        Ok(index) => Ok(index),
    };
    match interval.split('-').collect::<Vec<_>>()[..] {
        [single] => number(single).map(|index| (index, index)),
        [low, high] => {
            let (low, high) = (number(low)?, number(high)?);
            if low >= high {
                return Err(format!("non-increasing order, previous: {low}, current: {high}"));
            }
            Ok((low, high))
        }
        _ => Err(format!(
            "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted() {
        assert_eq!(count("", 3), Ok(0));
        assert_eq!(count("0,2-4", 5), Ok(4));
        assert_eq!(count("2,1", 5), Err("non-increasing order, previous: 2, current: 1".to_owned()));
        assert_eq!(count("5", 5), Err("too large index: \"5\"".to_owned()));
        assert_eq!(count("a", 5), Err("cannot convert string to integer for index: \"a\"".to_owned()));
    }

    #[test]
    fn two_lists_share_an_index() {
        assert_eq!(overlap("0-2", "1,4", 5), Some(1));
        assert_eq!(overlap("0-2,x,4", "3", 5), None);
        assert_eq!(overlap("0-2,4", "3-4", 5), Some(4));
        assert_eq!(overlap("", "", 5), None);
    }
}
