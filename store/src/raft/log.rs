//! The Raft log and the hard state in files of their own.
//!
//! ```text
//!   log/00000000000000000007     segments, numbered without gaps; only the last one is written to
//!   log/00000000000000000008
//!   log/spare-0000000000000006   what was a segment, full of zeros, to be the next one
//!
//!   segment   frame frame frame … zeros, which are room for the next ones
//!   frame     magic, length and crc32 of the body (each four bytes, little-endian), body
//!   body      items: p end              of the segment before this one; first in each segment but the very first
//!                    h term vote commit the hard state
//!                    c index            the log ends before this index
//!                    e length crc32 …   an entry
//! ```
//! A frame is what one turn of the Raft thread writes: it is there as a whole or not at all. Its checksum covers segment
//! and offset too, so that nothing in a wrong place is taken for what belongs there. Writing over zeros that are on disk
//! already costs half of what growing a file does, since the file system has nothing of its own to write.
//!
//! A crash may leave the newest frame in pieces: what is not whole behind the [`Extent`] that was noted as synced is cut
//! off; before it, it is damage.

use super::entry;
use crate::{
    Error, Result,
    encoding::{DecodeError, Decoder, put_u64},
};
use bytes::{Buf as _, Bytes};
use raft::eraftpb::{Entry, HardState};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// A segment that has grown to this size is followed by another one.
pub const SEGMENT_BYTES: u64 = 4 << 20;

/// How many zeros are laid down at once for frames to come.
const ROOM_BYTES: u64 = 256 << 10;

/// How many files that nothing is needed of any more are kept for segments to come. So the log's files take what they take at
/// most, and blocks that were laid down once are not given back and asked for again.
const MAX_SPARES: usize = 16;

const SPARE_PREFIX: &str = "spare-";

/// `m8lg`: where a frame begins.
const MAGIC: u32 = u32::from_le_bytes(*b"m8lg");
const HEADER_BYTES: usize = 12;

mod item {
    pub(super) const PREVIOUS_END: u8 = b'p';
    pub(super) const HARD_STATE: u8 = b'h';
    pub(super) const CUT: u8 = b'c';
    pub(super) const ENTRY: u8 = b'e';
}

/// How far the log goes: a place in a segment. Later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Extent {
    pub(super) segment: u64,
    pub(super) end: u64,
}

/// What one turn adds to the log.
#[derive(Default)]
pub(super) struct Frame {
    body: Vec<u8>,
    /// Of each change of the log the index before which it ends then, and the entry that follows, if one does.
    changes: Vec<(u64, Option<InBody>)>,
    hard_state: Option<HardState>,
}

/// Where an entry is in a frame's body.
struct InBody {
    start: usize,
    length: usize,
    checksum: u32,
}

/// The log, open.
pub(super) struct Log {
    folder: PathBuf,
    /// The oldest first; never empty.
    segments: VecDeque<Segment>,
    spares: Vec<Spare>,
    /// Where the entries from `first` on are, without gaps.
    places: VecDeque<Place>,
    first: u64,
    hard_state: HardState,
    /// Up to where it is on disk.
    whole: Extent,
    /// A segment was made since the folder was synced.
    folder_changed: bool,
}

struct Segment {
    number: u64,
    file: File,
    /// Where the next frame goes,
    end: u64,
    /// and how long the file is: what is between them are zeros.
    length: u64,
    /// The highest index among its entries.
    last: Option<u64>,
}

/// A file of zeros.
struct Spare {
    path: PathBuf,
    file: File,
    length: u64,
}

/// Where an entry is.
#[derive(Clone, Copy)]
struct Place {
    segment: u64,
    offset: u64,
    length: usize,
    checksum: u32,
}

/// What was found in the segments.
#[derive(Default)]
pub(super) struct Found {
    pub(super) hard_state: HardState,
    /// Without gaps; the first may be older than the snapshot.
    pub(super) entries: Vec<Entry>,
}

impl Frame {
    pub(super) fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    pub(super) fn put_hard_state(&mut self, hard_state: &HardState) {
        self.body.push(item::HARD_STATE);
        for number in [hard_state.term, hard_state.vote, hard_state.commit] {
            put_u64(&mut self.body, number);
        }
        self.hard_state = Some(hard_state.clone());
    }

