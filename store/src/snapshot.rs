//! A snapshot of the whole store that leaves it: into a file and back.
//!
//! ```text
//!   "minik8s snapshot\n" version   then frames:   length (u32)  crc32 (u32)  chunk …   and one of length 0 at the end
//! ```

use crate::{
    Error, Result, Revision,
    state::{Chunks, Loader, State, StateImage},
};
use std::{
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
};

const MAGIC: &[u8] = b"minik8s snapshot\n";

/// The version of the file format.
const FILE_VERSION: u8 = 1;

/// The largest frame that is read; what is written is far smaller.
const MAX_FRAME_BYTES: u32 = 1 << 20;

/// The state of a store at one moment, with its retained history. Clones share it.
#[derive(Clone)]
pub struct Snapshot {
    image: Arc<StateImage>,
}

impl Snapshot {
    pub(crate) fn of(state: &State) -> Snapshot {
        Snapshot { image: Arc::new(state.image()) }
    }

    /// The newest revision in it.
    pub fn revision(&self) -> Revision {
        self.image.revision()
    }

    pub(crate) fn chunks(&self) -> Chunks {
        self.image.clone().chunks()
    }

    /// Writes it as a file.
    pub fn write_to(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(MAGIC)?;
        out.write_all(&[FILE_VERSION])?;
        for chunk in self.chunks() {
            let length = u32::try_from(chunk.len()).expect("chunks are small");
            out.write_all(&length.to_le_bytes())?;
            out.write_all(&crc32fast::hash(&chunk).to_le_bytes())?;
            out.write_all(&chunk)?;
        }
        out.write_all(&0u32.to_le_bytes())?;
        out.flush()
    }

    /// Reads what [`Snapshot::write_to`] wrote; `path` is only for error messages.
    pub fn read_from(mut input: impl Read, path: &Path) -> Result<Snapshot> {
        let damaged = |what: String| Error::Damaged { path: path.into(), what };
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("the file ends too early".into()),
            _ => Error::Io { path: path.into(), reason: error.to_string() },
        };
        let mut head = [0; MAGIC.len() + 1];
        input.read_exact(&mut head).map_err(failed)?;
        if &head[..MAGIC.len()] != MAGIC {
            return Err(damaged("it is not a snapshot".into()));
        }
        if head[MAGIC.len()] != FILE_VERSION {
            let (found, known) = (head[MAGIC.len()].into(), FILE_VERSION.into());
            return Err(Error::NewerFormat { path: path.into(), found, known });
        }
        let mut loader = Loader::new();
        for frame in 0u64.. {
            let mut word = [0; 4];
            input.read_exact(&mut word).map_err(failed)?;
            let length = u32::from_le_bytes(word);
            if length == 0 {
                break;
            }
            input.read_exact(&mut word).map_err(failed)?;
            let mut chunk = vec![0; length.min(MAX_FRAME_BYTES) as usize];
            input.read_exact(&mut chunk).map_err(failed)?;
            if length > MAX_FRAME_BYTES || crc32fast::hash(&chunk) != u32::from_le_bytes(word) {
                return Err(damaged(format!("frame {frame} does not match its checksum")));
            }
            loader.push(&chunk).map_err(|error| damaged(format!("frame {frame}: {error}")))?;
        }
        let state = loader.finish().map_err(|error| damaged(error.to_string()))?;
        Ok(Snapshot::of(&state))
    }

    /// The state itself, made anew.
    pub(crate) fn to_state(&self) -> State {
        let mut loader = Loader::new();
        for chunk in self.chunks() {
            loader.push(&chunk).expect("an image that was made here loads");
        }
        loader.finish().expect("an image that was made here is whole")
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot(@{})", self.revision())
    }
}
