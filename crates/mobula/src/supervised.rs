//! How a server lives that another program started: how that program learns that it is ready and
//! finds it again, and how the server learns that nobody wants it any more.
//!
//! A lifeline (`--until-stdin-closes`) ends with whoever holds it. A claim (`--claim FILE`) is for
//! supervisors that may die and come back: they touch the file now and then, and a server whose file
//! nobody has touched for the limit ends in order. Only changes of the file count, measured by a clock
//! that never jumps: a wrong time of day neither ends a server nor keeps it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use tokio::time::Instant;

use crate::config::units::parse_millis;
use crate::process::READY;

/// How often a claim is looked at; a claim may be overstayed by so much.
const CLAIM_LOOK: Duration = Duration::from_millis(500);

/// What servers take as flags for programs that start them.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Supervised {
    /// End when standard input closes: for programs that start this one
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
    /// End when nobody has touched this file for --claim-limit: for supervisors that may come back
    #[arg(long, value_name = "FILE")]
    pub claim: Option<PathBuf>,
    /// How long a claim lasts, as 60s
    #[arg(long, value_name = "TIME", default_value = "60s", requires = "claim")]
    pub claim_limit: String,
    /// Write what is printed when ready into this file too, with the process id
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

impl Supervised {
    /// The claim to watch, if there is one.
    ///
    /// # Errors
    /// A limit that is no time.
    pub fn claim(&self) -> Result<Option<Claim>> {
        let Some(file) = &self.claim else { return Ok(None) };
        let limit = parse_millis(&self.claim_limit, 1_000)
            .ok_or_else(|| anyhow!("--claim-limit '{}' is no time such as 60s", self.claim_limit))?;
        Ok(Some(Claim::new(file.clone(), Duration::from_millis(limit))))
    }

    /// Says that the server serves: `ready WORDS` on standard output, and in the ready file.
    ///
    /// # Errors
    /// The ready file cannot be written.
    pub fn ready(&self, words: &str) -> Result<()> {
        if let Some(file) = &self.ready_file {
            write_whole(file, &format!("{READY} {words}\npid {}\n", std::process::id()))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        println!("{READY} {words}");
        Ok(())
    }
}

/// Readers see the old file or the new one, never half of it.
fn write_whole(file: &Path, text: &str) -> std::io::Result<()> {
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, file)
}

/// A file that somebody touches as long as this process is wanted.
#[derive(Debug)]
pub struct Claim {
    file: PathBuf,
    limit: Duration,
    seen: Option<SystemTime>,
    since: Instant,
}

impl Claim {
    /// A claim that counts as renewed now.
    pub fn new(file: PathBuf, limit: Duration) -> Claim {
        let seen = touched(&file);
        Claim { file, limit, seen, since: Instant::now() }
    }

    /// Resolves when the claim was not renewed for its limit. A missing file is not a renewal.
    pub async fn lapsed(&mut self) {
        while self.since.elapsed() < self.limit {
            tokio::time::sleep(CLAIM_LOOK.min(self.limit)).await;
            let now = touched(&self.file);
            if now.is_some() && now != self.seen {
                self.seen = now;
                self.since = Instant::now();
            }
        }
        let file = self.file.display();
        tracing::warn!("nobody has touched {file} for {:?}: this server is not wanted any more", self.limit);
    }
}

fn touched(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|data| data.modified()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn touch(file: &Path, second: u64) {
        let opened = std::fs::File::options().create(true).truncate(false).write(true).open(file).unwrap();
        opened.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_lasts_as_long_as_somebody_touches_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("claim");
        let mut claim = Claim::new(file.clone(), LIMIT);
        let began = Instant::now();
        for second in 1..=5 {
            // An old time of day is a renewal too: what counts is that it changed.
            touch(&file, second);
            let early = tokio::time::timeout(LIMIT - CLAIM_LOOK * 2, claim.lapsed()).await;
            assert!(early.is_err(), "lapsed {:?} after it began", began.elapsed());
        }
        claim.lapsed().await;
        let lasted = began.elapsed();
        // Its last renewal was seen a little after 4 x 59 s.
        assert!(lasted > LIMIT * 4 && lasted < LIMIT * 5, "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_whose_file_is_gone_lapses() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("claim");
        touch(&file, 1);
        let mut claim = Claim::new(file.clone(), LIMIT);
        std::fs::remove_file(&file).unwrap();
        let began = Instant::now();
        claim.lapsed().await;
        assert!(began.elapsed() < LIMIT + CLAIM_LOOK * 2);
    }

    #[test]
    fn the_ready_file_tells_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ready");
        let supervised = Supervised { ready_file: Some(file.clone()), ..Supervised::default() };
        supervised.ready("hdfs://127.0.0.1:1").unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, format!("ready hdfs://127.0.0.1:1\npid {}\n", std::process::id()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
