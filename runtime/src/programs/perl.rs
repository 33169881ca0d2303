//! `perl`, as far as textbooks use it: to compute π.
//!
//! The Job of Kubernetes' documentation runs `perl -Mbignum=bpi -wle print bpi(2000)`.

use crate::process::Process;

/// More digits than this are not computed.
const DIGIT_LIMIT: usize = 20_000;
/// After this many digits the processor time is charged.
const DIGITS_A_SLICE: usize = 50;
/// What a digit costs, in commands' worth of processor time.
const COST_OF_SLICE: u32 = 100;

pub(super) async fn run(mut process: Process) -> i32 {
    let script = process.arguments().iter().find_map(|argument| {
        let digits = argument.split("bpi(").nth(1)?.split(')').next()?;
        digits.trim().parse::<usize>().ok()
    });
    if process.arguments().iter().any(|argument| argument == "-v" || argument == "--version") {
        let version = process.world.version.clone();
        let said = process.stdout.line(format!("\nThis is perl 5, version {version} (simulated)")).await;
        return i32::from(said.is_err());
    }
    let Some(digits) = script.filter(|digits| (1..=DIGIT_LIMIT).contains(digits)) else {
        process.complain(format!("the simulated perl only knows print bpi(N), with N up to {DIGIT_LIMIT}")).await;
        return 2;
    };
    let text = pi(digits, &mut process).await;
    i32::from(process.stdout.line(text).await.is_err())
}

/// π with this many digits in all, cut off as `bpi` rounds: by the digit that follows. (A spigot after Rabinowitz and Wagon.)
async fn pi(digits: usize, process: &mut Process) -> String {
    let wanted = digits + 8;
    let length = wanted * 10 / 3 + 1;
    let mut remainders = vec![2u64; length];
    let mut decimal: Vec<u8> = Vec::with_capacity(wanted);
    for round in 0..wanted {
        let mut carry = 0;
        for index in (1..=length).rev() {
            let value = remainders[index - 1] * 10 + carry * index as u64;
            let divisor = 2 * index as u64 - 1;
            remainders[index - 1] = value % divisor;
            carry = value / divisor;
        }
        remainders[0] = carry % 10;
        carry /= 10;
        push_digit(&mut decimal, carry);
        if round % DIGITS_A_SLICE == 0 {
            process.charge(COST_OF_SLICE).await;
        }
    }
    let rounded_up = decimal[digits] >= 5;
    decimal.truncate(digits);
    if rounded_up {
        let last = decimal.len() - 1;
        add_one(&mut decimal, last);
    }
    let text: String = decimal.iter().map(|digit| char::from(b'0' + digit)).collect();
    match text.split_at(1) {
        (whole, "") => whole.to_string(),
        (whole, fraction) => format!("{whole}.{fraction}"),
    }
}

/// Appends a digit that may be 10, which carries into those before it.
fn push_digit(decimal: &mut Vec<u8>, digit: u64) {
    if digit >= 10 && !decimal.is_empty() {
        let last = decimal.len() - 1;
        add_one(decimal, last);
    }
    decimal.push((digit % 10) as u8);
}

fn add_one(decimal: &mut [u8], mut at: usize) {
    while decimal[at] == 9 && at > 0 {
        decimal[at] = 0;
        at -= 1;
    }
    decimal[at] += 1;
}
