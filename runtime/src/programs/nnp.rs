//! `nnp`: says who it runs as. Its file belongs to root and has the set-user-ID bit, so that it runs as root, unless the pod
//! forbids to gain privileges (`test/images/nonewprivs` of kubernetes).

use crate::process::Process;

pub(super) async fn run(process: Process) -> i32 {
    let world = &process.world;
    let uid = if world.no_new_privileges { world.user.uid } else { 0 };
    i32::from(process.stdout.line(format!("Effective uid: {uid}")).await.is_err())
}
