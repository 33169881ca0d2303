//! An archive as a stream that is read member after member: `ustar`, GNU's and pax headers.

use super::{BLOCK_BYTES, PIECE_BYTES, Stop};
use crate::process::{Input, Process};
use bytes::{Buf, Bytes};
use flate2::write::GzDecoder;
use std::io::Write;
use tar::{EntryType, Header, PaxExtensions};

/// The longest name of a member or target of a link, as a path may be in Linux (`PATH_MAX`).
const NAME_LIMIT_BYTES: usize = 4096;
/// The longest extended header.
const EXTENSION_LIMIT_BYTES: u64 = 1024 * 1024;
/// What is given to the decompressor at once. It makes a thousand times as much of it at most.
const COMPRESSED_PIECE_BYTES: usize = 1024;
/// What compressed archives begin with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// One member, without its content.
pub(super) struct Member {
    /// The name as it stands in the archive.
    pub name: String,
    /// What a link leads to.
    pub target: String,
    pub kind: EntryType,
    pub mode: u32,
    /// Bytes of content.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
    /// `user/group`.
    pub owner: String,
}

/// What extended headers say about the member behind them.
#[derive(Default)]
struct Extension {
    name: Option<String>,
    target: Option<String>,
    size: Option<u64>,
    modified: Option<i64>,
}

/// An archive that is read.
pub(super) struct Archive {
    input: Input,
    gnu: bool,
    /// Bytes as they came, while they are compressed.
    packed: Bytes,
    unpack: Option<GzDecoder<Vec<u8>>>,
    /// Bytes that are ready.
    plain: Bytes,
    /// Content of the current member that nobody has read yet, and what fills its last block.
    left: u64,
    padding: usize,
    begun: bool,
}

impl Archive {
    /// An archive from a stream. GNU's `tar` finds out for itself whether a file is compressed, but not a stream.
    pub async fn open(input: Input, gzip: bool, is_file: bool, gnu: bool) -> Result<Archive, Stop> {
        let packed = Bytes::from(input.read().await?);
        let compressed = packed.starts_with(&GZIP_MAGIC);
        if compressed && !gzip && !is_file && gnu {
            return Err(Stop::Fatal("Archive is compressed. Use -z option".to_string()));
        }
        let unpack = (gzip || compressed && is_file).then(|| GzDecoder::new(Vec::new()));
        let (packed, plain) = if unpack.is_some() { (packed, Bytes::new()) } else { (Bytes::new(), packed) };
        Ok(Archive { input, gnu, packed, unpack, plain, left: 0, padding: 0, begun: false })
    }

    /// Reads on; false at the end.
    async fn fill(&mut self) -> Result<bool, Stop> {
        let Some(unpack) = self.unpack.as_mut() else {
            self.plain = Bytes::from(self.input.read().await?);
            return Ok(!self.plain.is_empty());
        };
        loop {
            if self.packed.is_empty() {
                self.packed = Bytes::from(self.input.read().await?);
            }
            let piece = &self.packed[..self.packed.len().min(COMPRESSED_PIECE_BYTES)];
            let ended = match piece.is_empty() {
                true => unpack.try_finish().map(|()| true),
                // What stands behind the compressed stream is nobody's.
                false => unpack.write(piece).map(|taken| {
                    self.packed.advance(taken);
                    taken == 0
                }),
            };
            if ended.is_err() {
                let (gnu, busybox) = match (unpack.header().is_some(), self.packed.is_empty()) {
                    (false, _) => ("not in gzip format", "invalid magic"),
                    (true, true) => ("unexpected end of file", "unexpected end of file"),
                    (true, false) => ("invalid compressed data--format violated", "corrupted data"),
                };
                return Err(match self.gnu {
                    true => Stop::Child(format!("\ngzip: stdin: {gnu}"), 1),
                    false => Stop::Fatal(busybox.to_string()),
                });
            }
            self.plain = Bytes::from(std::mem::take(unpack.get_mut()));
            if ended.is_ok_and(|ended| ended) || !self.plain.is_empty() {
                return Ok(!self.plain.is_empty());
            }
        }
    }

    /// Up to `limit` bytes; none at the end.
    async fn take(&mut self, limit: usize) -> Result<Bytes, Stop> {
        if self.plain.is_empty() && !self.fill().await? {
            return Ok(Bytes::new());
        }
        Ok(self.plain.split_to(self.plain.len().min(limit)))
    }

    fn cut_short(&self) -> Stop {
        Stop::Fatal(if self.gnu { "Unexpected EOF in archive" } else { "short read" }.to_string())
    }

