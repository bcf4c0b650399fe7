//! Percentiles and medians of measured times.

use infield_client::api::ServerPhase;
use serde::Serialize;
use std::collections::HashMap;

/// How a set of times is spread, in the unit of the times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        // The nearest rank: a time that was really measured.
        let rank = |percent: f64| {
            let index = (percent / 100.0 * times.len() as f64).ceil() as usize;
            times.get(index.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self {
            p50: round(rank(50.0)),
            p95: round(rank(95.0)),
            p99: round(rank(99.0)),
            min: round(rank(0.0)),
            max: round(rank(100.0)),
        }
    }

    pub fn row(&self, name: &str) -> Vec<String> {
        let cell = |ms: f64| format!("{ms:.2}");
        vec![name.to_owned(), cell(self.p50), cell(self.p95), cell(self.p99), cell(self.min), cell(self.max)]
    }
}

/// Microseconds are enough.
pub fn round(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

/// The median of every phase, in the order in which they first came.
pub fn medians_by_name<'a>(phases: impl Iterator<Item = &'a ServerPhase>) -> Vec<(String, f64)> {
    let mut names = Vec::new();
    let mut times: HashMap<&str, Vec<f64>> = HashMap::new();
    for phase in phases {
        let list = times.entry(&phase.name).or_default();
        if list.is_empty() {
            names.push(phase.name.as_str());
        }
        list.push(phase.duration_ms);
    }
    let median = |name: &str| Spread::of(times.get(name).cloned().unwrap_or_default()).p50;
    names.into_iter().map(|name| (name.to_owned(), median(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let spread = Spread::of((1..=100).map(f64::from).rev().collect());
        assert_eq!((spread.p50, spread.p95, spread.p99, spread.min, spread.max), (50.0, 95.0, 99.0, 1.0, 100.0));
        assert_eq!(Spread::of(vec![]), Spread::default());
    }

    #[test]
    fn phases_keep_their_order() {
        let phase = |name: &str, duration_ms| ServerPhase { name: name.into(), duration_ms };
        let phases = [phase("db", 1.0), phase("engine", 3.0), phase("db", 3.0), phase("db", 2.0)];
        assert_eq!(medians_by_name(phases.iter()), [("db".to_owned(), 2.0), ("engine".to_owned(), 3.0)]);
    }
}