    /// Entries from an index on are not part of the log any more.
    pub(super) fn cut(&mut self, index: u64) {
        self.body.push(item::CUT);
        put_u64(&mut self.body, index);
        self.changes.push((index, None));
    }

    pub(super) fn put_entry(&mut self, entry: &Entry) {
        let bytes = entry::encode(entry);
        self.body.push(item::ENTRY);
        put_u64(&mut self.body, bytes.len() as u64);
        let checksum = crc32fast::hash(&bytes);
        self.body.extend_from_slice(&checksum.to_le_bytes());
        self.changes.push((entry.index, Some(InBody { start: self.body.len(), length: bytes.len(), checksum })));
        self.body.extend_from_slice(&bytes);
    }

    fn put_previous_end(&mut self, end: u64) {
        self.body.push(item::PREVIOUS_END);
        put_u64(&mut self.body, end);
    }
}

fn checksum(segment: u64, offset: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}"))
}

fn damaged(path: &Path, what: impl Into<String>) -> Error {
    Error::Damaged { path: path.into(), what: what.into() }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |error| Error::Io { path: path.into(), reason: error.to_string() }
}

impl Segment {
    fn create(folder: &Path, number: u64) -> io::Result<Segment> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path_of(folder, number))?;
        Ok(Segment { number, file, end: 0, length: 0, last: None })
    }

    /// Puts a frame behind the last one.
    fn put(&mut self, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).map_err(|_| io::Error::other("a turn of the log is too large"))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        for number in [MAGIC, length, checksum(self.number, self.end, body)] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(body);
        let end = self.end + bytes.len() as u64;
        if end > self.length {
            bytes.resize(bytes.len() + ROOM_BYTES as usize, 0);
            self.length = end + ROOM_BYTES;
        }
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(&bytes)?;
        self.end = end;
        Ok(())
    }

    /// Gives back the room behind the last frame.
    fn trim(&mut self) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.length = self.end;
        self.file.sync_all()
    }
}

impl Log {
    /// An empty log in a folder that is made for it.
    pub(super) fn create(folder: &Path) -> Result<Log> {
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let segment = Segment::create(folder, 1).map_err(failed(folder))?;
        Ok(Log {
            folder: folder.into(),
            segments: VecDeque::from([segment]),
            spares: Vec::new(),
            places: VecDeque::new(),
            first: 0,
            hard_state: HardState::default(),
            whole: Extent::default(),
            folder_changed: true,
        })
    }

