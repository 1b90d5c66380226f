//! A disk whose power can be cut: a trace played up to a moment, and what may lie on the disk then.
//!
//! The model is as mean as POSIX allows, meaner than any file system: what was written since a file's last sync
//! arrives or not in any order, by the write, the page or the sector, cut in the middle of a sector, or as garbage in its
//! place; a file's length may arrive without its bytes. Names are safe once their *directory* was synced, and a
//! synced file whose name is not safe may be gone. What happened to one name stays in order. Only what a completed sync
//! covers is certain, and a sync covers what was there when it began.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use fastrand::Rng;

use super::trace::{Change, Trace};

/// Disks write sectors whole or not at all, mostly.
const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

/// Whether the disk does what a sync asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syncs {
    /// What was synced is safe.
    Kept,
    /// A disk that lies, or a program that never syncs: nothing is ever safe. For proving that a check can fail.
    Ignored,
}

/// The state of a disk while a trace is played.
#[derive(Debug)]
pub(crate) struct Disk<'t> {
    trace: &'t Trace,
    syncs: Syncs,
    /// How many changes were played.
    played: usize,
    files: Vec<File>,
    /// The file that a number of an inode means now.
    inodes: HashMap<u64, usize>,
    /// The names that processes see.
    live: BTreeMap<String, Node>,
    /// The names that a cut leaves for certain, before what is in `renames`.
    safe: BTreeMap<String, Node>,
    /// Changes of names that no sync has covered, in order.
    renames: Vec<(usize, Naming)>,
    /// Syncs that have begun: how much was played, and of what.
    running: HashMap<u64, (usize, Synced)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

#[derive(Debug, Default)]
struct File {
    /// The content that a cut leaves for certain, before what is in `edits`.
    safe: Vec<u8>,
    /// What no sync has covered, in order.
    edits: Vec<(usize, Edit)>,
    /// The length that processes see.
    length: u64,
    /// Written to through memory: nobody knows its content.
    mapped: bool,
}

#[derive(Debug, Clone)]
enum Edit {
    Write { offset: u64, data: Range<usize> },
    Resize(u64),
}

#[derive(Debug, Clone)]
enum Naming {
    Add(String, Node),
    Remove(String),
    Rename(String, String),
}

#[derive(Debug)]
enum Synced {
    File(usize),
    Directory(String),
}

/// What a power cut left: a directory's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    directories: Vec<String>,
    files: BTreeMap<String, Vec<u8>>,
    /// How many writes, resizes and changes of names were not safe at the cut.
    pub(crate) at_risk: usize,
    /// How many of them did not arrive, or not whole.
    pub(crate) harmed: usize,
}

impl Image {
    /// The content of a file.
    #[cfg(test)]
    pub(crate) fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    /// Puts it into an empty directory.
    ///
    pub(crate) fn write_to(&self, directory: &Path) -> io::Result<()> {
        for path in &self.directories {
            fs::create_dir(directory.join(path))?;
        }
        self.files.iter().try_for_each(|(path, content)| fs::write(directory.join(path), content))
    }
}

impl<'t> Disk<'t> {
    /// An empty disk, at the beginning of the trace.
    #[must_use]
    pub(crate) fn new(trace: &'t Trace, syncs: Syncs) -> Self {
        Self {
            trace,
            syncs,
            played: 0,
            files: Vec::new(),
            inodes: HashMap::new(),
            live: BTreeMap::new(),
            safe: BTreeMap::new(),
            renames: Vec::new(),
            running: HashMap::new(),
        }
    }

    /// A disk that holds, safely, what an earlier cut left: the trace is of processes that began with it.
    #[must_use]
    pub(crate) fn with(image: &Image, trace: &'t Trace, syncs: Syncs) -> Self {
        let mut disk = Self::new(trace, syncs);
        for path in &image.directories {
            disk.safe.insert(path.clone(), Node::Directory);
        }
        for (path, content) in &image.files {
            let file = File { safe: content.clone(), length: content.len() as u64, ..File::default() };
            disk.safe.insert(path.clone(), Node::File(disk.files.len()));
            disk.files.push(file);
        }
        disk.live.clone_from(&disk.safe);
        disk
    }

