//! What was measured, as a table.

use std::time::Duration;

use serde::Serialize;

/// One row.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What was done.
    pub what: String,
    /// How often.
    pub count: usize,
    /// How often a second; none where the rate was given.
    pub per_second: Option<f64>,
    /// The median latency, in milliseconds.
    pub p50_milliseconds: f64,
    /// The latency that 99 of 100 stay below, in milliseconds.
    pub p99_milliseconds: f64,
}

impl Row {
    /// A row over these latencies, all of which took `wall` together.
    pub fn new(what: impl Into<String>, mut latencies: Vec<Duration>, wall: Option<Duration>) -> Self {
        latencies.sort();
        let at = |share: f64| {
            let index = ((latencies.len().max(1) - 1) as f64 * share) as usize;
            latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
        };
        Self {
            what: what.into(),
            count: latencies.len(),
            per_second: wall.map(|wall| latencies.len() as f64 / wall.as_secs_f64().max(f64::EPSILON)),
            p50_milliseconds: at(0.5),
            p99_milliseconds: at(0.99),
        }
    }
}

/// Prints the rows for people.
pub fn print(rows: &[Row]) {
    println!("{:<44} {:>8} {:>10} {:>10} {:>10}", "WORKLOAD", "COUNT", "PER SECOND", "P50 MS", "P99 MS");
    for row in rows {
        let rate = row.per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
        println!(
            "{:<44} {:>8} {:>10} {:>10.2} {:>10.2}",
            row.what, row.count, rate, row.p50_milliseconds, row.p99_milliseconds
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_not_the_median() {
        let latencies = (1..=100).map(Duration::from_millis).collect();
        let row = Row::new("x", latencies, Some(Duration::from_secs(2)));
        assert_eq!((row.p50_milliseconds, row.p99_milliseconds, row.per_second), (50.0, 99.0, Some(50.0)));
        assert_eq!(Row::new("none", Vec::new(), None).p99_milliseconds, 0.0);
    }
}
