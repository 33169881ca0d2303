//! Writing snapshots of the own state, a little each turn, and clearing away what they make
//! useless.
//!
//! When the log has grown as large as the last snapshot, but to a minimum at least, a new one is
//! begun: that bounds the log, the time to replay it, and how often the state is written, to once
//! for each time it is written anyway.

use super::{
    directory::{Acknowledged, Directory},
    disk::{Changes, Disk, Failure, SnapshotMeta},
    node::{Halt, term_of},
    storage::LogStorage,
};
use crate::{
    replica::Replica,
    state::{CHUNK_BYTES, Chunks},
};
use raft::{
    RawNode,
    eraftpb::{HardState, Snapshot},
};

/// How much of a snapshot is written in one turn; proposals wait that much longer.
const STEP_BYTES: usize = 512 << 10;

/// How many useless values are removed in one turn.
const STEP_REMOVALS: usize = 512;

pub(super) struct SnapshotWriter {
    min_log_bytes: usize,
    stage: Stage,
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Writing(Box<Writing>),
    Clearing,
}

/// A snapshot of which the first chunks are on disk.
struct Writing {
    chunks: Chunks,
    meta: SnapshotMeta,
    /// Bytes of the log that it covers.
    log_bytes: usize,
}

impl SnapshotWriter {
    /// Leaves the log alone until it has so many bytes.
    pub(super) fn new(min_log_bytes: usize) -> Self {
        SnapshotWriter { min_log_bytes, stage: Stage::Idle }
    }

    /// Whether nothing is left to do until the log has grown.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// Does a little of what there is to do.
    pub(super) fn step(
        &mut self,
        raw: &mut RawNode<LogStorage>,
        replica: &Replica,
        directory: &mut Directory,
    ) -> Result<(), Halt> {
        match &mut self.stage {
            Stage::Idle => {
                let threshold = usize::try_from(raw.store().snapshot_meta().bytes).unwrap_or(usize::MAX);
                if raw.store().applied_bytes() >= threshold.max(self.min_log_bytes) {
                    self.begin(raw.store(), replica)?;
                }
            }
            Stage::Writing(writing) => {
                if writing.step(raw.store())? {
                    let extent = raw.store().disk().whole();
                    directory.acknowledge(Acknowledged { index: writing.meta.index, extent })?;
                    raw.mut_store().trim(std::mem::take(&mut writing.meta), writing.log_bytes);
                    raw.store().disk().forget_log(raw.store().snapshot_meta())?;
                    self.stage = Stage::Clearing;
                }
            }
            Stage::Clearing => {
                let storage = raw.store();
                let mut changes = Changes::default();
                storage.disk().remove_useless(&mut changes, storage.snapshot_meta(), STEP_REMOVALS)?;
                if changes.is_empty() {
                    self.stage = Stage::Idle;
                } else {
                    storage.disk().write(changes, false)?;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, storage: &LogStorage, replica: &Replica) -> Result<(), Halt> {
        let index = storage.applied();
        let meta = SnapshotMeta {
            member: storage.snapshot_meta().member,
            index,
            term: term_of(storage, index)?,
            conf_state: storage.conf_state().clone(),
            generation: storage.snapshot_meta().generation + 1,
            ..SnapshotMeta::default()
        };
        tracing::debug!(index, log_bytes = storage.applied_bytes(), "a snapshot is begun");
        let chunks = replica.image().chunks();
        self.stage = Stage::Writing(Box::new(Writing { chunks, meta, log_bytes: storage.applied_bytes() }));
        Ok(())
    }

    /// Writes the leader's snapshot in place of log and state.
    pub(super) fn write_received(
        &mut self,
        storage: &LogStorage,
        snapshot: &Snapshot,
        hard_state: Option<&HardState>,
    ) -> Result<SnapshotMeta, Halt> {
        let metadata = snapshot.get_metadata();
        // An own snapshot that is being written has used the next generation already.
        let generation = storage.snapshot_meta().generation + 2;
        let mut meta = SnapshotMeta {
            member: storage.snapshot_meta().member,
            index: metadata.index,
            term: metadata.term,
            conf_state: metadata.get_conf_state().clone(),
            generation,
            ..SnapshotMeta::default()
        };
        write_chunks(storage.disk(), snapshot.data.chunks(CHUNK_BYTES), &mut meta)?;
        let mut changes = Changes::default();
        changes.put_meta(&meta);
        changes.put_hard_state(hard_state.unwrap_or(storage.hard_state()));
        changes.cut_log(0);
        storage.disk().write(changes, true)?;
        storage.disk().forget_log(&meta)?;
        self.stage = Stage::Clearing;
        Ok(meta)
    }
}

impl Writing {
    /// True when the whole snapshot is on disk and counts.
    fn step(&mut self, storage: &LogStorage) -> Result<bool, Halt> {
        let (mut changes, mut bytes) = (Changes::default(), 0);
        while bytes < STEP_BYTES {
            let Some(chunk) = self.chunks.next() else {
                changes.put_meta(&self.meta);
                storage.disk().write(changes, true)?;
                return Ok(true);
            };
            changes.put_chunk(self.meta.generation, self.meta.chunks, &chunk);
            self.meta.chunks += 1;
            self.meta.bytes += chunk.len() as u64;
            bytes += chunk.len();
        }
        storage.disk().write(changes, false)?;
        Ok(false)
    }
}

/// Writes all chunks of a snapshot, and counts them in the record with which they are to count.
pub(super) fn write_chunks<C: AsRef<[u8]>>(
    disk: &Disk,
    chunks: impl Iterator<Item = C>,
    meta: &mut SnapshotMeta,
) -> Result<(), Failure> {
    for chunk in chunks {
        let mut changes = Changes::default();
        changes.put_chunk(meta.generation, meta.chunks, chunk.as_ref());
        disk.write(changes, false)?;
        meta.chunks += 1;
        meta.bytes += chunk.as_ref().len() as u64;
    }
    Ok(())
}