    /// Plays on until so many changes of the trace have happened.
    pub(crate) fn play_to(&mut self, changes: usize) {
        let trace = self.trace;
        for change in &trace.changes()[self.played..changes] {
            self.play(change);
            self.played += 1;
        }
    }

    fn play(&mut self, change: &Change) {
        match change {
            Change::Create { path, inode } => {
                let file = self.new_file(*inode);
                self.name(Naming::Add(path.clone(), Node::File(file)));
            }
            Change::MakeDir { path } => self.name(Naming::Add(path.clone(), Node::Directory)),
            Change::Remove { path } => self.name(Naming::Remove(path.clone())),
            Change::Rename { from, to } => self.name(Naming::Rename(from.clone(), to.clone())),
            Change::Write { path, inode, offset, data } => {
                let end = offset + data.len() as u64;
                let edit = Edit::Write { offset: *offset, data: data.clone() };
                let file = self.file(path, *inode);
                file.length = file.length.max(end);
                self.edit(path, *inode, edit);
            }
            Change::Resize { path, inode, length } => {
                self.file(path, *inode).length = *length;
                self.edit(path, *inode, Edit::Resize(*length));
            }
            Change::Map { path, inode } => self.file(path, *inode).mapped = true,
            Change::SyncBegin { path, inode, number } => {
                let synced = match self.live.get(path) {
                    Some(Node::File(_)) => Synced::File(self.index(path, *inode)),
                    _ => Synced::Directory(path.clone()),
                };
                self.running.insert(*number, (self.played, synced));
            }
            Change::SyncEnd { number } => self.sync_ended(*number),
        }
    }

    fn new_file(&mut self, inode: u64) -> usize {
        self.files.push(File::default());
        self.inodes.insert(inode, self.files.len() - 1);
        self.files.len() - 1
    }

    /// The file of a number; one that was there before the trace is known by its name at first.
    fn index(&mut self, path: &str, inode: u64) -> usize {
        if let Some(known) = self.inodes.get(&inode) {
            return *known;
        }
        match self.live.get(path) {
            Some(Node::File(file)) => {
                self.inodes.insert(inode, *file);
                *file
            }
            _ => self.new_file(inode),
        }
    }

    fn file(&mut self, path: &str, inode: u64) -> &mut File {
        let index = self.index(path, inode);
        &mut self.files[index]
    }

    fn edit(&mut self, path: &str, inode: u64, edit: Edit) {
        let at = self.played;
        self.file(path, inode).edits.push((at, edit));
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.live);
        self.renames.push((self.played, naming));
    }

    fn sync_ended(&mut self, number: u64) {
        let Some((began, synced)) = self.running.remove(&number) else { return };
        if self.syncs == Syncs::Ignored {
            return;
        }
        match synced {
            Synced::File(index) => {
                let file = &mut self.files[index];
                let covered = file.edits.partition_point(|(at, _)| *at < began);
                for (_, edit) in file.edits.drain(..covered) {
                    edit.apply(&mut file.safe, self.trace);
                }
            }
            Synced::Directory(directory) => {
                let mut left = Vec::new();
                for (at, naming) in self.renames.drain(..) {
                    if at < began && naming.directory() == directory {
                        naming.apply(&mut self.safe);
                    } else {
                        left.push((at, naming));
                    }
                }
                self.renames = left;
            }
        }
    }

    /// One of the many states in which the disk may be if the power is cut now.
    #[must_use]
    pub(crate) fn cut(&self, rng: &mut Rng) -> Image {
        let mut image = Image { at_risk: self.renames.len(), ..Image::default() };
        let names = self.names_after(rng, &mut image.harmed);
        for (path, node) in &names {
            let parent = parent(path);
            if !parent.is_empty() && names.get(parent) != Some(&Node::Directory) {
                continue;
            }
            match node {
                Node::Directory => image.directories.push(path.clone()),
                Node::File(index) => {
                    let file = &self.files[*index];
                    image.at_risk += file.edits.len();
                    let content = file.after(self.trace, rng, &mut image.harmed);
                    image.files.insert(path.clone(), content);
                }
            }
        }
        image
    }

    fn names_after(&self, rng: &mut Rng, harmed: &mut usize) -> BTreeMap<String, Node> {
        let mut names = self.safe.clone();
        let arrival = Arrival::any(rng);
        let mut lost: HashSet<&str> = HashSet::new();
        let first_lost = rng.usize(0..=self.renames.len());
        for (place, (_, naming)) in self.renames.iter().enumerate() {
            let arrives = match arrival {
                Arrival::All => true,
                Arrival::Nothing => false,
                Arrival::Beginning => place < first_lost,
                Arrival::Some { .. } => rng.bool(),
            };
            // What was done to a name after something that did not arrive did not arrive either.
            if arrives && naming.touches().iter().all(|name| !lost.contains(name)) {
                naming.apply(&mut names);
            } else {
                lost.extend(naming.touches());
                *harmed += 1;
            }
        }
        names
    }
}

