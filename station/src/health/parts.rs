//! The parts of the station by name, whether each is well, since when, and what is wrong with it if not.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use tokio::sync::watch;

/// All parts; clones share them.
#[derive(Clone, Default)]
pub struct Parts(Arc<watch::Sender<BTreeMap<String, Part>>>);

/// What is known of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What is wrong, and what to do; `None` when it is well.
    pub trouble: Option<String>,
    /// Since when it is well, or is not.
    pub since: SystemTime,
}

impl Parts {
    /// A part is well, or has this trouble.
    pub fn tell(&self, part: &str, trouble: Option<String>) {
        self.0.send_if_modified(|parts| match parts.get_mut(part) {
            Some(known) if known.trouble == trouble => false,
            // Other words for its trouble are no new trouble.
            Some(known) if known.trouble.is_some() && trouble.is_some() => {
                known.trouble = trouble;
                true
            }
            _ => {
                parts.insert(part.to_owned(), Part { trouble, since: SystemTime::now() });
                true
            }
        });
    }

    /// All of them as they are now; those of which nothing is known yet are left out.
    pub fn all(&self) -> BTreeMap<String, Part> {
        self.0.borrow().clone()
    }

    /// How they are and will be.
    pub fn watch(&self) -> watch::Receiver<BTreeMap<String, Part>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_in_trouble_since_its_trouble_began() {
        let parts = Parts::default();
        let news = parts.watch();
        let tell = |trouble: Option<&str>| {
            parts.tell("signer", trouble.map(str::to_owned));
            parts.all().remove("signer").unwrap()
        };
        let well = tell(None);
        assert!(news.has_changed().unwrap());
        assert_eq!(tell(None), well);
        let away = tell(Some("away"));
        assert_eq!(tell(Some("away")), away);
        let still = tell(Some("still away"));
        assert_eq!((still.trouble.as_deref(), still.since), (Some("still away"), away.since));
        assert!(tell(None).since >= away.since);
        assert_eq!(parts.all().len(), 1);
    }
}
