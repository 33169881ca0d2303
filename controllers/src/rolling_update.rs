//! The fences of rolling updates and of disruptions: so many pods, or so many of a hundred. Pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What a fence comes to, of `total` pods; nothing where it is not set.
pub fn fence(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(count)) => *count,
        Some(IntOrString::String(percent)) => {
            let percent: i64 = percent.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent * i64::from(total);
            let scaled = if round_up { (product + 99) / 100 } else { product / 100 };
            i32::try_from(scaled).unwrap_or(i32::MAX)
        }
    }
}
