use std::{collections::BTreeMap, future::ready};

use factory_door::{
    allowance::Limits,
    guest::{Evidence, House as _},
};
use factory_journal::{Options, Sequence};
use tokio::sync::oneshot;
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::{
    callers::{CallerSettings, Callers},
    record::CallAudited,
};

fn call() -> Request {
    let limits = Limits { calls: None, at_a_time: 9, connections: 9 };
    let settings = CallerSettings { roles: BTreeMap::new(), plain: Roles::ALL, limits };
    let from = "127.0.0.1:9".parse().unwrap();
    let Ok(caller) = Callers::new(settings).recognise(&Evidence::Address(from));
    let mut call = Request::new(Body::empty());
    *call.uri_mut() = station!("AbortUnit").parse().unwrap();
    call.extensions_mut().insert(caller);
    call.extensions_mut().insert(Origin::Address(from));
    call
}

async fn kept(journal: &Journal<Record>) -> CallAudited {
    match journal.follow(Sequence::START).next().await.unwrap().record {
        Record::CallAudited(audited) => *audited,
        other => panic!("{other:?}"),
    }
}

fn journal(folder: &tempfile::TempDir) -> Arc<Journal<Record>> {
    Arc::new(Journal::open(folder.path(), Options::default()).unwrap())
}

#[tokio::test]
async fn a_change_that_has_begun_goes_on_when_its_caller_hangs_up_and_is_audited() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(&folder);
    let ((begin, begun), (end, ended)) = (oneshot::channel(), oneshot::channel::<()>());
    let parts = Arc::new(std::sync::Mutex::new(Some((begin, ended))));
    let slow = service_fn(move |_: Request| {
        let (begin, ended) = parts.lock().unwrap().take().unwrap();
        async move {
            begin.send(()).unwrap();
            ended.await.unwrap();
            Ok::<_, Infallible>(Status::already_exists("done").into_http())
        }
    });
    let hanging = tokio::spawn(AccessLayer::new(journal.clone()).layer(slow).oneshot(call()));
    begun.await.unwrap();
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    end.send(()).unwrap();
    let audited = kept(&journal).await;
    assert_eq!((audited.method.as_str(), audited.code), ("AbortUnit", Code::AlreadyExists as u32));
}

#[tokio::test]
async fn a_change_that_panics_is_answered_and_audited() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal(&folder);
    let broken = service_fn(|_: Request| async { panic!("as it should") });
    let guarded = AccessLayer::new(journal.clone()).layer(broken.map_response(|answer: Response| answer));
    let answer = guarded.oneshot(call()).await.unwrap();
    assert_eq!(Status::from_header_map(answer.headers()).unwrap().code(), Code::Internal);
    assert_eq!(kept(&journal).await.code, Code::Internal as u32);
}

#[tokio::test]
async fn a_call_of_nobody_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let fine = service_fn(|_: Request| ready(Ok::<_, Infallible>(Response::new(Body::empty()))));
    let mut nobodys = call();
    nobodys.extensions_mut().remove::<Caller>();
    let answer = AccessLayer::new(journal(&folder)).layer(fine).oneshot(nobodys).await.unwrap();
    assert_eq!(Status::from_header_map(answer.headers()).unwrap().code(), Code::Internal);
}
