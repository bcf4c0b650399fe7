//! How many connections each token has.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Clone)]
pub struct Seats {
    taken: Arc<Mutex<HashMap<String, usize>>>,
    most: usize,
}

/// One connection's place; free again when it is dropped.
pub struct Seat {
    taken: Arc<Mutex<HashMap<String, usize>>>,
    token: String,
}

impl Seats {
    pub fn new(most: usize) -> Self {
        Self { taken: Arc::default(), most }
    }

    pub fn take(&self, token: &str) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(token.to_owned()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Seat { taken: self.taken.clone(), token: token.to_owned() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_and_given_back() {
        let seats = Seats::new(2);
        let (one, two) = (seats.take("a"), seats.take("a"));
        assert!(one.is_some() && two.is_some() && seats.take("a").is_none() && seats.take("b").is_some());
        drop(one);
        assert!(seats.take("a").is_some());
        drop(two);
        assert!(seats.taken.lock().unwrap().is_empty());
    }
}
