//! Users of this host, on the socket.

use std::os::unix::process::CommandExt as _;

use crate::daemon::{Daemon, folder};

/// Debian has these for ever.
const LP: u32 = 7;
const NOBODY: u32 = 65534;

#[tokio::test]
async fn the_stations_own_user_may_do_all_on_a_station_without_a_network() {
    let daemon = Daemon::start(folder("", ""));
    let (said, well) = daemon.ctl(|ctl| {
        ctl.arg("--station").arg(daemon.path("station.sock")).args([
            "release",
            "SN1",
            "--reason",
            "looked at",
        ]);
    });
    // It is not quarantined, which only who may release it is told.
    assert!(!well && said.contains("SN1") && !said.contains("PermissionDenied"), "{said}");
}

#[tokio::test]
async fn groups_and_users_have_the_roles_that_the_file_gives_them() {
    if !nix::unistd::getuid().is_root() {
        // Only root can come as somebody else; callers.rs tests the same without a process.
        return;
    }
    let daemon = Daemon::start(folder("", "[roles]\noperator = [\"group:lp\"]\n"));
    let check = |uid: u32, verb: &[&str], expected: &str| {
        let (said, _) = daemon.ctl(|ctl| {
            ctl.uid(uid).gid(uid).arg("--station").arg(daemon.path("station.sock")).args(verb);
        });
        assert!(said.contains(expected), "{verb:?} by {uid}: {expected:?} is not in {said}");
    };
    check(LP, &["describe"], "station station-1");
    let release = ["release", "SN1", "--reason", "looked at"];
    check(
        LP,
        &release,
        "ReleaseUnit needs one of the roles engineer; this caller is taken for user:lp, whose roles are operator",
    );
    check(
        NOBODY,
        &["describe"],
        "this caller is taken for user:nobody, whose roles are none: give it one in [roles]",
    );
    check(0, &["audit"], "user:lp [operator] from socket ReleaseUnit: PermissionDenied");
}
