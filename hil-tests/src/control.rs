//! How the rig tells a simulator what an operator's hands would do: one JSON line over a Unix socket,
//! one JSON line back.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
};

use serde::{Serialize, de::DeserializeOwned};

/// Answers each request line with `handle`, for as long as the process lives. Several callers may be
/// connected at once; `handle` is called from a thread of each.
pub fn serve<Q, A>(
    path: &Path,
    handle: impl Fn(Q) -> Result<A, String> + Clone + Send + 'static,
) -> io::Result<()>
where
    Q: DeserializeOwned,
    A: Serialize,
{
    let listener = UnixListener::bind(path)?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let handle = handle.clone();
            thread::spawn(move || converse(stream, handle));
        }
    });
    Ok(())
}

fn converse<Q: DeserializeOwned, A: Serialize>(
    stream: UnixStream,
    handle: impl Fn(Q) -> Result<A, String>,
) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let answer = serde_json::from_str(&line?)
            .map_err(|error| format!("request not understood: {error}"))
            .and_then(&handle);
        let mut text = serde_json::to_string(&answer).map_err(io::Error::other)?;
        text.push('\n');
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Asks the simulator that listens at `path`.
pub fn call<Q: Serialize, A: DeserializeOwned>(path: &Path, request: &Q) -> anyhow::Result<A> {
    let mut stream = UnixStream::connect(path)?;
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    stream.write_all(text.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let answer: Result<A, String> = serde_json::from_str(&line)?;
    answer.map_err(anyhow::Error::msg)
}
