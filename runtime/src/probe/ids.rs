//! Subordinate ids: the programs, the files, and the real thing.

use std::path::{Path, PathBuf};

use cellblock_sys::process::SingleThreaded;
use rustix::fs::Access;
use rustix::process::Uid;

use super::child::{enter, failed, in_child};
use super::fixes::{RANGE, add_range, install_uidmap};
use super::{Facts, Finding, State};

const ID: &str = "subordinate-ids";
const TITLE: &str = "subordinate ids";
const COST: &str = "an image has one user only: all its files belong to you, and nobody else can run inside";

pub(super) fn subordinate_ids(facts: &Facts, alone: &SingleThreaded) -> Finding {
    if facts.real_root {
        return Finding::ok(ID, TITLE, "not needed by root");
    }
    let lacks = |detail: String| Finding::lacks(ID, TITLE, State::Degraded, detail, COST);
    let [Some(newuidmap), Some(newgidmap)] = ["newuidmap", "newgidmap"].map(|name| find(name, &facts.path)) else {
        let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let finding = lacks("newuidmap and newgidmap are not installed".into());
        return match install_uidmap(&release) {
            Some(command) => finding.script(command),
            None => {
                finding.note("install newuidmap and newgidmap (part of shadow; on NixOS they are in /run/wrappers/bin)")
            }
        };
    };
    for (file, ranges) in [("/etc/subuid", &facts.subuids), ("/etc/subgid", &facts.subgids)] {
        if largest(ranges) < RANGE {
            return lacks(format!("{file} has no range of {RANGE} ids for {} ({})", facts.user, listed(ranges)))
                .script(add_range(facts));
        }
    }
    let Some(ids) = &facts.range else { return lacks("no range could be laid out".into()) };
    let outcome = in_child(alone, |alone| {
        enter(ids, alone)?;
        // Really to be somebody else, as whom files can be made and owned.
        let other = ids.uids.iter().find(|e| e.size > 1 && e.outside != facts.uid).map_or(0, |e| e.inside);
        let uid = Uid::from_raw(other);
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("becoming a subordinate user"))?;
        Ok(String::new())
    });
    match outcome {
        Ok(_) => Finding::ok(ID, TITLE, format!("{} for {}, in use by newuidmap", listed(&facts.subuids), facts.user)),
        Err(failure) => {
            let powerless = [(&newuidmap, "cap_setuid"), (&newgidmap, "cap_setgid")]
                .into_iter()
                .filter(|(program, _)| !privileged(program))
                .map(|(program, capability)| format!("sudo setcap {capability}=ep '{}'", program.display()))
                .collect::<Vec<_>>();
            if powerless.is_empty() {
                lacks(failure.to_string()).note(
                    "/etc/subuid and /etc/subgid must name this person, and no filter or `no_new_privs` may be around this process",
                )
            } else {
                lacks(format!("newuidmap or newgidmap has neither the setuid bit nor file capabilities ({failure})"))
                    .script(powerless.join("\n"))
            }
        }
    }
}

fn find(name: &str, path: &[PathBuf]) -> Option<PathBuf> {
    let usual = ["/usr/bin", "/usr/local/bin", "/run/wrappers/bin"].map(PathBuf::from);
    path.iter()
        .chain(&usual)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|program| rustix::fs::access(program, Access::EXEC_OK).is_ok())
}

/// Whether a program gets privilege when it is executed: it belongs to root and is setuid, or has file capabilities.
fn privileged(program: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let setuid = std::fs::metadata(program).is_ok_and(|m| m.uid() == 0 && m.mode() & 0o4000 != 0);
    let mut value = [0u8; 64];
    setuid || rustix::fs::getxattr(program, c"security.capability", &mut value).is_ok_and(|length| length > 0)
}

fn largest(ranges: &[(u32, u32)]) -> u32 {
    ranges.iter().map(|(_, count)| *count).max().unwrap_or(0)
}

fn listed(ranges: &[(u32, u32)]) -> String {
    if ranges.is_empty() {
        return "none".into();
    }
    ranges.iter().map(|(start, count)| format!("{count} from {start}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_in_words() {
        assert_eq!((listed(&[]), largest(&[])), ("none".into(), 0));
        let two = [(100_000, 10), (200_000, 65_536)];
        assert_eq!((listed(&two), largest(&two)), ("10 from 100000, 65536 from 200000".into(), 65_536));
    }

    #[test]
    fn an_ordinary_program_has_no_privilege() {
        let program = find("true", &["/bin".into(), "relative".into()]).expect("every host has it");
        assert!(!privileged(&program));
        assert!(find("no-such-program", &[]).is_none());
    }
}
