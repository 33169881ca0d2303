//! Seeded numbers, names and UIDs.

use minik8s_clock::{NAME_ALPHABET, Random};
use std::{collections::BTreeSet, time::Duration};

#[test]
fn a_seed_replays() {
    let draw = |random: &Random| (random.uuid(), random.suffix(5), random.below(1000), random.fork().suffix(10));
    assert_eq!(draw(&Random::seeded(7)), draw(&Random::seeded(7)));
    assert_ne!(draw(&Random::seeded(7)), draw(&Random::seeded(8)));
    assert_ne!(Random::from_os().uuid(), Random::from_os().uuid());
}

#[test]
fn a_fork_is_a_stream_of_its_own() {
    let random = Random::seeded(7);
    let (first, second) = (random.fork(), random.fork());
    assert_ne!(first.suffix(20), second.suffix(20));
}

#[test]
fn uuids_are_version_4() {
    let random = Random::seeded(1);
    for _ in 0..100 {
        let uuid = random.uuid();
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uuid.as_bytes()[19]), "{uuid}");
        assert!(uuid.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
    }
}

#[test]
fn suffixes_use_the_whole_alphabet_and_nothing_else() {
    let seen: BTreeSet<u8> = Random::seeded(1).suffix(2000).into_bytes().into_iter().collect();
    assert_eq!(seen, NAME_ALPHABET.iter().copied().collect());
}

#[test]
fn numbers_stay_in_their_bounds() {
    let random = Random::seeded(1);
    assert_eq!(random.below(0), 0);
    assert_eq!(random.below(1), 0);
    let second = Duration::from_secs(1);
    for _ in 0..1000 {
        assert!(random.below(10) < 10);
        assert!((0.0..1.0).contains(&random.next_f64()));
        assert!((second..second * 3 / 2).contains(&random.jitter(second, 0.5)));
        assert!((second..second * 2).contains(&random.jitter(second, 0.0)));
    }
    let mut deck: Vec<u32> = (0..52).collect();
    random.shuffle(&mut deck);
    assert!(!deck.is_sorted());
    deck.sort_unstable();
    assert!(deck.iter().copied().eq(0..52));
}
