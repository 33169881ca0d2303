//! Sets of completion indexes as a Job's status tells them: `0,3-5`. Pure.
//! (Kubernetes: `pkg/controller/job/indexed_job_utils.go`.)

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

/// The annotation and label that tell a pod's index.
pub(super) const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Reads `0,3-5`; what cannot be read, or is not below `completions`, is left out.
pub(super) fn parse(text: &str, completions: u32) -> BTreeSet<u32> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            indexes.extend(first..=last.min(completions.saturating_sub(1)));
        }
    }
    indexes.retain(|index| *index < completions);
    indexes
}

/// Writes `0,3-5`.
pub(super) fn format(indexes: &BTreeSet<u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let runs = runs.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    runs.collect::<Vec<_>>().join(",")
}

/// The index of a pod.
pub(super) fn of(pod: &Pod) -> Option<u32> {
    pod.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_intervals_and_read_back() {
        for text in ["", "0", "0,1", "1-3,5", "0-2,4,5,7-9"] {
            assert_eq!(format(&parse(text, 10)), text);
        }
        assert_eq!(format(&parse("3-20", 5)), "3,4", "beyond the completions there is nothing");
    }
}
