//! `find`: names, kinds and depth; `-print`, `-delete` and `-exec` of one command.

use super::complain_usage;
use crate::pattern;
use crate::process::{self, Process, errno_text};
use minik8s_cri::FileKind;
use std::io;

#[derive(Default)]
struct Expression {
    name: Option<String>,
    path: Option<String>,
    kind: Option<FileKind>,
    most_depth: Option<usize>,
    least_depth: usize,
    delete: bool,
    exec: Option<Vec<String>>,
}

fn parse(words: &[String]) -> Result<Expression, String> {
    let mut expression = Expression::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or_else(|| format!("{word}: requires an argument"));
        match word.as_str() {
            "-name" | "-iname" => expression.name = Some(value()?),
            "-path" => expression.path = Some(value()?),
            "-type" => {
                expression.kind = match value()?.as_str() {
                    "f" => Some(FileKind::File),
                    "d" => Some(FileKind::Directory),
                    "l" => Some(FileKind::Symlink),
                    other => return Err(format!("unknown argument to -type: {other}")),
                };
            }
            "-maxdepth" => expression.most_depth = value()?.parse().ok(),
            "-mindepth" => expression.least_depth = value()?.parse().unwrap_or(0),
            "-delete" => expression.delete = true,
            "-exec" => {
                let command = words.by_ref().take_while(|word| *word != ";" && *word != "+").cloned().collect();
                expression.exec = Some(command);
            }
            "-print" | "-xdev" | "-L" => {}
            other => return Err(format!("unrecognized: {other}")),
        }
    }
    Ok(expression)
}

pub(super) async fn find(mut process: Process) -> io::Result<i32> {
    let arguments = process.arguments().to_vec();
    let options_at = arguments.iter().position(|word| word.starts_with('-')).unwrap_or(arguments.len());
    let (roots, words) = arguments.split_at(options_at);
    let expression = match parse(words) {
        Ok(expression) => expression,
        Err(message) => return complain_usage(&process, message).await,
    };
    let roots = if roots.is_empty() { vec![".".to_string()] } else { roots.to_vec() };
    let mut code = 0;
    for root in roots {
        if let Err(error) = process.world.fs.symlink_metadata(&process.path(&root)) {
            process.complain(format!("{root}: {}", errno_text(&error))).await;
            code = 1;
            continue;
        }
        let mut pending = vec![(root, 0)];
        while let Some((shown, depth)) = pending.pop() {
            let path = process.path(&shown);
            // What was deleted while we walked is passed by.
            let Ok(found) = process.world.fs.symlink_metadata(&path) else { continue };
            if found.kind == FileKind::Directory && expression.most_depth.is_none_or(|most| depth < most) {
                let entries = process.world.fs.list(&path)?;
                let below = entries
                    .iter()
                    .rev()
                    .map(|entry| (format!("{}/{}", shown.trim_end_matches('/'), entry.name), depth + 1));
                pending.extend(below.collect::<Vec<_>>());
            }
            let name = shown.rsplit('/').next().unwrap_or(&shown);
            let wanted = depth >= expression.least_depth
                && expression.kind.is_none_or(|kind| kind == found.kind)
                && expression.name.as_ref().is_none_or(|wanted| pattern::matches(wanted, name))
                && expression.path.as_ref().is_none_or(|wanted| pattern::matches(wanted, &shown));
            if wanted && !act(&process, &expression, &shown).await? {
                code = 1;
            }
            process.charge(1).await;
        }
    }
    Ok(code)
}

async fn act(process: &Process, expression: &Expression, shown: &str) -> io::Result<bool> {
    if expression.delete {
        return Ok(process.world.fs.remove(&process.path(shown), true).is_ok());
    }
    let Some(command) = &expression.exec else {
        process.stdout.line(shown).await?;
        return Ok(true);
    };
    let args: Vec<String> = command.iter().map(|word| word.replace("{}", shown)).collect();
    let path = process.env.get("PATH").map(String::as_str);
    match process.world.load(&args, path, &process.cwd) {
        Ok((program, args)) => Ok(process::run(&process.world, program, process.child(args)).await == 0),
        Err(error) => {
            process.complain(error).await;
            Ok(false)
        }
    }
}