/// What becomes of everything that is not safe in one file, or among the names.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    Nothing,
    All,
    /// In order, up to somewhere in the middle of a write.
    Beginning,
    /// Any pieces of so many bytes, or of any; what does not arrive may leave garbage.
    Some {
        piece: u64,
        garbage: bool,
    },
}

impl Arrival {
    fn any(rng: &mut Rng) -> Self {
        match rng.u8(0..8) {
            0 => Self::Nothing,
            1 => Self::All,
            2 | 3 => Self::Beginning,
            4 => Self::Some { piece: u64::MAX, garbage: false },
            5 => Self::Some { piece: PAGE, garbage: false },
            6 => Self::Some { piece: SECTOR, garbage: false },
            _ => Self::Some { piece: SECTOR, garbage: true },
        }
    }
}

impl File {
    fn after(&self, trace: &Trace, rng: &mut Rng, harmed: &mut usize) -> Vec<u8> {
        if self.mapped {
            let length = usize::try_from(self.length).unwrap_or(0);
            return if rng.bool() { vec![0; length] } else { (0..length).map(|_| rng.u8(..)).collect() };
        }
        let mut content = self.safe.clone();
        let arrival = Arrival::any(rng);
        let first_lost = rng.usize(0..=self.edits.len());
        for (place, (_, edit)) in self.edits.iter().enumerate() {
            let whole = match arrival {
                Arrival::All => true,
                Arrival::Nothing => false,
                Arrival::Beginning => place < first_lost,
                Arrival::Some { .. } => rng.bool(),
            };
            if whole {
                edit.apply(&mut content, trace);
                continue;
            }
            *harmed += 1;
            match (arrival, edit) {
                (Arrival::Beginning, Edit::Write { offset, data }) if place == first_lost => {
                    let mut torn = rng.usize(0..=data.len());
                    if rng.bool() {
                        torn -= torn % 512;
                    }
                    write(&mut content, *offset, &trace.data(data)[..torn]);
                }
                (Arrival::Some { piece, garbage }, Edit::Write { offset, data }) if rng.bool() => {
                    in_pieces(&mut content, *offset, trace.data(data), piece, garbage, rng);
                }
                _ => {}
            }
        }
        content
    }
}

/// Some pieces of a write, each at its place.
fn in_pieces(content: &mut Vec<u8>, offset: u64, data: &[u8], piece: u64, garbage: bool, rng: &mut Rng) {
    let mut at = 0;
    while at < data.len() {
        let place = offset + at as u64;
        let left = usize::try_from(piece - place % piece).unwrap_or(usize::MAX);
        let end = at.saturating_add(left).min(data.len());
        match rng.u8(0..4) {
            0 | 1 => write(content, place, &data[at..end]),
            2 if garbage => {
                let bytes: Vec<u8> = (at..end).map(|_| rng.u8(..)).collect();
                write(content, place, &bytes);
            }
            // The length arrives and the bytes do not.
            2 => reach(content, place + (end - at) as u64),
            _ => {}
        }
        at = end;
    }
}