    /// Opens a log that is known to go as far as `whole`, and reads it.
    pub(super) fn open(folder: &Path, whole: Extent) -> Result<(Log, Found)> {
        let numbers = numbers(folder)?;
        let last = *numbers.last().ok_or_else(|| damaged(folder, "the log is missing"))?;
        if let Some(gap) = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
            return Err(damaged(folder, format!("segment {} of the log is missing", gap[0] + 1)));
        }
        if last < whole.segment {
            return Err(damaged(folder, format!("segment {} of the log is missing", whole.segment)));
        }
        let mut log = Log {
            folder: folder.into(),
            segments: VecDeque::new(),
            spares: Vec::new(),
            places: VecDeque::new(),
            first: 0,
            hard_state: HardState::default(),
            whole,
            folder_changed: false,
        };
        let mut entries = Vec::new();
        for number in numbers {
            log.read_segment(number, number == last, &mut entries)?;
        }
        if log.segments.len() > 1 && log.tail().end == 0 {
            // It was made, and the process ended.
            log.put_first_frame().map_err(failed(folder))?;
        }
        if log.segments[0].number > 1 && log.hard_state == HardState::default() {
            return Err(damaged(folder, "the hard state is missing"));
        }
        // What a killed process wrote may still be on its way; what is noted from now on counts on it.
        log.folder_changed = true;
        log.sync().map_err(failed(folder))?;
        let hard_state = log.hard_state.clone();
        Ok((log, Found { hard_state, entries }))
    }

    fn read_segment(&mut self, number: u64, is_last: bool, entries: &mut Vec<Entry>) -> Result<()> {
        let path = path_of(&self.folder, number);
        let mut file = File::options().read(true).write(true).open(&path).map_err(failed(&path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed(&path))?;
        let length = bytes.len() as u64;
        let bytes = Bytes::from(bytes);
        let mut segment = Segment { number, file, end: 0, length, last: None };
        let flaw = loop {
            match next_frame(&bytes, number, segment.end as usize) {
                Next::Frame(body) => {
                    let offset = segment.end + HEADER_BYTES as u64;
                    segment.end = offset + body.len() as u64;
                    self.take(&mut segment, offset, body, entries)
                        .map_err(|what| damaged(&path, format!("in the frame before byte {}: {what}", segment.end)))?;
                }
                Next::End => break None,
                Next::Flaw(flaw) => break Some(flaw),
            }
        };
        let end = Extent { segment: number, end: segment.end };
        match flaw {
            Some(flaw) if !is_last || end < self.whole => {
                return Err(damaged(&path, format!("the frame at byte {} {flaw}", segment.end)));
            }
            Some(_) => {
                tracing::warn!(path = %path.display(), end = segment.end, "the torn end of the log was cut off");
                segment.trim().map_err(failed(&path))?;
            }
            None if number == self.whole.segment && end < self.whole => {
                let written = self.whole.end;
                return Err(damaged(&path, format!("it ends at byte {}, but was written up to {written}", end.end)));
            }
            None => {}
        }
        self.whole = self.whole.max(end);
        self.segments.push_back(segment);
        Ok(())
    }

    /// Takes in what a frame of a segment says.
    fn take(
        &mut self,
        segment: &mut Segment,
        offset: u64,
        body: Bytes,
        entries: &mut Vec<Entry>,
    ) -> std::result::Result<(), String> {
        let undecodable = |error: DecodeError| format!("it does not decode: {error}");
        let length = body.len();
        let mut input = body;
        while input.has_remaining() {
            let tag = input.get_u8();
            let mut numbers = Decoder::new(input.clone());
            match tag {
                item::PREVIOUS_END => {
                    let end = numbers.u64().map_err(undecodable)?;
                    if self.segments.back().is_some_and(|previous| previous.end != end) {
                        return Err(format!("segment {} of the log ended at byte {end}", segment.number - 1));
                    }
                }
                item::HARD_STATE => {
                    let mut number = || numbers.u64().map_err(undecodable);
                    self.hard_state =
                        HardState { term: number()?, vote: number()?, commit: number()?, ..HardState::default() };
                }
                item::CUT => {
                    let index = numbers.u64().map_err(undecodable)?;
                    self.cut(index);
                    entries.truncate(self.places.len());
                }
                item::ENTRY => {
                    let bytes = numbers.u64().map_err(undecodable)? as usize;
                    let mut rest = numbers.rest();
                    if rest.len() < 4 || rest.len() - 4 < bytes {
                        return Err(undecodable(DecodeError::TooShort));
                    }
                    let checksum = rest.get_u32_le();
                    let place = Place {
                        segment: segment.number,
                        offset: offset + (length - rest.len()) as u64,
                        length: bytes,
                        checksum,
                    };
                    let entry = entry::decode(Bytes::copy_from_slice(&rest[..bytes])).map_err(undecodable)?;
                    self.add(entry.index, place)
                        .map_err(|expected| format!("log entry {expected} is missing, {} follows", entry.index))?;
                    entries.truncate(self.places.len() - 1);
                    segment.last = segment.last.max(Some(entry.index));
                    entries.push(entry);
                    rest.advance(bytes);
                    input = rest;
                    continue;
                }
                other => return Err(undecodable(DecodeError::Tag(other))),
            }
            input = numbers.rest();
        }
        Ok(())
    }

    /// Adds a frame. With `sync` it, and all before it, are on disk when this returns.
    pub(super) fn append(&mut self, frame: Frame, sync: bool) -> io::Result<()> {
        if let Some(expected) = self.gap_before(&frame) {
            return Err(io::Error::other(format!("log entry {expected} is missing")));
        }
        let full = self.tail().end + frame.body.len() as u64 > SEGMENT_BYTES && self.tail().last.is_some();
        if full {
            self.begin_segment()?;
        }
        self.put(frame)?;
        // A segment is on disk before those that it follows may go.
        if sync || full { self.sync() } else { Ok(()) }
    }

    /// The index that the entries of a frame leave out, if they do: what is once in a file cannot be taken back.
    fn gap_before(&self, frame: &Frame) -> Option<u64> {
        // The entries that there are, as the first and the one after the last.
        let (mut first, mut end) = (self.first, self.first + self.places.len() as u64);
        for (index, entry) in &frame.changes {
            end = end.min(*index).max(first);
            if entry.is_some() {
                if first == end {
                    (first, end) = (*index, *index);
                }
                if *index != end {
                    return Some(end);
                }
                end += 1;
            }
        }
        None
    }

    fn put(&mut self, frame: Frame) -> io::Result<()> {
        let tail = self.tail();
        let (number, offset) = (tail.number, tail.end + HEADER_BYTES as u64);
        tail.put(&frame.body)?;
        for (index, entry) in frame.changes {
            let Some(InBody { start, length, checksum }) = entry else {
                self.cut(index);
                continue;
            };
            let place = Place { segment: number, offset: offset + start as u64, length, checksum };
            self.add(index, place).map_err(|_| io::Error::other("the log has a gap"))?;
            let tail = self.tail();
            tail.last = tail.last.max(Some(index));
        }
        if let Some(hard_state) = frame.hard_state {
            self.hard_state = hard_state;
        }
        Ok(())
    }

    /// Every segment begins with all that is to be known of those before it.
    fn begin_segment(&mut self) -> io::Result<()> {
        let tail = self.tail();
        tail.trim()?;
        let number = tail.number + 1;
        let segment = match self.spares.pop() {
            Some(Spare { path, file, length }) => {
                fs::rename(path, path_of(&self.folder, number))?;
                Segment { number, file, end: 0, length, last: None }
            }
            None => Segment::create(&self.folder, number)?,
        };
        self.segments.push_back(segment);
        self.folder_changed = true;
        self.put_first_frame()
    }

    fn put_first_frame(&mut self) -> io::Result<()> {
        let mut first = Frame::default();
        first.put_previous_end(self.segments[self.segments.len() - 2].end);
        first.put_hard_state(&self.hard_state.clone());
        self.put(first)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.tail().file.sync_data()?;
        if std::mem::take(&mut self.folder_changed) {
            sync_folder(&self.folder)?;
        }
        let tail = self.tail();
        self.whole = Extent { segment: tail.number, end: tail.end };
        Ok(())
    }

    /// Up to where it is on disk.
    pub(super) fn whole(&self) -> Extent {
        self.whole
    }

    /// Nothing more will be written for now.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.tail().trim()?;
        self.sync()
    }

    /// Retires segments that hold nothing newer than an index, which a snapshot has. Those that come back after a crash
    /// are retired another time.
    pub(super) fn forget(&mut self, index: u64) -> io::Result<()> {
        while self.first <= index && self.places.pop_front().is_some() {
            self.first += 1;
        }
        let mut retired = Vec::new();
        while self.segments.len() > 1 && self.segments[0].last.is_none_or(|last| last <= index) {
            let Some(Segment { number, file, length, .. }) = self.segments.pop_front() else { break };
            let path = path_of(&self.folder, number);
            if self.spares.len() + retired.len() < MAX_SPARES {
                let spare = self.folder.join(format!("{SPARE_PREFIX}{number:016}"));
                fs::rename(path, &spare)?;
                retired.push(Spare { path: spare, file, length });
            } else {
                fs::remove_file(path)?;
            }
        }
        if !retired.is_empty() {
            // What still has the name of a segment after a crash must still be one.
            sync_folder(&self.folder)?;
        }
        let zeros = vec![0; ROOM_BYTES as usize];
        for mut spare in retired {
            spare.file.seek(SeekFrom::Start(0))?;
            let mut left = spare.length as usize;
            while left > 0 {
                let part = left.min(zeros.len());
                spare.file.write_all(&zeros[..part])?;
                left -= part;
            }
            self.spares.push(spare);
        }
        Ok(())
    }

    /// One entry, which is known to be there.
    pub(super) fn entry(&mut self, index: u64) -> Result<Entry> {
        let place = index.checked_sub(self.first).and_then(|at| self.places.get(usize::try_from(at).ok()?)).copied();
        let place = place.ok_or_else(|| damaged(&self.folder, format!("log entry {index} is missing")))?;
        let path = path_of(&self.folder, place.segment);
        let segment = self.segments.iter_mut().find(|segment| segment.number == place.segment);
        let segment = segment.ok_or_else(|| damaged(&path, format!("log entry {index} is missing")))?;
        let mut bytes = vec![0; place.length];
        segment.file.seek(SeekFrom::Start(place.offset)).map_err(failed(&path))?;
        segment.file.read_exact(&mut bytes).map_err(failed(&path))?;
        if crc32fast::hash(&bytes) != place.checksum {
            return Err(damaged(&path, format!("log entry {index} does not match its checksum")));
        }
        entry::decode(bytes.into())
            .map_err(|error| damaged(&path, format!("log entry {index} does not decode: {error}")))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How much room the segments take.
    pub(super) fn bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(|segment| segment.length).sum();
        segments + self.spares.iter().map(|spare| spare.length).sum::<u64>()
    }

    fn tail(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("there is always one")
    }

    fn cut(&mut self, index: u64) {
        self.places.truncate(usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX));
    }

    /// Where an entry is that follows those before its index. The index that was expected, if it does not follow.
    fn add(&mut self, index: u64, place: Place) -> std::result::Result<(), u64> {
        self.cut(index);
        if self.places.is_empty() {
            self.first = index;
        }
        let expected = self.first + self.places.len() as u64;
        if index != expected {
            return Err(expected);
        }
        self.places.push_back(place);
        Ok(())
    }
}

