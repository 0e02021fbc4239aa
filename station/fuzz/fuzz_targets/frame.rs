//! Whatever comes as a message, in whatever pieces: it is read as it was sent, or refused for its length; no more of it is
//! held than may be; what was looked at is whole again; and its texts are found where the service finds them.
#![no_main]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use factory_proto::station::StartUnitRequest;
use factory_station::rpc::frame::{self, Fields, FrameError};
use http_body::Frame;
use http_body_util::BodyExt as _;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
};
use tonic::{
    body::Body,
    codegen::{Bytes, http::HeaderMap},
};

const HEAD: usize = 5;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("it needs nothing"));

/// Bytes that come in pieces, of which no more is asked for while this many are held.
struct Pieces {
    left: Bytes,
    sizes: std::iter::Cycle<std::array::IntoIter<u8, 4>>,
    trailers: Option<HeaderMap>,
    handed: usize,
    most: Arc<AtomicUsize>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        assert!(self.handed <= self.most.load(Relaxed), "more is asked for than may be held");
        if self.left.is_empty() {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let size = usize::from(self.sizes.next().expect("it has no end")).min(self.left.len());
        self.handed += size;
        let piece = self.left.split_to(size);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// What the service would understand is what is found, each last one.
fn check(message: &[u8], fields: Fields<'_>) {
    let Ok(request) = StartUnitRequest::decode(message) else { return };
    let found: BTreeMap<u32, &[u8]> = fields.collect();
    let texts = [(1, request.command_id), (2, request.work_order), (3, request.serial), (4, request.nest)];
    for (number, text) in texts {
        let found = found.get(&number).copied().unwrap_or_default();
        assert_eq!(found, text.as_bytes(), "field {number}");
    }
}

fuzz_target!(|input: ([u8; 4], [u8; 2], bool, bool, &[u8])| {
    let (sizes, bounds, has_room, has_trailers, sent) = input;
    // Some piece has bytes, so that there is an end.
    let sizes = sizes.map(|size| size.max(1));
    let [small, largest] = [bounds[0].min(bounds[1]), bounds[0].max(bounds[1])].map(usize::from);
    let pieces = |most| Pieces {
        left: Bytes::copy_from_slice(sent),
        sizes: sizes.into_iter().cycle(),
        trailers: has_trailers.then(HeaderMap::new),
        handed: 0,
        most,
    };
    let declared = sent.first_chunk::<HEAD>();
    let declared = declared.map(|&[_, a, b, c, d]| u32::from_be_bytes([a, b, c, d]) as usize);
    let length = declared.unwrap_or(0).max(sent.len().saturating_sub(HEAD));

    let body = Body::new(pieces(Arc::new(AtomicUsize::new(largest + HEAD))));
    let room = Arc::new(Semaphore::new(has_room.into()));
    let read = frame::read(body, small, largest, || room.clone().try_acquire_owned().ok());
    match RUNTIME.block_on(read) {
        Ok(message) => {
            assert!(length <= largest && (length <= small || has_room));
            let body = RUNTIME.block_on(message.body().collect()).expect("it is all there");
            assert_eq!(body.to_bytes(), sent);
            assert_eq!(room.available_permits() == 0, length > small || !has_room);
        }
        Err(FrameError::TooLarge(told)) => assert!(largest < told && told <= length),
        Err(FrameError::TooMany) => assert!(length > small && !has_room),
        Err(error) => panic!("{error:?}"),
    }

    let most = Arc::new(AtomicUsize::new(small + HEAD));
    let looked = RUNTIME.block_on(frame::peek(Body::new(pieces(most.clone())), small));
    let (first, whole) = looked.expect("it is all there");
    most.store(usize::MAX, Relaxed);
    let first_bytes = RUNTIME.block_on(first.body().collect()).expect("it is all there").to_bytes();
    assert!(sent.starts_with(&first_bytes));
    let wanted = declared.map_or(sent.len(), |length| HEAD + length.min(small));
    assert!(first_bytes.len() >= wanted.min(sent.len()));
    let whole = RUNTIME.block_on(whole.collect()).expect("it is all there").to_bytes();
    assert_eq!(whole, sent);

    let held: usize = first.fields().map(|field| field.1.len()).sum();
    assert!(held <= first_bytes.len());
    check(sent, frame::fields(sent));
    let message = declared.and_then(|length| first_bytes.get(HEAD..HEAD + length));
    if let Some(message) = message.filter(|_| sent[0] == 0) {
        check(message, first.fields());
    }
});
