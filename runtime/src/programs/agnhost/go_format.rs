//! How Go's standard library writes things, where tests read them.

use crate::process::errno_text;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use minik8s_cri::{FileKind, Metadata};
use std::io;
use std::time::Duration;

/// A line of `klog`: `I0131 23:59:59.000001       1 main.go:7] text`.
pub(super) fn klog_line(severity: char, at: Timestamp, pid: u32, place: &str, message: &str) -> String {
    let at = at.to_zoned(TimeZone::UTC).strftime("%m%d %H:%M:%S%.6f").to_string();
    let end = if message.ends_with('\n') { "" } else { "\n" };
    format!("{severity}{at} {pid:>7} {place}] {message}{end}")
}

/// `time.Time.String`, without the monotonic reading: `2026-01-31 23:59:59.5 +0000 UTC`.
pub(super) fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

/// `time.Duration.String`: `1h2m3.5s`, `250ms`, `0s`.
pub(super) fn duration(duration: Duration) -> String {
    let trimmed = |value: f64| {
        let text = format!("{value:.9}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    };
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_string(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", trimmed(nanos as f64 / 1e3)),
        1_000_000..1_000_000_000 => format!("{}ms", trimmed(nanos as f64 / 1e6)),
        _ => {
            let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
            let seconds = trimmed(seconds as f64 + f64::from(duration.subsec_nanos()) / 1e9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `time.ParseDuration`, without negative ones.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let end = behind.find(|character: char| character.is_ascii_digit() || character == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * factor;
        rest = behind;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// `fs.FileMode.String`: `-rw-r--r--`, `dgtrwxrwxrwx`.
pub(super) fn file_mode(metadata: &Metadata) -> String {
    let kinds = [
        (metadata.kind == FileKind::Directory, 'd'),
        (metadata.kind == FileKind::Symlink, 'L'),
        (metadata.mode & 0o4000 != 0, 'u'),
        (metadata.mode & 0o2000 != 0, 'g'),
        (metadata.mode & 0o1000 != 0, 't'),
    ];
    let kinds: String = kinds.into_iter().filter(|(holds, _)| *holds).map(|(_, letter)| letter).collect();
    let kinds = if kinds.is_empty() { "-".to_string() } else { kinds };
    kinds + &permissions(metadata.mode)
}

/// `fs.FileMode.Perm`, as text: `-rw-r--r--`.
pub(super) fn file_permissions(metadata: &Metadata) -> String {
    format!("-{}", permissions(metadata.mode))
}

fn permissions(mode: u32) -> String {
    let letters = "rwxrwxrwx".chars().enumerate();
    letters.map(|(at, letter)| if mode & (0o400 >> at) != 0 { letter } else { '-' }).collect()
}

/// An error of the file system, as Go's `os.PathError` says it.
pub(super) fn path_error(operation: &str, path: &str, error: &io::Error) -> String {
    format!("{operation} {path}: {}", errno(error))
}

/// An error number's words, as Go has them: libc's in lower case.
pub(super) fn errno(error: &io::Error) -> String {
    errno_text(error).to_lowercase()
}

/// An error of a connection, as Go's `net.OpError` says it.
pub(super) fn dial_error(network: &str, address: std::net::SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => format!("dial {network} {address}: i/o timeout"),
        _ => format!("dial {network} {address}: connect: {}", errno(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_and_read_as_in_go() {
        let cases = [
            (0, "0s"),
            (1_500_000, "1.5ms"),
            (2_000, "2µs"),
            (10_000_123_000, "10.000123s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ];
        for (nanos, text) in cases {
            let length = Duration::from_nanos(nanos);
            assert_eq!(duration(length), text);
            assert_eq!(parse_duration(text), Some(length));
        }
        for wrong in ["", "5", "s", "5 s", "-1s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn modes_are_written_as_in_go() {
        let of = |kind, mode| Metadata { kind, len: 0, mode, modified: Timestamp::UNIX_EPOCH };
        assert_eq!(file_mode(&of(FileKind::File, 0o644)), "-rw-r--r--");
        assert_eq!(file_mode(&of(FileKind::Directory, 0o3777)), "dgtrwxrwxrwx");
        assert_eq!(file_permissions(&of(FileKind::Directory, 0o1777)), "-rwxrwxrwx");
    }
}