/// The numbers of the segments in a folder, in order. Spare files are removed.
fn numbers(folder: &Path) -> Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(folder)(error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed(folder))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(SPARE_PREFIX)) {
            // Whether it was filled with zeros nobody knows.
            fs::remove_file(entry.path()).map_err(failed(folder))?;
            continue;
        }
        numbers.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

enum Next {
    Frame(Bytes),
    /// Only room follows.
    End,
    /// Something follows that is no whole frame.
    Flaw(&'static str),
}

fn next_frame(segment: &Bytes, number: u64, offset: usize) -> Next {
    let rest = segment.slice(offset..);
    if rest.iter().all(|byte| *byte == 0) {
        return Next::End;
    }
    if rest.len() < HEADER_BYTES {
        return Next::Flaw("is not whole");
    }
    let mut header = rest.clone();
    let (magic, length, stored) = (header.get_u32_le(), header.get_u32_le() as usize, header.get_u32_le());
    if magic != MAGIC {
        return Next::Flaw("does not begin as one");
    }
    if length > header.len() {
        return Next::Flaw("is not whole");
    }
    let body = header.slice(..length);
    if checksum(number, offset as u64, &body) != stored {
        return Next::Flaw("does not match its checksum");
    }
    Next::Frame(body)
}

/// Makes the entries of a folder durable, where the operating system has a call for it.
#[cfg(unix)]
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the entries of a folder durable, where the operating system has a call for it.
#[cfg(not(unix))]
pub(super) fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of one entry each, which fill more than two segments.
    const ENTRIES: u64 = 100;
    const BYTES: usize = 100_000;

