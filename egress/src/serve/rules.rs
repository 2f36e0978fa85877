//! The rules in force, which can change while the cell runs.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::policy::{Entry, Policy, PolicyError, Written};

/// What was written, and the policy that it makes.
#[derive(Debug)]
pub(super) struct Rules {
    allow: Vec<Written>,
    deny: Vec<Written>,
    /// Those of `allow` that end.
    ends: Vec<(Written, Instant)>,
    policy: Arc<Policy>,
    /// Where is kept what is denied later.
    denied: File,
}

/// Why something is not denied, or not for good.
#[derive(Debug, thiserror::Error)]
pub(super) enum DenyError {
    /// The rule is none.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// It counts for as long as this network does.
    #[error("it counts now, but would be forgotten if the network's process died: {0}")]
    Keep(#[from] io::Error),
}

impl Rules {
    /// `denied` is where is kept what is denied later.
    pub(super) fn new(allow: Vec<Written>, deny: Vec<Written>, denied: File) -> Result<Self, PolicyError> {
        let policy = Arc::new(Policy::new(&allow, &deny)?);
        Ok(Self { allow, deny, ends: Vec::new(), policy, denied })
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    /// Allows more, for a while or for good.
    pub(super) fn allow(&mut self, written: Written, life: Option<Duration>) -> Result<(), PolicyError> {
        let mut allow = self.allow.clone();
        allow.push(written.clone());
        self.policy = Arc::new(Policy::new(&allow, &self.deny)?);
        self.allow = allow;
        // What ends later than a clock can tell does not end.
        if let Some(at) = life.and_then(|life| Instant::now().checked_add(life)) {
            self.ends.push((written, at));
        }
        Ok(())
    }

    /// Denies more, also for a network that takes the place of this one.
    pub(super) fn deny(&mut self, written: Written) -> Result<(), DenyError> {
        let mut line = serde_json::to_vec(&written).map_err(io::Error::from)?;
        line.push(b'\n');
        let mut deny = self.deny.clone();
        deny.push(written);
        let policy = Arc::new(Policy::new(&self.allow, &deny)?);
        (self.policy, self.deny) = (policy, deny);
        // It counts already: that it would be forgotten is no reason to let the cell through.
        Ok(self.denied.write_all(&line)?)
    }

    /// Takes out what has ended; whether there was any.
    pub(super) fn expire(&mut self) -> Result<bool, PolicyError> {
        let now = Instant::now();
        let (over, on): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ends).into_iter().partition(|(_, at)| *at <= now);
        self.ends = on;
        for (written, _) in &over {
            if let Some(place) = self.allow.iter().rposition(|w| w == written) {
                self.allow.remove(place);
            }
        }
        if !over.is_empty() {
            self.policy = Arc::new(Policy::new(&self.allow, &self.deny)?);
        }
        Ok(!over.is_empty())
    }

    /// Seconds until a rule of this origin ends, if it does.
    pub(super) fn seconds(&self, rule: &str, origin: &str) -> Option<u64> {
        let same = |w: &Written| matches!(&w.entry, Entry::Rule(r) if r.to_string() == rule) && w.origin == origin;
        let (_, at) = self.ends.iter().find(|(written, _)| same(written))?;
        Some(at.saturating_duration_since(Instant::now()).as_secs())
    }
}
