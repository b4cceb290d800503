//! A thousand DataNodes and a week of failures, in seconds, twice the same.

use mobula_fleet::{Fleet, FleetConfig};

#[test]
fn placeholder() {
    let _ = Fleet::new(FleetConfig::default(), 1, mobula_types::Millis(0));
}
