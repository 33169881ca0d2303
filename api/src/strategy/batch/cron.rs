//! Cron schedules: five fields, names of months and weekdays, `@daily` and its kin, `@every 5m`.
//! The grammar and the complaints are those of the cron library that Kubernetes uses, whose words kubectl shows.
use std::time::Duration;

use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// How far ahead [`Schedule::next`] looks before it says never (`0 0 30 2 *`), in years.
const HORIZON_YEARS: i16 = 5;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Why a schedule does not parse.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CronError {
    /// Nothing but spaces.
    #[error("empty spec string")]
    Empty,
    /// Too few or too many fields.
    #[error("expected exactly 5 fields, found {found}: [{fields}]")]
    Fields {
        /// How many there are.
        found: usize,
        /// They, joined by spaces.
        fields: String,
    },
    /// Not a number and not a known name.
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {0:?}: invalid syntax")]
    Number(String),
    /// Outside of what the field can hold, on the named side.
    #[error("{side} of range ({value}) {relation} {limit}: {text}")]
    Range {
        /// `beginning` or `end`.
        side: &'static str,
        /// The number given.
        value: u32,
        /// `below minimum` or `above maximum`, or beyond the other end.
        relation: &'static str,
        /// The number it is compared with, in brackets where Kubernetes has them.
        limit: String,
        /// The field's text.
        text: String,
    },
    /// `*/0`.
    #[error("step of range should be a positive number: {0}")]
    Step(String),
    /// `1-2-3` and `1/2/3`.
    #[error("too many {0}: {1}")]
    TooMany(&'static str, String),
    /// `@fortnightly`.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    /// `@every soon`.
    #[error("failed to parse duration {0}")]
    Every(String),
}

/// When something happens again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the minutes whose fields all match; each set is a bit mask.
    Fields {
        /// Minutes 0–59.
        minutes: u64,
        /// Hours 0–23.
        hours: u64,
        /// Days of the month 1–31.
        days: u64,
        /// Months 1–12.
        months: u64,
        /// Days of the week, Sunday is 0.
        weekdays: u64,
        /// Whether days of the month and of the week both restrict: then one match suffices.
        either_day: bool,
    },
    /// At a fixed distance.
    Every(Duration),
}

impl Schedule {
    /// Reads `0 2 * * *` or `@hourly`.
    pub fn parse(text: &str) -> Result<Schedule, CronError> {
        if text.trim().is_empty() {
            return Err(CronError::Empty);
        }
        if let Some(descriptor) = text.strip_prefix('@') {
            return Self::descriptor(text, descriptor);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(CronError::Fields { found: fields.len(), fields: fields.join(" ") });
        };
        let any = |field: &str| field.starts_with('*') || field.starts_with('?');
        Ok(Schedule::Fields {
            minutes: parse_field(minutes, 0, 59, &[], 0)?,
            hours: parse_field(hours, 0, 23, &[], 0)?,
            days: parse_field(days, 1, 31, &[], 0)?,
            months: parse_field(months, 1, 12, &MONTHS, 1)?,
            weekdays: parse_field(weekdays, 0, 6, &WEEKDAYS, 0)?,
            either_day: !any(days) && !any(weekdays),
        })
    }

    fn descriptor(text: &str, descriptor: &str) -> Result<Schedule, CronError> {
        let fields = match descriptor {
            "yearly" | "annually" => "0 0 1 1 *",
            "monthly" => "0 0 1 * *",
            "weekly" => "0 0 * * 0",
            "daily" | "midnight" => "0 0 * * *",
            "hourly" => "0 * * * *",
            _ => {
                let Some(every) = descriptor.strip_prefix("every ") else {
                    return Err(CronError::Descriptor(text.to_owned()));
                };
                let distance = crate::time::parse_duration(every).map_err(|_| CronError::Every(text.to_owned()))?;
                let seconds = u64::try_from(distance.as_secs()).unwrap_or(0);
                return Ok(Schedule::Every(Duration::from_secs(seconds.max(1))));
            }
        };
        Self::parse(fields)
    }

