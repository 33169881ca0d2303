//! Files into an archive: `tar c`.

use super::{BLOCK_BYTES, PIECE_BYTES, Run, Stop};
use crate::process::{Output, errno_text};
use flate2::Compression;
use flate2::write::GzEncoder;
use minik8s_cri::{FileKind, Metadata};
use std::io::{self, Write};
use tar::{EntryType, Header};

/// GNU's archives are a whole number of records of this size.
const RECORD_BYTES: u64 = 20 * BLOCK_BYTES as u64;
/// How long a name or a link's target may be that stands in a header; a longer one is a member of its own before it.
const HEADER_NAME_BYTES: usize = 100;

/// An archive that is written.
struct Writer {
    output: Output,
    pack: Option<GzEncoder<Vec<u8>>>,
    gnu: bool,
    written: u64,
}

impl Writer {
    async fn write(&mut self, data: &[u8]) -> Result<(), Stop> {
        self.written += data.len() as u64;
        let result = match self.pack.as_mut() {
            None => self.output.write(data).await,
            Some(pack) => {
                pack.write_all(data)?;
                self.output.write(std::mem::take(pack.get_mut())).await
            }
        };
        result.map_err(|error| self.cannot_write(error))
    }

    fn cannot_write(&self, error: io::Error) -> Stop {
        match (error.kind(), self.gnu) {
            (io::ErrorKind::BrokenPipe, _) => Stop::Stream(error),
            (_, true) => Stop::Fatal(format!("Cannot write: {}", errno_text(&error))),
            (_, false) => Stop::Fatal(format!("write error: {}", errno_text(&error))),
        }
    }

    async fn zeros(&mut self, count: u64) -> Result<(), Stop> {
        self.write(&vec![0; usize::try_from(count).unwrap_or_default()]).await
    }

    /// Fills the last block.
    async fn pad(&mut self) -> Result<(), Stop> {
        self.zeros(self.written.next_multiple_of(BLOCK_BYTES as u64) - self.written).await
    }

    /// A name or target that is too long for a header.
    async fn long_name(&mut self, kind: EntryType, name: &str) -> Result<(), Stop> {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(name.len() as u64 + 1);
        header.set_cksum();
        self.write(header.as_bytes()).await?;
        self.write(name.as_bytes()).await?;
        self.zeros(1).await?;
        self.pad().await
    }

    async fn header(
        &mut self,
        name: &str,
        kind: EntryType,
        metadata: &Metadata,
        target: &str,
        size: u64,
    ) -> Result<(), Stop> {
        if target.len() > HEADER_NAME_BYTES {
            self.long_name(EntryType::GNULongLink, target).await?;
        }
        if name.len() > HEADER_NAME_BYTES {
            self.long_name(EntryType::GNULongName, name).await?;
        }
        let mut header = Header::new_gnu();
        let short = |text: &str| text.len().min(HEADER_NAME_BYTES);
        header.as_old_mut().name[..short(name)].copy_from_slice(&name.as_bytes()[..short(name)]);
        header.as_old_mut().linkname[..short(target)].copy_from_slice(&target.as_bytes()[..short(target)]);
        header.set_entry_type(kind);
        header.set_mode(if kind.is_symlink() { 0o777 } else { metadata.mode });
        header.set_mtime(metadata.modified.as_second().try_into().unwrap_or_default());
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root")?;
        header.set_groupname("root")?;
        header.set_size(size);
        header.set_cksum();
        self.write(header.as_bytes()).await
    }

    /// Two empty blocks, and what GNU and the compressor put behind them.
    async fn finish(mut self) -> Result<(), Stop> {
        self.zeros(2 * BLOCK_BYTES as u64).await?;
        if self.gnu {
            self.zeros(self.written.next_multiple_of(RECORD_BYTES) - self.written).await?;
        }
        if let Some(pack) = self.pack.take() {
            let end = pack.finish()?;
            self.output.write(end).await.map_err(|error| self.cannot_write(error))?;
        }
        Ok(())
    }
}

/// A file that waits for its turn, and the directories it was reached through where links are followed.
struct Found {
    name: String,
    through: Vec<String>,
}

