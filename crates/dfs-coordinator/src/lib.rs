//! The coordinator: gRPC services, node registry and background workers around the metadata
