//! The rules in force, which can change while the cell runs.

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
}

impl Rules {
    pub(super) fn new(allow: Vec<Written>, deny: Vec<Written>) -> Result<Self, PolicyError> {
        let policy = Arc::new(Policy::new(&allow, &deny)?);
        Ok(Self { allow, deny, ends: Vec::new(), policy })
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
        if let Some(life) = life {
            self.ends.push((written, Instant::now() + life));
        }
        Ok(())
    }

    /// Denies more.
    pub(super) fn deny(&mut self, written: Written) -> Result<(), PolicyError> {
        let mut deny = self.deny.clone();
        deny.push(written);
        self.policy = Arc::new(Policy::new(&self.allow, &deny)?);
        self.deny = deny;
        Ok(())
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
