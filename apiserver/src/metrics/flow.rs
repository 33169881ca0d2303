//! Priority and fairness (`k8s.io/apiserver/pkg/util/flowcontrol/metrics/metrics.go`).

use std::sync::atomic::Ordering;

use minik8s_metrics::{Kind, Text};

use crate::flowcontrol::{FlowControl, Rejection};

/// Writes all of it.
pub(super) fn write(control: &FlowControl, text: &mut Text) {
    for schema in control.schemas() {
        let counters = &schema.counters;
        let labels = [("flow_schema", schema.name.as_str()), ("priority_level", schema.level.name())];
        let mut gauge = |name, help, value: i64| {
            text.family(name, Kind::Gauge, help).sample(&labels, value);
        };
        gauge(
            "apiserver_flowcontrol_current_inqueue_requests",
            "Requests that wait.",
            counters.waiting.load(Ordering::Relaxed),
        );
        let executing = counters.executing.load(Ordering::Relaxed);
        gauge("apiserver_flowcontrol_current_executing_requests", "Requests that are handled.", executing);
        let seats = counters.seats.load(Ordering::Relaxed);
        gauge("apiserver_flowcontrol_current_executing_seats", "Seats that these occupy.", seats);
        gauge("apiserver_flowcontrol_request_concurrency_in_use", "The same, under the older name.", seats);
        text.family("apiserver_flowcontrol_dispatched_requests_total", Kind::Counter, "Requests that got a seat.")
            .sample(&labels, counters.dispatched.load(Ordering::Relaxed));
        for (reason, count) in Rejection::ALL.iter().zip(&counters.rejected) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let labels = [labels[0], labels[1], ("reason", reason.as_str())];
                text.family("apiserver_flowcontrol_rejected_requests_total", Kind::Counter, "Requests that got none.")
                    .sample(&labels, count);
            }
        }
        for (execute, times) in [("true", &counters.waited), ("false", &counters.waited_in_vain)] {
            let counts = times.counts();
            if counts.count > 0 {
                let name = "apiserver_flowcontrol_request_wait_duration_seconds";
                text.family(name, Kind::Histogram, "How long requests waited.")
                    .histogram(&[("execute", execute), labels[0], labels[1]], &counts);
            }
        }
        let counts = counters.executed.counts();
        if counts.count > 0 {
            let name = "apiserver_flowcontrol_request_execution_seconds";
            text.family(name, Kind::Histogram, "How long requests were handled.").histogram(&labels, &counts);
        }
    }
    for level in control.levels() {
        let (limits, (seats, _)) = (level.limits(), level.load());
        let label = [("priority_level", level.name())];
        let mut gauge = |name, help, value: usize| {
            text.family(name, Kind::Gauge, help).sample(&label, value);
        };
        gauge("apiserver_flowcontrol_nominal_limit_seats", "Seats of a level's own.", limits.nominal);
        gauge("apiserver_flowcontrol_request_concurrency_limit", "The same, under the older name.", limits.nominal);
        gauge("apiserver_flowcontrol_lower_limit_seats", "Seats that a level never lends.", limits.lower);
        gauge("apiserver_flowcontrol_upper_limit_seats", "Seats that a level may have by borrowing.", limits.upper);
        // What is lent is decided seat by seat: a level has its own, and what it borrows at the moment.
        gauge("apiserver_flowcontrol_current_limit_seats", "Seats of a level now.", limits.nominal.max(seats));
    }
}
