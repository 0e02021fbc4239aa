//! Whether the disk has room for more, and the reserve that is given up when it has not. Knows nothing of records.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;
use tokio::sync::watch;
use tracing::{info, warn};

/// Whether a journal can take what new work would bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// It can.
    Enough,
    /// There is room for the work that is under way, and no more should be begun. Passes when space is made.
    Low {
        /// Bytes that the filesystem has free.
        free: u64,
        /// Bytes that must be free before there is [`Room::Enough`] again.
        needed: u64,
    },
    /// A write failed, and only a restart can tell what is on the disk.
    Failed {
        /// What failed, for people.
        reason: String,
    },
}

/// The space that a journal has, and a piece of it that it keeps back.
pub(crate) struct Space {
    dir: PathBuf,
    /// The size of the reserve; 0 for none.
    reserve: u64,
    held: bool,
    /// With less than this free, room is low.
    low: u64,
    room: watch::Sender<Room>,
}

impl Space {
    /// Looks at the filesystem of `dir`, and makes the reserve there if there is space for it.
    pub(crate) fn find(dir: &Path, reserve: u64, low: u64) -> Self {
        let (room, _) = watch::channel(Room::Enough);
        let mut space = Self { dir: dir.to_owned(), reserve, held: false, low, room };
        // A file without its blocks, or of another size, reserves something else.
        let path = space.path();
        space.held = fs::metadata(&path)
            .is_ok_and(|file| reserve > 0 && file.len() == reserve && file.blocks() * 512 >= reserve);
        if !space.held {
            let _ = fs::remove_file(path);
        }
        space.look();
        space
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Room> {
        self.room.subscribe()
    }

    pub(crate) fn is_enough(&self) -> bool {
        *self.room.borrow() == Room::Enough
    }

    /// Looks how much space there is, makes the reserve again where there is enough, and tells those who watch.
    pub(crate) fn look(&mut self) {
        if matches!(*self.room.borrow(), Room::Failed { .. }) {
            return;
        }
        let free = self.free();
        if self.reserve > 0 && !self.held && free >= self.needed() {
            self.held = self.make_reserve();
        }
        let missing = self.reserve > 0 && !self.held;
        let room =
            if missing || free < self.low { Room::Low { free, needed: self.needed() } } else { Room::Enough };
        self.tell(room);
    }

    /// Gives the reserve up for the write that has no room. `false` where there is none.
    pub(crate) fn give_up_reserve(&mut self) -> bool {
        let given = self.held && fs::remove_file(self.path()).is_ok();
        if given {
            self.held = false;
            warn!(dir = %self.dir.display(), bytes = self.reserve, "disk is full; the journal's reserve is used");
        }
        given
    }

    pub(crate) fn fail(&self, reason: String) {
        self.room.send_replace(Room::Failed { reason });
    }

    fn path(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    fn needed(&self) -> u64 {
        if self.held { self.low } else { self.low + self.reserve }
    }

    /// What cannot be asked is not there.
    fn free(&self) -> u64 {
        statvfs(&self.dir).map_or(0, |system| system.blocks_available() * system.fragment_size())
    }

    fn make_reserve(&self) -> bool {
        let make = || -> io::Result<()> {
            let length = i64::try_from(self.reserve).map_err(io::Error::other)?;
            Ok(fallocate(File::create(self.path())?, FallocateFlags::empty(), 0, length)?)
        };
        let made = make();
        if let Err(error) = &made {
            let _ = fs::remove_file(self.path());
            warn!(%error, dir = %self.dir.display(), "the journal's reserve cannot be made");
        }
        made.is_ok()
    }

    fn tell(&self, room: Room) {
        let was_enough = self.is_enough();
        match (&room, was_enough) {
            (Room::Low { free, needed }, true) => {
                warn!(dir = %self.dir.display(), free, needed, "room for the journal is low; make space");
            }
            (Room::Enough, false) => info!(dir = %self.dir.display(), "there is room for the journal again"),
            _ => {}
        }
        // Free space changes all the time; only news is told.
        self.room.send_if_modified(|known| {
            let news = *known != room && (*known == Room::Enough || room == Room::Enough);
            *known = room;
            news
        });
    }
}
