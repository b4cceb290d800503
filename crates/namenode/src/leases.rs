//! When holders of leases last spoke: soft state of the leader (D12). Times are monotonic, so that a
//! jump of the clock expires nobody (CASES, 39). A new leader, or a restarted one, starts every
//! clock again: a holder that it never heard of was renewed when it began.

use std::collections::BTreeMap;

use mobula_types::Millis;

/// Renewals by holder.
#[derive(Debug)]
pub struct Leases {
    began: Millis,
    renewed: BTreeMap<String, Millis>,
}

impl Leases {
    /// Every clock starts at `now` (monotonic).
    pub fn new(now: Millis) -> Leases {
        Leases { began: now, renewed: BTreeMap::new() }
    }

    /// `holder` spoke.
    pub fn renew(&mut self, holder: &str, now: Millis) {
        match self.renewed.get_mut(holder) {
            Some(at) => *at = now,
            None => {
                self.renewed.insert(holder.to_owned(), now);
            }
        }
    }

    /// Since when `holder` has been silent, as a span before `now`.
    pub fn silent(&self, holder: &str, now: Millis) -> Millis {
        now.since(self.renewed.get(holder).copied().unwrap_or(self.began))
    }

    /// As [`Leases::silent`], of one who holds a lease: his clock starts now if it had not, as for one whose file was so
    /// long on its way into the log that he was forgotten.
    pub fn silent_holder(&mut self, holder: &str, now: Millis) -> Millis {
        if !self.renewed.contains_key(holder) {
            self.renew(holder, now);
        }
        self.silent(holder, now)
    }

    /// Forgets who has been silent for longer than `limit` and holds no lease: nobody asks how long he has been.
    pub fn forget(&mut self, now: Millis, limit: Millis, holds: impl Fn(&str) -> bool) {
        self.renewed.retain(|holder, at| now.since(*at) <= limit || holds(holder));
    }

    /// How many holders are remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.renewed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_last_word_or_the_beginning() {
        let mut leases = Leases::new(Millis(100));
        assert_eq!(leases.silent("a", Millis(150)), Millis(50));
        leases.renew("a", Millis(150));
        assert_eq!(leases.silent("a", Millis(170)), Millis(20));
        leases.forget(Millis(400), Millis(200), |_| false);
        assert_eq!(leases.silent("a", Millis(400)), Millis(300));
    }

    #[test]
    fn who_holds_nothing_is_forgotten_after_the_limit() {
        let mut leases = Leases::new(Millis(0));
        for number in 0..1_000 {
            leases.renew(&format!("refused-{number}"), Millis(1_000));
        }
        leases.renew("writer", Millis(1_000));
        leases.forget(Millis(60_999), Millis(60_000), |holder| holder == "writer");
        assert_eq!(leases.len(), 1_001, "what they asked for may be on its way into the log");
        leases.forget(Millis(61_001), Millis(60_000), |holder| holder == "writer");
        assert_eq!(leases.len(), 1);
        assert_eq!(leases.silent("writer", Millis(61_001)), Millis(60_001));
        assert_eq!(leases.silent_holder("refused-7", Millis(61_001)), Millis(0), "it was late");
        assert_eq!(leases.silent_holder("writer", Millis(61_001)), Millis(60_001));
    }
}
