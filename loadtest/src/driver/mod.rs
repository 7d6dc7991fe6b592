//! The load driver behind the `loadtest` binary.