    fn entry(index: u64) -> Entry {
        Entry { index, term: 1, data: vec![index as u8; BYTES].into(), ..Entry::default() }
    }

    fn filled(folder: &Path) -> Log {
        let mut log = Log::create(folder).unwrap();
        for index in 1..=ENTRIES {
            let mut frame = Frame::default();
            frame.put_entry(&entry(index));
            frame.put_hard_state(&HardState { term: 1, vote: 1, commit: index, ..HardState::default() });
            log.append(frame, true).unwrap();
        }
        log
    }

    fn reopened(folder: &Path, whole: Extent) -> Result<(Log, Vec<u64>, u64)> {
        let (log, found) = Log::open(folder, whole)?;
        let indexes = found.entries.iter().map(|entry| entry.index).collect();
        Ok((log, indexes, found.hard_state.commit))
    }

    #[test]
    fn a_log_of_several_segments_is_read_back_and_forgotten_from_the_front() {
        let folder = tempfile::tempdir().unwrap();
        let whole = filled(folder.path()).whole();
        assert!(whole.segment > 2, "{whole:?}");

        let (mut log, indexes, commit) = reopened(folder.path(), whole).unwrap();
        assert_eq!((indexes, commit, log.whole()), ((1..=ENTRIES).collect(), ENTRIES, whole));
        for index in [1, ENTRIES / 2, ENTRIES] {
            assert_eq!(log.entry(index), Ok(entry(index)));
        }
        let before = log.bytes();
        log.forget(ENTRIES / 2).unwrap();
        assert_eq!((log.bytes(), log.segments.len() + log.spares.len()), (before, whole.segment as usize));
        assert!(log.entry(ENTRIES / 2).is_err());
        assert_eq!(log.entry(ENTRIES / 2 + 1), Ok(entry(ENTRIES / 2 + 1)));

        // The state is known from the newest segment alone.
        log.forget(ENTRIES).unwrap();
        let (log, _, commit) = reopened(folder.path(), whole).unwrap();
        assert_eq!((log.segments.len(), log.spares.len(), commit), (1, 0, ENTRIES));
    }

