//! Which process is killed when: every record of a run and every act of the device, by every victim; and then whatever
//! the seed says.

use std::{collections::BTreeSet, fmt, time::Duration};

use factory_hil_tests::{
    device::line::{ANSWERED, OBEYED, RECEIVED},
    moment::log::Edge,
};

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    Station,
    Signer,
    /// The station's children that hold a hardware library.
    Instruments,
    /// The program that answers as the device.
    Device,
}

use Victim::{Device, Instruments, Signer, Station};

/// Alone and in pairs.
pub const VICTIMS: [&[Victim]; 10] = [
    &[Station],
    &[Signer],
    &[Instruments],
    &[Device],
    &[Station, Signer],
    &[Station, Instruments],
    &[Station, Device],
    &[Signer, Instruments],
    &[Signer, Device],
    &[Instruments, Device],
];

/// Where somebody is held; counted from 1, from the moment that the unit is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A record of the station's journal.
    Journal(u32, Edge),
    /// The record that the controller has the result.
    Acknowledged(Edge),
    /// A record of the signer's ledger.
    Ledger(u32, Edge),
    /// A message at the device.
    Message(u32, &'static str),
    /// A page of the tag.
    TagPage(u32),
}

/// One kill, or two at once.
#[derive(Debug, Clone)]
pub struct Case {
    /// Names it.
    pub number: u32,
    pub moment: Moment,
    /// So long after the moment; with none, while everybody is held there.
    pub late: Option<Duration>,
    pub victims: &'static [Victim],
    /// Before anybody is started again.
    pub pause: Duration,
    /// Whether the station is up again before its signer is.
    pub station_first: bool,
    /// Whether the device keeps what it stored over a restart, as a product does and the stock program does not.
    pub keeps_storage: bool,
    /// Whether a second unit is being made in the next nest.
    pub neighbour: bool,
}

/// What a run that nobody disturbs consists of.
#[derive(Debug, Clone, Default)]
pub struct Score {
    /// The records of the journal.
    pub records: Vec<Written>,
    /// Records of the ledger; none while signers keep none.
    pub ledger: u32,
    /// Messages to the device.
    pub messages: u32,
    /// Pages written to the tag.
    pub pages: u32,
}

/// A record of the journal, when it is written.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Whether the device's program is alive.
    pub device: bool,
    /// Until the next record; nothing behind the last.
    pub gap: Duration,
}

// Flashing takes three times as long; between most records the station does nothing but write.
const LONG_GAP: Duration = Duration::from_millis(60);
/// Who is killed in a long gap, and in how many places.
const IN_GAPS: [&[Victim]; 3] = [&[Station], &[Instruments], &[Station, Instruments]];
const PLACES: u32 = 6;
/// Numbers of cases.
const FIRST_IN_GAPS: u32 = 1_000;
/// See [`Score::plan`].
pub const FIRST_RANDOM: u32 = 10_000;

impl Score {
    /// Says what was found, for whoever reads the table at the end.
    pub fn show(&self) {
        let Self { records, ledger, messages, pages } = self;
        let gaps: Vec<u128> = records.iter().map(|record| record.gap.as_millis()).collect();
        println!("a run has {} records, with gaps of {gaps:?} ms;", records.len());
        println!("{ledger} records of the ledger, {messages} messages, and {pages} pages of the tag");
    }

    fn moments(&self) -> Vec<Moment> {
        let mut moments = Vec::new();
        for edge in Edge::ALL {
            moments.extend((1..).zip(&self.records).map(|(nth, _)| Moment::Journal(nth, edge)));
            moments.push(Moment::Acknowledged(edge));
            moments.extend((1..=self.ledger).map(|nth| Moment::Ledger(nth, edge)));
        }
        for what in [RECEIVED, OBEYED, ANSWERED] {
            moments.extend((1..=self.messages).map(|nth| Moment::Message(nth, what)));
        }
        // The first page, the one in the middle, and the last, which makes the message valid.
        let pages = BTreeSet::from([1, self.pages.div_ceil(2), self.pages]);
        moments.extend(pages.into_iter().filter(|nth| *nth > 0).map(Moment::TagPage));
        moments
    }

    fn has_device(&self, moment: Moment) -> bool {
        match moment {
            Moment::Journal(nth, _) => {
                let at = usize::try_from(nth - 1).expect("it is small");
                self.records.get(at).is_some_and(|record| record.device)
            }
            // The device waits for its certificate.
            Moment::Ledger(..) => true,
            // Having answered the last message, it ends.
            Moment::Message(nth, what) => nth < self.messages || what != ANSWERED,
            Moment::Acknowledged(_) | Moment::TagPage(_) => false,
        }
    }

