//! The datanode: chunk streaming, replication, registration and heartbeats
