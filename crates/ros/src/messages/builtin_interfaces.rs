//! builtin_interfaces: points in time.

use crate::message::message;

message! {
    /// A point in time.
    Time = "builtin_interfaces/msg/Time" {
        /// Seconds since 1970; the type ends in 2038.
        sec: i32,
        /// Nanoseconds of that second.
        nanosec: u32,
    }
}

impl Time {
    /// Of nanoseconds since 1970. Later than the type can tell is its last second.
    pub fn from_ns(ns: u64) -> Time {
        Time { sec: i32::try_from(ns / 1_000_000_000).unwrap_or(i32::MAX), nanosec: (ns % 1_000_000_000) as u32 }
    }

    /// Nanoseconds since 1970; times before are 0.
    pub fn ns(&self) -> u64 {
        u64::try_from(self.sec).unwrap_or(0) * 1_000_000_000 + u64::from(self.nanosec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_there_and_back() {
        for ns in [0, 999_999_999, 1_764_500_000_123_456_789] {
            assert_eq!(Time::from_ns(ns).ns(), ns);
        }
        assert_eq!(Time::from_ns(u64::MAX).sec, i32::MAX);
        assert_eq!(Time { sec: -1, nanosec: 5 }.ns(), 5);
    }
}
