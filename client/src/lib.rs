//! What every component works with: informers, listers, work queues, event recorders, leader election
