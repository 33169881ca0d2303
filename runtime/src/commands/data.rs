//! Tools that move, show or digest bytes: `dd`, `hexdump`, `base64`, `sha256sum`.

use super::{Options, complain_usage};
use crate::image::parse_bytes;
use crate::process::{Process, errno_text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::io;

/// How many bytes `hexdump` shows in a line.
const HEXDUMP_LINE_BYTES: usize = 16;
/// How much `dd` really reads at once of a block that may be larger.
const PIECE_BYTES: u64 = 64 * 1024;

pub(super) async fn dd(mut process: Process) -> io::Result<i32> {
    let (mut source, mut target, mut block, mut count) = (None, None, 512, None);
    for argument in process.arguments() {
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        let size = || {
            parse_bytes(
                &value
                    .replace('M', "Mi")
                    .replace('G', "Gi")
                    .replace(['k', 'K'], "Ki")
                    .replace("Mii", "Mi")
                    .replace("Gii", "Gi")
                    .replace("Kii", "Ki"),
            )
        };
        match name {
            "if" => source = Some(value.to_string()),
            "of" => target = Some(value.to_string()),
            "bs" => match size() {
                Some(bytes) => block = bytes,
                None => return complain_usage(&process, format!("invalid number '{value}'")).await,
            },
            "count" => count = size(),
            "status" | "conv" | "iflag" | "oflag" => {}
            _ => return complain_usage(&process, format!("unknown operand '{argument}'")).await,
        }
    }
    let opened = |error: io::Error, path: &str| format!("can't open '{path}': {}", errno_text(&error));
    let input = match &source {
        None => process.stdin.clone(),
        Some(path) => match process.open_input(path) {
            Ok(input) => input,
            Err(error) => return complain_usage(&process, opened(error, path)).await,
        },
    };
    let output = match &target {
        None => process.stdout.clone(),
        Some(path) => match process.open_output(path, false) {
            Ok(output) => output,
            Err(error) => return complain_usage(&process, opened(error, path)).await,
        },
    };
    // The buffer is one block, which counts as memory in full.
    let _buffer = process.world.memory.allocate(block);
    let mut left = count.map(|count| count.saturating_mul(block)).unwrap_or(u64::MAX);
    let mut copied = 0;
    let mut full = None;
    while left > 0 {
        let piece = input.read_exactly(usize::try_from(left.min(PIECE_BYTES)).unwrap_or(usize::MAX)).await?;
        if piece.is_empty() {
            break;
        }
        if let Err(error) = output.write(&piece).await {
            full = Some(error);
            break;
        }
        copied += piece.len() as u64;
        left -= piece.len() as u64;
        process.charge(1).await;
    }
    if let Some(error) = full {
        let target = target.unwrap_or_default();
        process.complain(format!("error writing '{target}': {}", errno_text(&error))).await;
        return Ok(1);
    }
    let (whole, part) = (copied / block.max(1), u64::from(!copied.is_multiple_of(block.max(1))));
    process.stderr.line(format!("{whole}+{part} records in\n{whole}+{part} records out")).await?;
    Ok(0)
}

async fn content(process: &Process, operands: &[String]) -> io::Result<Option<Vec<u8>>> {
    match operands.first().filter(|path| *path != "-") {
        None => process.stdin.rest().await.map(Some),
        Some(path) => match process.open_input(path) {
            Ok(input) => input.rest().await.map(Some),
            Err(error) => {
                process.complain(format!("{path}: {}", errno_text(&error))).await;
                Ok(None)
            }
        },
    }
}

pub(super) async fn base64(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["d", "decode"], &["w"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let Some(content) = content(&process, &options.operands).await? else { return Ok(1) };
    if options.has(&["d", "decode"]) {
        let text: Vec<u8> = content.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
        return match STANDARD.decode(text) {
            Ok(bytes) => process.stdout.write(bytes).await.map(|()| 0),
            Err(_) => {
                process.complain("truncated input").await;
                Ok(1)
            }
        };
    }
    let text = STANDARD.encode(content);
    let width = options.value(&["w"]).and_then(|width| width.parse().ok()).unwrap_or(76);
    if width == 0 {
        process.stdout.write(text).await?;
        return Ok(0);
    }
    for line in text.as_bytes().chunks(width) {
        process.stdout.write(line).await?;
        process.stdout.write("\n").await?;
    }
    Ok(0)
}

pub(super) async fn sha256sum(process: Process) -> io::Result<i32> {
    let mut operands = process.arguments().to_vec();
    if operands.is_empty() {
        operands.push("-".to_string());
    }
    let mut code = 0;
    for operand in operands {
        match content(&process, std::slice::from_ref(&operand)).await? {
            Some(content) => {
                let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
                process.stdout.line(format!("{digest}  {operand}")).await?;
            }
            None => code = 1,
        }
    }
    Ok(code)
}

/// Bytes in hexadecimal: `-C` with their characters beside them, else as 16-bit words. Lines that repeat are one `*`.
pub(super) async fn hexdump(process: Process) -> io::Result<i32> {
    let options = match Options::parse(process.arguments(), &["C", "v"], &["n"]) {
        Ok(options) => options,
        Err(message) => return complain_usage(&process, message).await,
    };
    let mut bytes = Vec::new();
    for operand in &options.operands {
        match process.world.fs.read(&process.path(operand)) {
            Ok(content) => bytes.extend_from_slice(&content),
            Err(error) => {
                process.complain(format!("{operand}: {}", errno_text(&error))).await;
                return Ok(1);
            }
        }
    }
    if options.operands.is_empty() {
        bytes = process.stdin.rest().await?;
    }
    if let Some(most) = options.value(&["n"]) {
        match most.parse() {
            Ok(most) => bytes.truncate(most),
            Err(_) => return complain_usage(&process, format!("invalid number '{most}'")).await,
        }
    }
    let (canonical, mut text) = (options.has(&["C"]), String::new());
    let (mut last, mut starred): (&[u8], bool) = (&[], false);
    for (row, line) in bytes.chunks(HEXDUMP_LINE_BYTES).enumerate() {
        if line == last && !options.has(&["v"]) {
            text += if starred { "" } else { "*\n" };
            starred = true;
            continue;
        }
        (last, starred) = (line, false);
        let offset = row * HEXDUMP_LINE_BYTES;
        text += &if canonical { canonical_line(offset, line) } else { word_line(offset, line) };
    }
    if !bytes.is_empty() {
        let length = bytes.len();
        text += &if canonical { format!("{length:08x}\n") } else { format!("{length:07x}\n") };
    }
    process.stdout.write(text).await?;
    Ok(0)
}

fn canonical_line(offset: usize, line: &[u8]) -> String {
    let half = |half: &[u8]| half.iter().map(|byte| format!(" {byte:02x}")).collect::<String>();
    let (left, right) = line.split_at(line.len().min(8));
    let shown = line.iter().map(|byte| if matches!(byte, 32..=126) { char::from(*byte) } else { '.' });
    format!("{offset:08x} {:<24} {:<24}  |{}|\n", half(left), half(right), shown.collect::<String>())
}

fn word_line(offset: usize, line: &[u8]) -> String {
    let word = |pair: &[u8]| format!(" {:02x}{:02x}", pair.get(1).copied().unwrap_or_default(), pair[0]);
    format!("{offset:07x}{}\n", line.chunks(2).map(word).collect::<String>())
}
