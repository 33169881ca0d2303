//! Room on the stack for what runs inside of itself: a function that calls itself, a script that runs itself. A script of a
//! pod must not be able to end the process that simulates it.

use futures::future::BoxFuture;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What runs between two places that look for room uses less than this.
const RED_ZONE_BYTES: usize = 512 << 10;
/// What is taken where there is less, for as long as one poll lasts. The machine gives it as it is used.
const SEGMENT_BYTES: usize = 4 << 20;

/// A future that may wait for one like itself, and that for another.
struct Deep<'a, T>(Option<BoxFuture<'a, T>>);

/// The future, with room for what it waits for.
pub(super) fn deep<'a, T: 'a>(future: impl Future<Output = T> + Send + 'a) -> BoxFuture<'a, T> {
    Box::pin(Deep(Some(Box::pin(future))))
}

impl<T> Future for Deep<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let future = self.0.as_mut().expect("it is there until it is dropped").as_mut();
        stacker::maybe_grow(RED_ZONE_BYTES, SEGMENT_BYTES, || future.poll(context))
    }
}

impl<T> Drop for Deep<'_, T> {
    fn drop(&mut self) {
        let future = self.0.take();
        stacker::maybe_grow(RED_ZONE_BYTES, SEGMENT_BYTES, || drop(future));
    }
}