    /// The first moment after `after` at which the schedule strikes in `zone`; `None` if there is none for years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let Schedule::Fields { minutes, hours, days, months, weekdays, either_day } = self else {
            let Schedule::Every(distance) = self else {
                return None;
            };
            let whole = Timestamp::from_second(after.as_second()).ok()?;
            return whole.checked_add(*distance).ok();
        };
        let mut at: DateTime = zone.to_datetime(after).checked_add(1.minute()).ok()?;
        at = at.with().second(0).subsec_nanosecond(0).build().ok()?;
        let last_year = at.year().saturating_add(HORIZON_YEARS);
        let has = |mask: &u64, value: i8| mask & (1 << value) != 0;
        while at.year() <= last_year {
            let midnight = |at: DateTime| at.with().hour(0).minute(0).build().ok();
            if !has(months, at.month()) {
                at = midnight(at.with().day(1).build().ok()?.checked_add(1.month()).ok()?)?;
                continue;
            }
            let (day, weekday) = (has(days, at.day()), has(weekdays, weekday_number(at.weekday())));
            if !(if *either_day { day || weekday } else { day && weekday }) {
                at = midnight(at.checked_add(1.day()).ok()?)?;
                continue;
            }
            if !has(hours, at.hour()) {
                at = at.with().minute(0).build().ok()?.checked_add(1.hour()).ok()?;
                continue;
            }
            if !has(minutes, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
                continue;
            }
            let moment = at.to_zoned(zone.clone()).ok()?.timestamp();
            if moment > after {
                return Some(moment);
            }
            // The hour that a clock change repeats: look past it.
            at = at.checked_add(1.minute()).ok()?;
        }
        None
    }
}

fn weekday_number(day: Weekday) -> i8 {
    day.to_sunday_zero_offset()
}

fn parse_field(field: &str, low: u32, high: u32, words: &[&str], first: u32) -> Result<u64, CronError> {
    field.split(',').try_fold(0, |mask, part| Ok(mask | parse_range(part, low, high, words, first)?))
}

fn parse_range(part: &str, low: u32, high: u32, words: &[&str], first: u32) -> Result<u64, CronError> {
    let pieces: Vec<&str> = part.split('/').collect();
    let bounds: Vec<&str> = pieces[0].split('-').collect();
    let number = |text: &str| -> Result<u32, CronError> {
        let word = words.iter().position(|word| word.eq_ignore_ascii_case(text));
        match word {
            Some(index) => Ok(index as u32 + first),
            None => text.parse().map_err(|_| CronError::Number(text.to_owned())),
        }
    };
    let star = matches!(bounds[0], "*" | "?");
    let (start, mut end) = match bounds[..] {
        _ if star => (low, high),
        [single] => (number(single)?, number(single)?),
        [from, to] => (number(from)?, number(to)?),
        _ => return Err(CronError::TooMany("hyphens", part.to_owned())),
    };
    let step = match pieces[..] {
        [_] => 1,
        [_, step] => {
            // `5/15` means from 5 on.
            if bounds.len() == 1 && !star {
                end = high;
            }
            step.parse().map_err(|_| CronError::Number(step.to_owned()))?
        }
        _ => return Err(CronError::TooMany("slashes", part.to_owned())),
    };
    let range = |side, value, relation, limit| CronError::Range { side, value, relation, limit, text: part.to_owned() };
    if start < low {
        return Err(range("beginning", start, "below minimum", format!("({low})")));
    }
    if end > high {
        return Err(range("end", end, "above maximum", format!("({high})")));
    }
    if start > end {
        return Err(range("beginning", start, "beyond end of range", format!("({end})")));
    }
    if step == 0 {
        return Err(CronError::Step(part.to_owned()));
    }
    Ok((start..=end).step_by(step as usize).fold(0, |mask, value| mask | 1 << value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let after: Timestamp = after.parse().unwrap();
        Schedule::parse(schedule)
            .unwrap()
            .next(after, &TimeZone::UTC)
            .map_or("never".to_owned(), |time| time.to_string())
    }

    #[test]
    fn the_next_time() {
        for (schedule, after, expected) in [
            ("*/5 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"),
            ("0 2 * * *", "2026-01-01T02:00:00Z", "2026-01-02T02:00:00Z"),
            ("0 0 1 jan *", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("30 8 13 * fri", "2026-01-01T00:00:00Z", "2026-01-02T08:30:00Z"),
            ("0 0 29 2 *", "2026-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 30 2 *", "2026-03-01T00:00:00Z", "never"),
            ("@hourly", "2026-01-01T00:30:00Z", "2026-01-01T01:00:00Z"),
            ("@every 90s", "2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z"),
        ] {
            assert_eq!(next(schedule, after), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn what_does_not_parse() {
        for (schedule, complaint) in [
            ("a b c", "expected exactly 5 fields, found 3: [a b c]"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@often", "unrecognized descriptor: @often"),
        ] {
            assert_eq!(Schedule::parse(schedule).unwrap_err().to_string(), complaint, "{schedule}");
        }
    }
}
