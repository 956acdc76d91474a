//! Chunk streaming with windows, checksums, retry and resume, shared by client and replication
