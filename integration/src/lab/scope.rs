//! How much of a story runs: the few rounds of `make test`, or one machine's part of all rounds; and the seed of its random numbers.

use std::time::Duration;

/// Which stories run, and how many rounds they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Set {
    /// A few rounds of each fault: `make test`.
    Short,
    /// All rounds, and the stories that take long: `make test-all`.
    Full,
}

impl Set {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Full => "full",
        }
    }
}

/// The part of a story that one machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Scope {
    /// Which set of rounds
    #[arg(long, value_enum, default_value = "short")]
    pub set: Set,
    /// Which of the parts, from 1
    #[arg(long, default_value_t = 1)]
    pub part: u32,
    /// How many machines share the rounds of the full set
    #[arg(long, default_value_t = 1)]
    pub parts: u32,
    /// Seed of the random numbers: the same seed repeats the same choices
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Scope {
    /// The command-line options for this scope.
    pub fn words(&self) -> String {
        let Self { set, part, parts, seed } = self;
        format!("--set {} --part {part} --parts {parts} --seed {seed}", set.name())
    }

    /// Number of rounds: `short` in the short set; in the full set, this part of `full`.
    pub fn rounds(&self, short: u32, full: u32) -> u32 {
        let parts = u64::from(self.parts.max(1));
        let until = |part: u32| u64::from(full) * u64::from(part).min(parts) / parts;
        match self.set {
            Set::Short => short,
            // The difference of two numbers that are at most `full`.
            Set::Full => (until(self.part) - until(self.part.saturating_sub(1))) as u32,
        }
    }

    /// Random numbers of this part; prints the seed, so that a run can be repeated.
    pub fn random(&self) -> Random {
        println!("  seed: {}", self.words());
        // Parts must differ. The generator mixes its seed, so consecutive seeds are enough.
        Random(fastrand::Rng::with_seed(self.seed.wrapping_add(u64::from(self.part))))
    }
}

/// A repeatable source of random numbers.
pub struct Random(fastrand::Rng);

impl Random {
    /// A duration below `longest`.
    pub fn moment(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.0.f64())
    }

    /// A number from `least` to `most`, distributed evenly over the orders of magnitude.
    pub fn magnitude(&mut self, least: f64, most: f64) -> f64 {
        (least.ln() + (most.ln() - least.ln()) * self.0.f64()).exp()
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(set: Set, part: u32, parts: u32) -> Scope {
        Scope { set, part, parts, seed: 7 }
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        for parts in [1, 3, 7, 8, 200, 201] {
            let sum: u32 = (1..=parts).map(|part| scope(Set::Full, part, parts).rounds(5, 200)).sum();
            assert_eq!(sum, 200, "{parts} parts");
        }
        assert_eq!(scope(Set::Short, 1, 1).rounds(5, 200), 5);
    }

    #[test]
    fn a_seed_repeats_and_parts_differ() {
        let moments = |part| {
            let mut random = scope(Set::Full, part, 2).random();
            [(); 4].map(|()| random.moment(Duration::from_secs(10)))
        };
        assert_eq!(moments(1), moments(1));
        assert_ne!(moments(1), moments(2));
        assert!(moments(1).iter().all(|moment| *moment <= Duration::from_secs(10)));
        let size = scope(Set::Full, 1, 1).random().magnitude(4096.0, 4e6);
        assert!((4096.0..=4e6).contains(&size));
    }
}
