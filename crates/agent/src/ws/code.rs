//! Close codes: what a closing says in a number. Knows no sockets.

pub const NORMAL: u16 = 1000;
pub const AWAY: u16 = 1001;
pub const PROTOCOL: u16 = 1002;
pub const POLICY: u16 = 1008;
pub const TOO_BIG: u16 = 1009;
pub const ERROR: u16 = 1011;
