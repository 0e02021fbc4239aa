//! Whether somebody whom the station calls answers, as the calls tell that were made anyway. Asking costs no call.

use std::sync::Arc;

use tokio::sync::watch;

/// What is known of one peer; clones share it.
#[derive(Clone)]
pub struct Contact(Arc<watch::Sender<Known>>);

/// What is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Known {
    /// It was not called yet.
    #[default]
    Nothing,
    /// It answered the last call.
    Answers,
    /// It did not, and why.
    Away(String),
}

impl Default for Contact {
    fn default() -> Self {
        Self(Arc::new(watch::channel(Known::Nothing).0))
    }
}

impl Contact {
    /// A call was answered, whatever the answer was.
    pub fn answered(&self) {
        self.set(Known::Answers);
    }

    /// A call was not answered.
    pub fn is_away(&self, reason: &str) {
        self.set(Known::Away(reason.to_owned()));
    }

    /// What is known, and what will be.
    pub fn watch(&self) -> watch::Receiver<Known> {
        self.0.subscribe()
    }

    fn set(&self, known: Known) {
        self.0.send_if_modified(|before| {
            let is_news = *before != known;
            *before = known;
            is_news
        });
    }
}
