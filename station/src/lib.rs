//! The factory station daemon and its command-line tool.
