//! The namespace on an engine that counts reads.

use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;

use super::*;
use crate::conformance::{ForwardingEngine, ForwardingSnapshot, Read};
use crate::engine::{Engine, EngineError, Snapshot};

/// Reads so far.
#[derive(Debug, Default)]
pub(super) struct Reads {
    keys: AtomicUsize,
    ranges: AtomicUsize,
}

impl Reads {
    /// Returns the number of reads of given keys, however many.
    pub(super) fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    pub(super) fn ranges(&self) -> usize {
        self.ranges.load(Ordering::Relaxed)
    }
}

struct CountingEngine {
    inner: Arc<MemoryEngine>,
    reads: Arc<Reads>,
}

#[async_trait]
impl ForwardingEngine for CountingEngine {
    fn inner(&self) -> &dyn Engine {
        &*self.inner
    }

    async fn forward_snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        let (inner, reads) = (self.inner.snapshot().await?, self.reads.clone());
        Ok(Box::new(CountingSnapshot { inner, reads }))
    }
}

struct CountingSnapshot {
    inner: Box<dyn Snapshot>,
    reads: Arc<Reads>,
}

#[async_trait]
impl ForwardingSnapshot for CountingSnapshot {
    fn inner(&self) -> &dyn Snapshot {
        &*self.inner
    }

    async fn before_read(&self, read: Read) -> Result<(), EngineError> {
        let count = match read {
            Read::Keys => &self.reads.keys,
            Read::Range => &self.reads.ranges,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Fixture {
    /// Opens the namespace of the fixture once more, on an engine that counts its reads.
    pub(super) async fn counting(&self) -> (Namespace, Arc<Reads>) {
        let reads = Arc::<Reads>::default();
        let engine = Arc::new(CountingEngine { inner: self.engine.clone(), reads: reads.clone() });
        let (committer, serving) = Committer::new(engine.clone(), std::future::pending());
        tokio::spawn(serving);
        let components =
            Components { engine, committer, clock: self.clock.clone(), random: self.random() };
        let namespace = Namespace::open(components, Options::default(), None).await.unwrap();
        (namespace, reads)
    }
}
