//! Redirections.

use super::{Descriptor, Running};
use crate::process::{Input, errno_text, open_input, open_output};
use brush_parser::ast::{IoFileRedirectKind, IoFileRedirectTarget, IoHereDocument, IoRedirect};

impl Running<'_> {
    /// Applies redirections to the shell's own descriptors, one after another.
    pub(super) async fn redirect<'a>(&mut self, redirects: impl Iterator<Item = &'a IoRedirect>) -> Result<(), String> {
        for redirect in redirects {
            match redirect {
                IoRedirect::File(descriptor, kind, target) => self.redirect_file(*descriptor, kind, target).await?,
                IoRedirect::HereDocument(descriptor, document) => {
                    let text = self.here_document(document).await?;
                    let input = Descriptor::In(Input::bytes(text.into_bytes()));
                    self.shell.descriptors.insert(descriptor.unwrap_or(0), input);
                }
                IoRedirect::HereString(descriptor, word) => {
                    let text = self.text(&word.value).await? + "\n";
                    let input = Descriptor::In(Input::bytes(text.into_bytes()));
                    self.shell.descriptors.insert(descriptor.unwrap_or(0), input);
                }
                IoRedirect::OutputAndError(word, append) => {
                    let path = self.text(&word.value).await?;
                    let output = self.open_for_writing(&path, *append)?;
                    self.shell.descriptors.insert(1, output.clone());
                    self.shell.descriptors.insert(2, output);
                }
            }
        }
        Ok(())
    }

    async fn redirect_file(
        &mut self,
        descriptor: Option<i32>,
        kind: &IoFileRedirectKind,
        target: &IoFileRedirectTarget,
    ) -> Result<(), String> {
        let reads = matches!(kind, IoFileRedirectKind::Read | IoFileRedirectKind::DuplicateInput);
        let descriptor = descriptor.unwrap_or(if reads { 0 } else { 1 });
        let opened = match target {
            IoFileRedirectTarget::Filename(word) => {
                let path = self.text(&word.value).await?;
                match kind {
                    IoFileRedirectKind::Append => self.open_for_writing(&path, true)?,
                    IoFileRedirectKind::Write | IoFileRedirectKind::Clobber => self.open_for_writing(&path, false)?,
                    _ => self.open_for_reading(&path)?,
                }
            }
            IoFileRedirectTarget::Fd(from) => self.duplicate(*from)?,
            IoFileRedirectTarget::Duplicate(word) => {
                let from = self.text(&word.value).await?;
                if from == "-" {
                    self.shell.descriptors.remove(&descriptor);
                    return Ok(());
                }
                match from.parse() {
                    Ok(from) => self.duplicate(from)?,
                    Err(_) => self.open_for_writing(&from, false)?,
                }
            }
            IoFileRedirectTarget::ProcessSubstitution(..) => {
                return Err("process substitution is not supported by the simulated shell".to_string());
            }
        };
        self.shell.descriptors.insert(descriptor, opened);
        Ok(())
    }

    fn duplicate(&self, from: i32) -> Result<Descriptor, String> {
        self.shell.descriptors.get(&from).cloned().ok_or_else(|| format!("{from}: Bad file descriptor"))
    }

    fn open_for_reading(&self, path: &str) -> Result<Descriptor, String> {
        let shell = &self.shell;
        let opened = open_input(&shell.world, &shell.path(path), &shell.stdin());
        opened.map(Descriptor::In).map_err(|error| match (shell.world.profile.gnu, errno_text(&error)) {
            (true, "No such file or directory") => format!("cannot open {path}: No such file"),
            (_, "No such file or directory") => format!("can't open {path}: no such file"),
            (_, reason) => format!("can't open {path}: {reason}"),
        })
    }

    fn open_for_writing(&self, path: &str, append: bool) -> Result<Descriptor, String> {
        let shell = &self.shell;
        let opened = open_output(&shell.world, &shell.path(path), append, &shell.stdout(), &shell.stderr());
        opened.map(Descriptor::Out).map_err(|error| match (shell.world.profile.gnu, errno_text(&error)) {
            (true, "No such file or directory") => format!("cannot create {path}: Directory nonexistent"),
            (_, "No such file or directory") => format!("can't create {path}: nonexistent directory"),
            (_, reason) => format!("can't create {path}: {reason}"),
        })
    }

    async fn here_document(&mut self, document: &IoHereDocument) -> Result<String, String> {
        let text = match document.remove_tabs {
            true => document.doc.value.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect(),
            false => document.doc.value.clone(),
        };
        match document.requires_expansion {
            true => self.here_text(&text).await,
            false => Ok(text),
        }
    }
}