    #[test]
    fn files_are_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = filled(folder.path());
        let mut most = log.bytes();
        for index in ENTRIES + 1..6 * ENTRIES {
            let mut frame = Frame::default();
            frame.put_entry(&entry(index));
            log.append(frame, true).unwrap();
            if index % 50 == 0 {
                log.forget(index - 20).unwrap();
            }
            most = most.max(log.bytes());
        }
        assert!(most < 5 * SEGMENT_BYTES, "{most}");
        assert!(log.bytes() > 3 * SEGMENT_BYTES, "{}", log.bytes());
        let (_, indexes, _) = reopened(folder.path(), log.whole()).unwrap();
        assert!(indexes.contains(&(5 * ENTRIES + 90)) && indexes.last() == Some(&(6 * ENTRIES - 1)));
        // Without the room behind it no frame is taken for one of the file's former life.
        drop(reopened(folder.path(), log.whole()).unwrap());
    }

    #[test]
    fn another_leaders_entries_take_the_place_of_those_from_their_index_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = filled(folder.path());
        let other = Entry { term: 2, ..entry(50) };
        let mut frame = Frame::default();
        frame.cut(50);
        frame.put_entry(&other);
        log.append(frame, true).unwrap();
        assert_eq!(log.entry(50), Ok(other.clone()));
        assert!(log.entry(51).is_err());
        let (mut log, indexes, _) = reopened(folder.path(), log.whole()).unwrap();
        assert_eq!(indexes, (1..=50).collect::<Vec<_>>());
        assert_eq!(log.entry(50), Ok(other));
    }

    #[test]
    fn a_gap_never_gets_into_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = filled(folder.path());
        let frame = |index: u64, cut: Option<u64>| {
            let mut frame = Frame::default();
            cut.into_iter().for_each(|cut| frame.cut(cut));
            frame.put_entry(&entry(index));
            frame
        };
        let refused = log.append(frame(ENTRIES + 2, None), true).map_err(|error| error.to_string());
        assert_eq!(refused, Err(format!("log entry {} is missing", ENTRIES + 1)));
        assert!(log.append(frame(52, Some(51)), true).is_err());
        log.append(frame(51, Some(51)), true).unwrap();
        // After all was cut any index is the first.
        log.append(frame(500, Some(0)), true).unwrap();
        let (_, indexes, _) = reopened(folder.path(), log.whole()).unwrap();
        assert_eq!(indexes, [500]);
    }

    #[test]
    fn a_segment_that_is_missing_or_shorter_than_it_was_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let whole = filled(folder.path()).whole();
        let refusal = || reopened(folder.path(), whole).err().map(|error| error.to_string()).unwrap_or_default();
        let (first, second) = (path_of(folder.path(), 1), path_of(folder.path(), 2));
        let (newest, aside) = (path_of(folder.path(), whole.segment), folder.path().join("aside"));
        for (path, number) in [(&second, 2), (&newest, whole.segment)] {
            fs::rename(path, &aside).unwrap();
            assert!(refusal().ends_with(&format!("segment {number} of the log is missing")), "{}", refusal());
            fs::rename(&aside, path).unwrap();
        }
        // A whole frame less, which only the next segment can tell.
        let bytes = fs::read(&first).unwrap();
        let frame = bytes.windows(4).rposition(|window| window == MAGIC.to_le_bytes()).unwrap();
        fs::write(&first, &bytes[..frame]).unwrap();
        assert!(refusal().ends_with(&format!("segment 1 of the log ended at byte {}", bytes.len())), "{}", refusal());
        fs::write(&first, &bytes).unwrap();
        assert_eq!(refusal(), "");
    }

    #[test]
    fn a_segment_that_was_just_begun_knows_what_came_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let whole = filled(folder.path()).whole();
        fs::write(path_of(folder.path(), whole.segment + 1), "").unwrap();
        let (mut log, ..) = reopened(folder.path(), whole).unwrap();
        log.forget(ENTRIES).unwrap();
        let (log, _, commit) = reopened(folder.path(), whole).unwrap();
        assert_eq!((log.segments.len(), commit), (1, ENTRIES));
    }
}
