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

    /// Forgets holders that have been silent for longer than `limit`: whoever is not known counts
    /// from the beginning, which is earlier still once that limit has passed.
    pub fn forget(&mut self, now: Millis, limit: Millis) {
        if now.since(self.began) > limit {
            self.renewed.retain(|_, at| now.since(*at) <= limit);
        }
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
        leases.forget(Millis(400), Millis(200));
        assert_eq!(leases.silent("a", Millis(400)), Millis(300));
    }
}