    /// Whether it is worth to kill these there: they are alive, and it is not the same as at another edge.
    fn is_worthwhile(&self, moment: Moment, victims: &[Victim]) -> bool {
        let owner = match moment {
            Moment::Journal(..) | Moment::Acknowledged(_) => Some(Station),
            Moment::Ledger(..) => Some(Signer),
            Moment::Message(..) | Moment::TagPage(_) => None,
        };
        let edge_matters = match moment {
            Moment::Journal(_, edge) | Moment::Acknowledged(edge) | Moment::Ledger(_, edge) => {
                edge == Edge::AfterSync || owner.is_some_and(|owner| victims.contains(&owner))
            }
            Moment::Message(..) | Moment::TagPage(_) => true,
        };
        // From the tag on, the signer has nothing to do; when the result is out, nobody but the station has.
        let idle = match moment {
            Moment::TagPage(_) => victims.contains(&Signer),
            Moment::Acknowledged(_) => victims != [Station],
            _ => false,
        };
        let device = !victims.contains(&Device) || self.has_device(moment);
        edge_matters && device && !idle
    }

    /// Every moment with every victim, some places within each long step, and as many random cases as are wanted.
    /// A number means the same case whenever seed and program are the same.
    pub fn plan(&self, seed: u64, random: u32) -> Vec<Case> {
        let case = |number, moment, late, victims| Case {
            number,
            moment,
            late,
            victims,
            pause: Duration::ZERO,
            station_first: Dice::new(seed, number).one_in(4),
            keeps_storage: false,
            neighbour: false,
        };
        let mut cases = Vec::new();
        for moment in self.moments() {
            for victims in VICTIMS.into_iter().filter(|victims| self.is_worthwhile(moment, victims)) {
                let number = u32::try_from(cases.len()).expect("there are some hundreds");
                cases.push(case(number, moment, None, victims));
            }
        }
        for (nth, record) in (1..).zip(&self.records).filter(|(_, record)| record.gap >= LONG_GAP) {
            for (place, (kind, victims)) in
                (1..PLACES).flat_map(|place| (0..).zip(IN_GAPS).map(move |kind| (place, kind)))
            {
                let number = FIRST_IN_GAPS + 100 * nth + 10 * place + kind;
                let late = Some(record.gap * place / PLACES);
                cases.push(case(number, Moment::Journal(nth, Edge::AfterSync), late, victims));
            }
        }
        cases.extend((0..random).map(|at| self.random(seed, FIRST_RANDOM + at)));
        cases
    }

    fn random(&self, seed: u64, number: u32) -> Case {
        let mut dice = Dice::new(seed, number);
        let moments = self.moments();
        let moment = moments[dice.below(moments.len())];
        let longest = [200, 2_000, 20_000, 200_000][dice.below(4)];
        let late = Duration::from_micros(dice.below(longest) as u64);
        let worthwhile: Vec<_> = VICTIMS
            .into_iter()
            .filter(|victims| !victims.contains(&Device) || self.has_device(moment))
            .collect();
        Case {
            number,
            moment,
            late: Some(late),
            victims: worthwhile[dice.below(worthwhile.len())],
            pause: Duration::from_millis(if dice.one_in(4) { dice.below(300) as u64 } else { 0 }),
            station_first: dice.one_in(4),
            keeps_storage: dice.one_in(4),
            neighbour: dice.one_in(2),
        }
    }
}

/// Numbers that follow from a seed (splitmix64, Steele 2014).
struct Dice(u64);

impl Dice {
    fn new(seed: u64, number: u32) -> Self {
        Self(seed ^ u64::from(number).wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ bits >> 31) % limit as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal(nth, edge) => write!(f, "record {nth} of the journal, {}", edge.name()),
            Self::Acknowledged(edge) => write!(f, "the acknowledgement of the result, {}", edge.name()),
            Self::Ledger(nth, edge) => write!(f, "record {nth} of the ledger, {}", edge.name()),
            Self::Message(nth, what) => write!(f, "message {nth} {what} by the device"),
            Self::TagPage(nth) => write!(f, "page {nth} of the tag written"),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, moment, late, victims, .. } = self;
        write!(f, "case {number}: {victims:?} killed at {moment}")?;
        late.map_or(Ok(()), |late| write!(f, ", {late:?} later"))?;
        if self.station_first {
            write!(f, "; the station was up again before the signer")?;
        }
        if self.keeps_storage {
            write!(f, "; the device keeps its storage")?;
        }
        if self.neighbour {
            write!(f, "; with a neighbour")?;
        }
        Ok(())
    }
}
