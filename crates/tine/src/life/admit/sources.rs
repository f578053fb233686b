//! What is known of each source: who is here, how fast they came, what they have earned.
//!
//! Sources with a client here have an entry for as long as they have one. Others have one while there is something to
//! remember, and no more than [`SOURCES_MOST`] of a family: the one that would be forgotten next makes room. The tables are
//! ordered, not hashed: a child has a copy of everything that the master holds, the keys of its hash tables too, and could
//! tell an accomplice addresses that collide.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::bucket::Bucket;
use super::penalty::Earned;
use super::source::Source;

/// How many sources without a client here are remembered, of each family: IPv4, IPv6, others. Five MiB of each at most,
/// which every fork has to copy the page tables of.
pub const SOURCES_MOST: usize = 16_384;

/// How many entries that are over are looked for at each change.
const SWEPT_TOGETHER: usize = 2;

/// What is known of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub children: u32,
    pub waiting: u32,
    pub bucket: Bucket,
    pub earned: Earned,
    /// Under which time it stands among the idle ones.
    forgotten: Option<Instant>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sources {
    tables: [Table; 3],
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Table {
    entries: BTreeMap<Source, Entry>,
    idle: BTreeSet<(Instant, Source)>,
}

impl Sources {
    /// What is known of a source; nothing is an entry that says nothing.
    pub(crate) fn get(&self, source: Source) -> Entry {
        self.tables[family(source)].entries.get(&source).copied().unwrap_or_default()
    }

    /// Changes what is known of a source.
    pub(crate) fn change<R>(
        &mut self,
        source: Source,
        now: Instant,
        change: impl FnOnce(&mut Entry) -> R,
    ) -> R {
        let table = &mut self.tables[family(source)];
        let entry = table.entries.entry(source).or_default();
        let before = entry.forgotten.take();
        let result = change(entry);
        let remembered = entry.bucket.full_at(now).max(entry.earned.until(now));
        let here = entry.children + entry.waiting > 0;
        if !here {
            entry.forgotten = remembered;
        }
        let after = entry.forgotten;
        if !here && remembered.is_none() {
            table.entries.remove(&source);
        }
        if before != after {
            before.map(|time| table.idle.remove(&(time, source)));
            after.map(|time| table.idle.insert((time, source)));
        }
        table.sweep(now);
        result
    }

    /// How many something is remembered of.
    pub(crate) fn len(&self) -> usize {
        self.tables.iter().map(|table| table.entries.len()).sum()
    }

    /// All of whom something is remembered, those with a client here too.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Source, &Entry)> {
        self.tables.iter().flat_map(|table| table.entries.iter().map(|(source, entry)| (*source, entry)))
    }

    /// How many are remembered though they have nobody here, the most of any family.
    #[cfg(test)]
    pub(crate) fn idle_most(&self) -> usize {
        self.tables.iter().map(|table| table.idle.len()).max().unwrap_or(0)
    }
}

impl Table {
    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEPT_TOGETHER {
            let Some((time, source)) = self.idle.first().copied() else { return };
            if time > now && self.idle.len() <= SOURCES_MOST {
                return;
            }
            self.idle.remove(&(time, source));
            self.entries.remove(&source);
        }
    }
}

fn family(source: Source) -> usize {
    match source {
        Source::V4(_) => 0,
        Source::V6(_) => 1,
        _ => 2,
    }
}
