//! Pseudo-random numbers, the same in every run.

/// An xorshift generator.
#[derive(Debug, Clone)]
pub struct Xorshift(u64);

impl Xorshift {
    /// Creates a generator from a seed other than zero.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number below a bound, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// Returns an index into a list of this length, which is not zero.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("an index below a length")
    }

    /// Returns a number that is at least 0 and less than 1.
    pub fn fraction(&mut self) -> f64 {
        let high = u32::try_from(self.draw() >> 32).expect("32 bits");
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }

    /// Returns bytes that do not compress.
    pub fn bytes(&mut self, size: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.draw().to_le_bytes())
            .flatten()
            .take(size)
            .collect()
    }
}