    /// The next block; `None` where the stream ends.
    async fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, Stop> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            let piece = self.take(BLOCK_BYTES - filled).await?;
            if piece.is_empty() {
                return match filled {
                    0 => Ok(None),
                    _ if self.gnu && !self.begun => Err(not_an_archive()),
                    _ => Err(self.cut_short()),
                };
            }
            block[filled..filled + piece.len()].copy_from_slice(&piece);
            filled += piece.len();
        }
        Ok(Some(block))
    }

    /// The next piece of the current member's content; empty at its end.
    pub async fn content(&mut self) -> Result<Bytes, Stop> {
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        if limit > 0 {
            let piece = self.take(limit).await?;
            self.left -= piece.len() as u64;
            return if piece.is_empty() { Err(self.cut_short()) } else { Ok(piece) };
        }
        while self.padding > 0 {
            let skipped = self.take(self.padding).await?.len();
            if skipped == 0 {
                return Err(self.cut_short());
            }
            self.padding -= skipped;
        }
        Ok(Bytes::new())
    }

    /// Makes `size` bytes what [`Archive::content`] returns.
    fn begin_content(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK_BYTES - (size % BLOCK_BYTES as u64) as usize) % BLOCK_BYTES;
    }

    /// The whole content of an extended header.
    async fn extension(&mut self, size: u64) -> Result<Vec<u8>, Stop> {
        if size > EXTENSION_LIMIT_BYTES {
            return Err(Stop::Fatal("Malformed extended header: it is too long".to_string()));
        }
        self.begin_content(size);
        let mut content = Vec::new();
        loop {
            let piece = self.content().await?;
            if piece.is_empty() {
                return Ok(content);
            }
            content.extend_from_slice(&piece);
        }
    }

    /// The next member; `None` at the end of the archive. What was not read of the last one is skipped.
    pub async fn next(&mut self, process: &mut Process) -> Result<Option<Member>, Stop> {
        while !self.content().await?.is_empty() {
            process.charge(1).await;
        }
        let mut extension = Extension::default();
        loop {
            process.charge(1).await;
            let block = match self.block().await? {
                Some(block) => block,
                None if self.begun => return Ok(None),
                None if self.gnu => return Err(not_an_archive()),
                None => return Err(self.cut_short()),
            };
            if block.iter().all(|byte| *byte == 0) {
                // Whoever writes may not have written all of the end yet.
                while !self.take(PIECE_BYTES).await?.is_empty() {
                    process.charge(1).await;
                }
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            let (Ok(size), true) = (header.entry_size(), has_checksum(header)) else {
                return Err(match (self.gnu, self.begun) {
                    (true, false) => not_an_archive(),
                    (true, true) => Stop::Failed("Skipping to next header".to_string()),
                    (false, _) => Stop::Fatal("invalid tar magic".to_string()),
                });
            };
            self.begun = true;
            let kind = header.entry_type();
            if kind.is_gnu_longname() {
                extension.name = Some(text(&self.extension(size).await?));
            } else if kind.is_gnu_longlink() {
                extension.target = Some(text(&self.extension(size).await?));
            } else if kind.is_pax_local_extensions() {
                extension.read(&self.extension(size).await?);
            } else if kind.is_pax_global_extensions() {
                self.extension(size).await?;
            } else {
                let member = extension.describe(header, size);
                if kind.is_gnu_sparse() || member.name.len().max(member.target.len()) > NAME_LIMIT_BYTES {
                    let reason = if kind.is_gnu_sparse() { "Function not implemented" } else { "File name too long" };
                    let start: String = member.name.chars().take(100).collect();
                    return Err(Stop::Fatal(format!("{start}: Cannot open: {reason}")));
                }
                self.begin_content(member.size);
                return Ok(Some(member));
            }
        }
    }
}

fn not_an_archive() -> Stop {
    Stop::Failed("This does not look like a tar archive".to_string())
}

impl Extension {
    /// Takes over what a pax header says; what it says beyond that is about owners and other attributes.
    fn read(&mut self, content: &[u8]) {
        for pair in PaxExtensions::new(content).flatten() {
            let value = String::from_utf8_lossy(pair.value_bytes());
            match pair.key_bytes() {
                b"path" => self.name = Some(value.into_owned()),
                b"linkpath" => self.target = Some(value.into_owned()),
                b"size" => self.size = value.parse().ok().or(self.size),
                b"mtime" => self.modified = value.split('.').next().and_then(|seconds| seconds.parse().ok()),
                _ => {}
            }
        }
    }

    fn describe(&mut self, header: &Header, size: u64) -> Member {
        let kind = match header.entry_type() {
            // Archives from before there were directories in them.
            EntryType::Regular if header.path_bytes().ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        let size = match kind.is_dir() || kind.is_symlink() || kind.is_hard_link() {
            true => 0,
            false => self.size.unwrap_or(size),
        };
        let named = |name: Option<&[u8]>, number: std::io::Result<u64>| match name {
            Some(name) if !name.is_empty() => text(name),
            _ => number.unwrap_or_default().to_string(),
        };
        Member {
            name: self.name.take().unwrap_or_else(|| text(&header.path_bytes())),
            target: self.target.take().or_else(|| Some(text(&header.link_name_bytes()?))).unwrap_or_default(),
            kind,
            mode: header.mode().unwrap_or(0o644),
            size,
            modified: self.modified.or_else(|| header.mtime().ok()?.try_into().ok()).unwrap_or_default(),
            owner: format!(
                "{}/{}",
                named(header.username_bytes(), header.uid()),
                named(header.groupname_bytes(), header.gid())
            ),
        }
    }
}

/// Text up to its terminating zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Whether a block has the sum of its bytes in it, and so is a header.
fn has_checksum(header: &Header) -> bool {
    let mut copy = header.clone();
    copy.set_cksum();
    matches!((header.cksum(), copy.cksum()), (Ok(given), Ok(right)) if given == right)
}
