//! `xtask/ratchet.json`: what already breaks a size rule, with its exact present size.
//!
//! An entry may only shrink: growing past it, shrinking below it without lowering the number, and outliving its need all
//! fail. So the list ends empty.

use anyhow::{Context, Result};
use std::{collections::BTreeMap, path::Path};

/// Allowed exceptions by name, and which of them were needed in this run.
pub struct Ratchet {
    allowed: BTreeMap<String, usize>,
    needed: Vec<String>,
    complaints: Vec<String>,
}

impl Ratchet {
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join("xtask/ratchet.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let allowed = serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        Ok(Self::new(allowed))
    }

    fn new(allowed: BTreeMap<String, usize>) -> Self {
        Self { allowed, needed: Vec::new(), complaints: Vec::new() }
    }

    /// Judges one size: silent when it is within `limit` or exactly the recorded exception.
    pub fn judge(&mut self, name: &str, unit: &str, size: usize, limit: usize) {
        if size <= limit {
            return;
        }
        self.needed.push(name.to_owned());
        match self.allowed.get(name) {
            None => self.complaints.push(format!("{name}: {size} {unit}, at most {limit}")),
            Some(&allowed) if size > allowed => {
                self.complaints.push(format!("{name}: grew to {size} {unit} from the tolerated {allowed}"));
            }
            Some(&allowed) if size < allowed => {
                self.complaints
                    .push(format!("{name}: shrank to {size} {unit}; lower it in xtask/ratchet.json from {allowed}"));
            }
            Some(_) => {}
        }
    }

    /// Complaints so far and about entries that nothing needs.
    pub fn finish(self) -> Vec<String> {
        let mut complaints = self.complaints;
        for name in self.allowed.keys().filter(|name| !self.needed.contains(name)) {
            complaints.push(format!("{name}: no longer needs its entry in xtask/ratchet.json; remove it"));
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(allowed: &[(&str, usize)], size: usize) -> Vec<String> {
        let mut ratchet = Ratchet::new(allowed.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect());
        ratchet.judge("a", "lines", size, 10);
        ratchet.finish()
    }

    #[test]
    fn only_an_exact_and_needed_entry_passes() {
        assert!(judge(&[], 10).is_empty());
        assert_eq!(judge(&[], 11).len(), 1);
        assert!(judge(&[("a", 12)], 12).is_empty());
        assert_eq!(judge(&[("a", 12)], 13).len(), 1);
        assert_eq!(judge(&[("a", 12)], 11).len(), 1);
        assert_eq!(judge(&[("a", 12)], 9).len(), 1);
    }
}
