//! Room on the stack for what runs inside of itself: a function that calls itself, a script that runs itself. A script of a
//! pod must not be able to end the process that simulates it.

use futures::future::BoxFuture;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What runs between two places that look for room uses less than this.
const RED_ZONE_BYTES: usize = 512 << 10;
/// What is taken where there is less, for as long as one poll lasts. The machine gives it as it is used.
const SEGMENT_BYTES: usize = 4 << 20;

/// What a parser uses for what stands inside of something else, and whoever follows what it has read: up to 32 KiB a level
/// in a debug build.
const LEVEL_BYTES: usize = 48 << 10;
/// Levels for which room is made. The parser of a text that could have more is not called.
const LEVELS_LIMIT: usize = 8192;

/// What may have something inside of it in a script. Quotes are not looked at: a text has no more levels than this, and most
/// have far fewer.
pub(super) fn openings(text: &str) -> usize {
    const SIGNS: &[u8] = b"({!&|`";
    const WORDS: [&str; 8] = ["if", "while", "until", "for", "case", "select", "function", "coproc"];
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    text.bytes().filter(|byte| SIGNS.contains(byte)).count() + words.filter(|word| WORDS.contains(word)).count()
}

/// The same in a word or a here-document, where braces alone have nothing to say.
pub(super) fn expansions(text: &str) -> usize {
    text.bytes().filter(|byte| b"$`".contains(byte)).count()
}

/// Calls a parser that has room for so many levels; `None` if that would be too much.
pub(super) fn parsing<T>(levels: usize, parse: impl FnOnce() -> T) -> Option<T> {
    let needed = RED_ZONE_BYTES + levels * LEVEL_BYTES;
    (levels <= LEVELS_LIMIT).then(|| stacker::maybe_grow(needed, needed, parse))
}

/// A future that may wait for one like itself, and that for another.
struct Deep<'a, T>(Option<BoxFuture<'a, T>>);

/// The future, with room for what it waits for.
pub(crate) fn deep<'a, T: 'a>(future: impl Future<Output = T> + Send + 'a) -> BoxFuture<'a, T> {
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