fn write(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    reach(content, offset + bytes.len() as u64);
    content[start..start + bytes.len()].copy_from_slice(bytes);
}

fn reach(content: &mut Vec<u8>, length: u64) {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if content.len() < length {
        content.resize(length, 0);
    }
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>, trace: &Trace) {
        match self {
            Self::Write { offset, data } => write(content, *offset, trace.data(data)),
            Self::Resize(length) => content.resize(usize::try_from(*length).unwrap_or(usize::MAX), 0),
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Add(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }

    fn touches(&self) -> Vec<&str> {
        match self {
            Self::Add(path, _) | Self::Remove(path) => vec![path],
            Self::Rename(from, to) => vec![from, to],
        }
    }

    /// The directory whose sync makes it safe.
    fn directory(&self) -> &str {
        let (Self::Add(path, _) | Self::Remove(path) | Self::Rename(_, path)) = self;
        parent(path)
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::trace::tests::Script;
    use super::*;

    /// All contents of a file that two thousand cuts at the end of a trace leave.
    fn outcomes(trace: &Trace, syncs: Syncs, path: &str) -> BTreeSet<Option<Vec<u8>>> {
        let mut disk = Disk::new(trace, syncs);
        disk.play_to(trace.changes().len());
        let mut rng = Rng::with_seed(1);
        (0..2000).map(|_| disk.cut(&mut rng).file(path).map(<[u8]>::to_vec)).collect()
    }

    fn only(content: &[u8]) -> BTreeSet<Option<Vec<u8>>> {
        BTreeSet::from([Some(content.to_vec())])
    }

    #[test]
    fn what_was_synced_stays() {
        let trace =
            Script::default().create("a", 7).write("a", 7, 0, b"old").sync("a", 7).sync("", 1).trace();
        assert_eq!(outcomes(&trace, Syncs::Kept, "a"), only(b"old"));
        let lying = outcomes(&trace, Syncs::Ignored, "a");
        assert!(lying.contains(&None) && lying.contains(&Some(vec![])), "{lying:?}");
    }

    #[test]
    fn a_name_is_not_safe_before_its_directory_is() {
        let trace = Script::default().create("a", 7).write("a", 7, 0, b"old").sync("a", 7).trace();
        let after = outcomes(&trace, Syncs::Kept, "a");
        assert_eq!(after, BTreeSet::from([None, Some(b"old".to_vec())]));
    }

    #[test]
    fn what_was_written_after_a_sync_began_is_not_safe() {
        let trace = Script::default()
            .create("a", 7)
            .sync("", 1)
            .write("a", 7, 0, b"safe")
            .sync_begin("a", 7)
            .write("a", 7, 0, b"late")
            .sync_end()
            .trace();
        let after = outcomes(&trace, Syncs::Kept, "a");
        assert!(after.contains(&Some(b"safe".to_vec())) && after.contains(&Some(b"late".to_vec())));
        assert!(after.contains(&Some(b"lafe".to_vec())), "torn in the middle: {after:?}");
        assert!(!after.contains(&None) && !after.contains(&Some(vec![])));
    }

    #[test]
    fn a_sync_that_has_not_ended_promises_nothing() {
        let trace =
            Script::default().create("a", 7).sync("", 1).write("a", 7, 0, b"x").sync_begin("a", 7).trace();
        assert!(outcomes(&trace, Syncs::Kept, "a").contains(&Some(vec![])));
    }

    #[test]
    fn sectors_arrive_in_any_order_and_stay_whole() {
        let sectors: Vec<u8> = (1..=4).flat_map(|n| [n; 512]).collect();
        let trace = Script::default().create("a", 7).sync("", 1).write("a", 7, 0, &sectors).trace();
        let after = outcomes(&trace, Syncs::Kept, "a");
        let last_alone = after
            .iter()
            .flatten()
            .any(|c| c.len() == 2048 && c[..1536] == [0; 1536] && c[1536..] == [4; 512]);
        assert!(last_alone, "only the last one arrived");
        let length_alone = after.iter().flatten().any(|c| c.len() == 2048 && *c == [0; 2048]);
        assert!(length_alone, "the length arrived without the bytes");
    }

    #[test]
    fn a_removed_file_comes_back_until_its_directory_is_synced() {
        let script =
            Script::default().create("a", 7).write("a", 7, 0, b"x").sync("a", 7).sync("", 1).remove("a");
        let trace = script.trace();
        assert_eq!(outcomes(&trace, Syncs::Kept, "a"), BTreeSet::from([None, Some(b"x".to_vec())]));
        let trace = Script::default().create("a", 7).sync("", 1).remove("a").sync("", 1).trace();
        assert_eq!(outcomes(&trace, Syncs::Kept, "a"), BTreeSet::from([None]));
    }

    #[test]
    fn an_inode_that_is_used_again_is_another_file() {
        let trace = Script::default()
            .create("a", 7)
            .write("a", 7, 0, b"first")
            .sync("a", 7)
            .remove("a")
            .create("b", 7)
            .write("b", 7, 0, b"second")
            .sync("b", 7)
            .sync("", 1)
            .trace();
        assert_eq!(outcomes(&trace, Syncs::Kept, "b"), only(b"second"));
    }

    #[test]
    fn a_rename_is_old_or_new_and_never_neither() {
        let trace = Script::default()
            .create("old", 7)
            .write("old", 7, 0, b"x")
            .sync("old", 7)
            .sync("", 1)
            .rename("old", "new")
            .trace();
        let mut disk = Disk::new(&trace, Syncs::Kept);
        disk.play_to(trace.changes().len());
        let mut rng = Rng::with_seed(1);
        for _ in 0..100 {
            let image = disk.cut(&mut rng);
            assert!(image.file("old").is_some() != image.file("new").is_some(), "{image:?}");
        }
    }

    #[test]
    fn a_file_is_gone_with_its_directory() {
        let trace = Script::default().make_dir("d").create("d/a", 7).sync("d", 2).trace();
        assert_eq!(outcomes(&trace, Syncs::Kept, "d/a"), BTreeSet::from([None, Some(vec![])]));
    }

    #[test]
    fn a_second_trace_begins_with_what_the_first_cut_left() {
        let first =
            Script::default().create("a", 7).write("a", 7, 0, b"old").sync("a", 7).sync("", 1).trace();
        let mut disk = Disk::new(&first, Syncs::Kept);
        disk.play_to(first.changes().len());
        let image = disk.cut(&mut Rng::with_seed(1));
        let second =
            Script::default().write("a", 99, 3, b"!").sync("a", 99).resize("a", 99, 2).sync("a", 99).trace();
        let mut disk = Disk::with(&image, &second, Syncs::Kept);
        disk.play_to(2);
        assert_eq!(disk.cut(&mut Rng::with_seed(1)).file("a"), Some(&b"old"[..]), "a sync that only began");
        disk.play_to(3);
        assert_eq!(disk.cut(&mut Rng::with_seed(1)).file("a"), Some(&b"old!"[..]));
        disk.play_to(6);
        assert_eq!(disk.cut(&mut Rng::with_seed(1)).file("a"), Some(&b"ol"[..]));
    }

    #[test]
    fn what_is_mapped_may_hold_anything() {
        let trace =
            Script::default().create("a", 7).sync("", 1).resize("a", 7, 8).map("a", 7).sync("a", 7).trace();
        assert!(outcomes(&trace, Syncs::Kept, "a").len() > 100);
    }
}
