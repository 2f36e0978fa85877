//! Where an agent's program is, and what of the host a cell has to see for it to run.
//!
//! On the `host` image everything in the system's folders is there already. What a person has installed at home (npm prefixes, nvm, pipx,
//! an installer's own folder) is not: the least that holds the program is mounted read-only, at its own path.
//!
//! A project may be in the `PATH` too (an environment of Python's that is switched on). What leads out of a repository there, by a link or by what
//! a file says, was written by whoever writes in it, a cell for one: nothing is shown for that.

use std::path::{Path, PathBuf};

use crate::resolve::{ImageFacts, Steady};

/// An agent's program, as found on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// What is to be called: the program's name where the cell's `PATH` leads to it, else its absolute path.
    pub(crate) program: String,
    /// Files and folders that have to be seen inside, read-only.
    pub(crate) mounts: Vec<PathBuf>,
    /// Folders to be added to the cell's `PATH`.
    pub(crate) path: Vec<PathBuf>,
}

/// Where programs are looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search<'a> {
    /// The host's `PATH`.
    pub(crate) path: &'a str,
    /// Home directories of the person, as they are called and where they lead.
    pub(crate) homes: &'a [PathBuf],
    /// The program that is running: a link to it called like an agent is no agent.
    pub(crate) own: Option<&'a Path>,
    /// What the image shows of the host.
    pub(crate) image: &'a ImageFacts,
    /// The host's files, and which ways in them nobody but the person has made.
    pub(crate) steady: Steady<'a>,
}

/// Longest `#!` line (execve(2): 255 bytes since Linux 5.1).
const SHEBANG: usize = 256;

impl<'a> Search<'a> {
    /// A search in the person's `PATH`.
    pub(crate) fn on(image: &'a ImageFacts, steady: Steady<'a>) -> Self {
        let host = steady.host;
        let path = host.env.get("PATH").map_or("", String::as_str);
        Self { path, homes: &host.homes, own: host.program.as_deref(), image, steady }
    }

    /// Looks for the first of `programs` that is there.
    pub(crate) fn find(self, programs: &[&str]) -> Option<Found> {
        programs.iter().find_map(|program| self.one(program))
    }

    fn one(self, program: &str) -> Option<Found> {
        let (place, real) = self.lookup(program)?;
        if self.image.shows(&place, self.steady.files) {
            return Some(Found { program: program.to_owned(), mounts: Vec::new(), path: Vec::new() });
        }
        let mut found = Found { program: real.to_string_lossy().into_owned(), mounts: Vec::new(), path: Vec::new() };
        if self.steady.stays(&place, &real) {
            let holder = self.holder(&real);
            let base = self.base(&holder);
            found.mounts.push(holder);
            self.add_interpreter(&real, &mut found);
            found.mounts.extend(base);
        }
        Some(found)
    }

    /// The first executable of this name in the `PATH`, and where it leads.
    fn lookup(self, program: &str) -> Option<(PathBuf, PathBuf)> {
        // An empty or relative entry means the working directory, where whoever can write can replace any program.
        self.path.split(':').filter(|folder| folder.starts_with('/')).find_map(|folder| {
            let place = Path::new(folder).join(program);
            let seen = self.steady.files.look(&place).ok()?;
            let usable =
                !seen.is_dir && self.own != Some(&seen.canonical) && self.steady.files.executable(&seen.canonical);
            usable.then_some((place, seen.canonical))
        })
    }

    /// The least that holds a program which is not in the system's folders.
    fn holder(self, real: &Path) -> PathBuf {
        let modules =
            real.ancestors().filter(|above| above.file_name().is_some_and(|name| name == "node_modules")).last();
        if let Some(modules) = modules {
            return modules.to_owned();
        }
        let Some(parent) = real.parent() else { return real.to_owned() };
        // A virtual environment of Python's: the program needs what lies beside its `bin`.
        if let Some(above) = parent.parent()
            && self.steady.files.look(&above.join("pyvenv.cfg")).is_ok()
        {
            return above.to_owned();
        }
        let shared = self.homes.iter().any(|home| home.starts_with(parent))
            || parent.file_name().is_some_and(|name| ["bin", "sbin", "versions"].iter().any(|shared| name == *shared));
        if shared { real.to_owned() } else { parent.to_owned() }
    }

    /// What a virtual environment was made from, where that is not in the system's folders either (uv, pyenv): its interpreter is a link there, and
    /// the standard library lies beside that. PEP 405: `home` in `pyvenv.cfg` is the folder of that interpreter.
    fn base(self, environment: &Path) -> Option<PathBuf> {
        let file = environment.join("pyvenv.cfg");
        let said = self.steady.files.text(&file)?;
        let bin = said.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| key.trim() == "home")?.1;
        let bin = Path::new(bin.trim());
        if !bin.is_absolute() || self.image.shows(bin, self.steady.files) {
            return None;
        }
        let prefix = bin.parent()?;
        let real = self.steady.files.look(prefix).ok()?.canonical;
        // uv and pyenv have links for versions, `3.12` to `3.12.3`: both are in the folder of all versions.
        let both = prefix.parent().filter(|above| real != prefix && real.parent() == Some(above));
        let may =
            |folder: &Path| !self.homes.iter().any(|home| home.starts_with(folder)) && self.steady.stays(&file, folder);
        [both, Some(real.as_path())].into_iter().flatten().find(|folder| may(folder)).map(Path::to_owned)
    }

    /// `#!/usr/bin/env node`: where that is not in the system's folders either (nvm, volta), it is shown too.
    fn add_interpreter(self, real: &Path, found: &mut Found) {
        let Some(name) = self.steady.files.head(real, SHEBANG).ok().and_then(|head| interpreter(&head)) else { return };
        let Some((place, real)) = self.lookup(&name) else { return };
        if self.image.shows(&place, self.steady.files) {
            return;
        }
        if let Some(folder) = real.parent() {
            found.path.push(folder.to_owned());
        }
        if self.steady.stays(&place, &real) && !found.mounts.iter().any(|mount| real.starts_with(mount)) {
            found.mounts.push(real);
        }
    }
}

/// The program that `env` looks for at the beginning of a script.
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    if !words.next()?.ends_with("/env") {
        return None;
    }
    // `-S` splits what follows; variables may be set before the program.
    words.find(|word| !word.starts_with('-') && !word.contains(['=', '/'])).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_of_env() {
        let cases: &[(&[u8], Option<&str>)] = &[
            (b"#!/usr/bin/env node\nx", Some("node")),
            (b"#!/usr/bin/env -S node --no-warnings\n", Some("node")),
            (b"#! /usr/bin/env -S A=1 bun", Some("bun")),
            (b"#!/bin/sh\n", None),
            (b"\x7fELF", None),
            (b"#!/usr/bin/env", None),
            (b"#!/usr/bin/env \xff\n", None),
            (b"", None),
        ];
        for (head, want) in cases {
            assert_eq!(interpreter(head).as_deref(), *want, "{head:?}");
        }
    }
}
