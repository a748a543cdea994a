//! The real binary against the simulator, over loopback.
