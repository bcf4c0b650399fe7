//! Time and chance for deterministic simulation: on a thread that entered one, now is tokio's (paused) clock and ids come
//! from a seed. Every other thread has the machine's clock and its randomness.

use infield_api::SandboxId;
use std::cell::RefCell;
use tokio::time::Instant;

struct Simulation {
    began: Instant,
    epoch_ms: i64,
    random: u64,
}

thread_local! {
    static HERE: RefCell<Option<Simulation>> = const { RefCell::new(None) };
}

/// From here on this thread is in a simulation that began at `epoch_ms`; to be called in its runtime.
pub fn enter(epoch_ms: i64, seed: u64) {
    HERE.set(Some(Simulation { began: Instant::now(), epoch_ms, random: seed }));
}

pub fn leave() {
    HERE.set(None);
}

/// The simulated time, if this thread is in a simulation.
pub(crate) fn now_ms() -> Option<i64> {
    HERE.with_borrow(|here| here.as_ref().map(|s| s.epoch_ms + s.began.elapsed().as_millis() as i64))
}

/// A new sandbox's id.
pub(crate) fn sandbox_id() -> SandboxId {
    let drawn = HERE.with_borrow_mut(|here| here.as_mut().map(|s| (u128::from(s.next()) << 64) | u128::from(s.next())));
    match drawn {
        Some(bits) => parsed(bits),
        None => SandboxId::random(),
    }
}

fn parsed(bits: u128) -> SandboxId {
    let text = uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string();
    text.parse().unwrap_or_else(|_| SandboxId::random())
}

impl Simulation {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