pub(super) async fn create(run: &mut Run) -> Result<(), Stop> {
    if run.request.operands.is_empty() {
        return Err(match run.gnu {
            true => super::usage("Cowardly refusing to create an empty archive", 2, run.gnu),
            false => Stop::Fatal("empty archive".to_string()),
        });
    }
    let output = match &run.request.file {
        None => run.process.stdout.clone(),
        Some(file) => run.process.open_output(file, false).map_err(|error| super::cannot_open(run, file, &error))?,
    };
    let itself =
        run.request.file.as_ref().and_then(|file| run.process.world.fs.canonical(&run.process.path(file)).ok());
    let pack = run.request.gzip.then(|| GzEncoder::new(Vec::new(), Compression::default()));
    let mut writer = Writer { output, pack, gnu: run.gnu, written: 0 };
    for operand in run.request.operands.clone() {
        let trimmed = operand.trim_end_matches('/');
        let name = if trimmed.is_empty() { "/" } else { trimmed }.to_string();
        let mut waiting = vec![Found { name, through: Vec::new() }];
        // A tree is walked with a list of its own, so that a deep one needs no stack.
        while let Some(found) = waiting.pop() {
            add(run, &mut writer, found, itself.as_deref(), &mut waiting).await?;
            run.process.charge(1).await;
        }
    }
    writer.finish().await
}

/// Adds one file; what is in a directory waits.
async fn add(
    run: &mut Run,
    writer: &mut Writer,
    Found { name, through }: Found,
    itself: Option<&str>,
    waiting: &mut Vec<Found>,
) -> Result<(), Stop> {
    if run.is_excluded(&name) {
        return Ok(());
    }
    let fs = run.process.world.fs.clone();
    let path = run.path(&name);
    let metadata = if run.request.dereference { fs.metadata(&path) } else { fs.symlink_metadata(&path) };
    let metadata = match metadata {
        Ok(metadata) => metadata,
        Err(error) => return cannot(run, "stat", &name, errno_text(&error)).await,
    };
    if itself.is_some() && fs.canonical(&path).ok().as_deref() == itself {
        let message = match run.gnu {
            true => format!("{name}: archive cannot contain itself; not dumped"),
            false => format!("{name}: file is the archive; skipping"),
        };
        run.process.complain(message).await;
        return Ok(());
    }
    let shown =
        if metadata.kind == FileKind::Directory { format!("{}/", name.trim_end_matches('/')) } else { name.clone() };
    let stored = run.safe_name(&shown).await.to_string();
    match metadata.kind {
        FileKind::Directory => {
            let entries = match fs.list(&path) {
                Ok(entries) => entries,
                Err(error) => return cannot(run, "open", &name, errno_text(&error)).await,
            };
            let mut below = Vec::new();
            if run.request.dereference {
                let canonical = fs.canonical(&path).unwrap_or_default();
                if through.contains(&canonical) {
                    return cannot(run, "follow", &name, "Too many levels of symbolic links").await;
                }
                below = through;
                below.push(canonical);
            }
            writer.header(&stored, EntryType::Directory, &metadata, "", 0).await?;
            let child =
                |entry: minik8s_cri::DirEntry| Found { name: format!("{shown}{}", entry.name), through: below.clone() };
            waiting.extend(entries.into_iter().rev().map(child));
        }
        FileKind::Symlink => {
            let target = fs.read_link(&path).unwrap_or_default();
            writer.header(&stored, EntryType::Symlink, &metadata, &target, 0).await?;
        }
        FileKind::File if fs.device(&path).is_some() => {
            writer.header(&stored, EntryType::Char, &metadata, "", 0).await?;
        }
        FileKind::File => {
            let content = match fs.read(&path) {
                Ok(content) => content,
                Err(error) => return cannot(run, "open", &name, errno_text(&error)).await,
            };
            writer.header(&stored, EntryType::Regular, &metadata, "", content.len() as u64).await?;
            for piece in content.chunks(PIECE_BYTES) {
                writer.write(piece).await?;
                run.process.charge(1).await;
            }
            writer.pad().await?;
        }
    }
    if run.request.verbose {
        let told = if run.request.file.is_none() { &run.process.stderr } else { &run.process.stdout };
        told.line(&stored).await?;
    }
    Ok(())
}

/// A file that cannot be added is left out, and the rest goes on.
async fn cannot(run: &mut Run, verb: &str, name: &str, reason: &str) -> Result<(), Stop> {
    let message = match run.gnu {
        true => format!("{name}: Cannot {verb}: {reason}"),
        false => format!("{name}: {reason}"),
    };
    run.process.complain(message).await;
    run.failed = true;
    Ok(())
}
