//! What the binaries share: settings, logging, metrics, health, signals
