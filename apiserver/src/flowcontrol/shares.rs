//! How many seats a level has: its part of all, what it lends, and what it borrows
//! (`k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go` `finishQueueSetReconfigsLocked`).

use serde_json::Value;

/// What a level's object says.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Whether its requests never wait.
    pub exempt: bool,
    /// Its part, in relation to the others'.
    pub shares: u64,
    /// How much of its seats others may use, in hundredths.
    pub lendable_percent: u64,
    /// How many seats of others it may use, in hundredths of its own; `None` for as many as there are.
    pub borrowing_limit_percent: Option<u64>,
    /// How requests wait; `None`: they are turned away.
    pub queuing: Option<Queuing>,
}

/// Where requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queuing {
    /// How many queues.
    pub queues: usize,
    /// In how many of them a flow may wait.
    pub hand_size: usize,
    /// How many requests wait in one.
    pub queue_length: usize,
}

/// What a level's requests may occupy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Seats of its own.
    pub nominal: usize,
    /// Those of them that nobody else may use.
    pub lower: usize,
    /// What it may occupy if others have no use for theirs.
    pub upper: usize,
}

impl Spec {
    /// Reads a PriorityLevelConfiguration's spec.
    pub fn of(spec: &Value) -> Spec {
        let exempt = spec["type"] == "Exempt";
        let section = if exempt { &spec["exempt"] } else { &spec["limited"] };
        let number = |value: &Value| value.as_u64();
        let queuing = &section["limitResponse"]["queuing"];
        let size = |field: &str, default: u64| usize::try_from(number(&queuing[field]).unwrap_or(default)).unwrap_or(1);
        Spec {
            exempt,
            shares: number(&section["nominalConcurrencyShares"]).unwrap_or(if exempt { 0 } else { 30 }),
            lendable_percent: number(&section["lendablePercent"]).unwrap_or(0).min(100),
            borrowing_limit_percent: number(&section["borrowingLimitPercent"]),
            queuing: (section["limitResponse"]["type"] == "Queue").then(|| Queuing {
                queues: size("queues", 64).max(1),
                hand_size: size("handSize", 8).max(1),
                queue_length: size("queueLengthLimit", 50),
            }),
        }
    }
}

/// The limits of all levels, in their order, of a server with so many seats.
pub fn limits(seats: usize, levels: &[Spec]) -> Vec<Limits> {
    let sum: u64 = levels.iter().map(|level| level.shares).sum();
    levels
        .iter()
        .map(|level| {
            let share = if sum == 0 { 0.0 } else { level.shares as f64 / sum as f64 };
            let nominal = (seats as f64 * share).ceil();
            let part = |percent: u64| (nominal * percent as f64 / 100.0).round() as usize;
            let borrowed = level.borrowing_limit_percent.map_or(seats, part);
            let nominal = nominal as usize;
            Limits {
                nominal,
                lower: nominal - part(level.lendable_percent),
                upper: (nominal + borrowed).min(seats.max(nominal)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_levels_of_a_new_cluster_share_as_in_kubernetes() {
        let levels = crate::bootstrap::flow_control(super::super::PRIORITY_LEVELS);
        let specs: Vec<Spec> = levels.iter().map(|level| Spec::of(&level["spec"])).collect();
        let mut seen: Vec<String> = levels
            .iter()
            .zip(limits(600, &specs))
            .map(|(level, limits)| {
                let name = level["metadata"]["name"].as_str().unwrap_or_default();
                format!("{name} {} {} {}", limits.nominal, limits.lower, limits.upper)
            })
            .collect();
        seen.sort();
        let expect = [
            "catch-all 13 13 600",
            "exempt 0 0 600",
            "global-default 49 24 600",
            "leader-election 25 25 600",
            "node-high 98 73 600",
            "system 74 50 600",
            "workload-high 98 49 600",
            "workload-low 245 24 600",
        ];
        assert_eq!(seen, expect);
    }

    #[test]
    fn what_is_borrowed_has_a_limit() {
        let spec = |percent: Value| {
            let limited =
                json!({ "nominalConcurrencyShares": 1, "lendablePercent": 25, "borrowingLimitPercent": percent });
            Spec::of(&json!({ "type": "Limited", "limited": limited }))
        };
        let found = limits(10, &[spec(json!(50)), spec(json!(null))]);
        let expect = [Limits { nominal: 5, lower: 4, upper: 8 }, Limits { nominal: 5, lower: 4, upper: 10 }];
        assert_eq!(found, expect);
        assert_eq!(limits(10, &[]), []);
    }
}
