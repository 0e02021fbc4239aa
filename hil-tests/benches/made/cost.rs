//! What a process has used, as the kernel tells it.

use std::{fs, time::Duration};

use anyhow::Context as _;

/// Processor time and memory of a process up to now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Of all of its threads.
    pub processor: Duration,
    /// What is resident now.
    pub resident_kib: u64,
    /// And at its highest.
    pub highest_kib: u64,
}

impl Cost {
    /// What `process` has used.
    pub fn of(process: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // Behind the name in brackets, the 12th and 13th: in ticks, of which a second has 100.
        let fields = stat.rsplit_once(") ").context("it has a name")?.1.split(' ').skip(11).take(2);
        let ticks = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        let processor = Duration::from_millis(10 * ticks);
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let memory = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            anyhow::Ok(line.with_context(|| format!("no {name}"))?.trim().trim_end_matches(" kB").parse()?)
        };
        let (resident_kib, highest_kib) = (memory("VmRSS:")?, memory("VmHWM:")?);
        Ok(Self { processor, resident_kib, highest_kib })
    }
}
