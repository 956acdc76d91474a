//! The one place where channels and listeners are made
