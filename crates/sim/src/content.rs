//! What a file holds, as a recipe: every byte follows from where it was written and by which session, so
//! that each can be checked, and a byte of another place, file or time is seen for what it is.

/// Bytes that one session wrote one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// The session's own number.
    seed: u64,
    /// Where in the file the first of them was written.
    from: u64,
    length: u64,
}

/// A file's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content(Vec<Piece>);

impl Content {
    /// How many there are.
    pub fn length(&self) -> u64 {
        self.0.iter().map(|piece| piece.length).sum()
    }

    /// A session writes `length` more at the end.
    pub fn write(&mut self, seed: u64, length: u64) {
        let from = self.length();
        match self.0.last_mut() {
            Some(last) if last.seed == seed && last.from + last.length == from => last.length += length,
            _ => self.0.push(Piece { seed, from, length }),
        }
    }

    /// The bytes of another file come behind these.
    pub fn join(&mut self, other: &Content) {
        self.0.extend_from_slice(&other.0);
    }

    /// All behind `length` are gone.
    pub fn cut(&mut self, length: u64) {
        let mut left = length;
        for piece in &mut self.0 {
            piece.length = piece.length.min(left);
            left -= piece.length;
        }
        self.0.retain(|piece| piece.length > 0);
    }

    /// `length` bytes from `offset` on; fewer at the end.
    pub fn bytes(&self, offset: u64, length: u64) -> Vec<u8> {
        self.iter().skip(offset as usize).take(length as usize).collect()
    }

    /// The first place where `found` is not what stands here, if there is one: `found` may be shorter.
    pub fn first_difference(&self, found: &[u8]) -> Option<usize> {
        let mut expected = self.iter();
        found.iter().position(|byte| expected.next() != Some(*byte))
    }

    fn iter(&self) -> impl Iterator<Item = u8> {
        self.0.iter().flat_map(|piece| (0..piece.length).map(|at| byte(piece.seed, piece.from + at)))
    }
}

fn byte(seed: u64, at: u64) -> u8 {
    ((at + 1).wrapping_mul(seed | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_cut_and_joined() {
        let mut one = Content::default();
        one.write(7, 100);
        one.write(7, 50);
        one.write(9, 10);
        let whole = one.bytes(0, 1_000);
        assert_eq!((one.length(), whole.len()), (160, 160));
        assert_eq!(one.first_difference(&whole[..155]), None);
        one.cut(150);
        assert_eq!(one.bytes(140, 100), whole[140..150]);
        let mut other = Content::default();
        other.write(11, 5);
        other.join(&one);
        assert_eq!(other.bytes(5, 150), whole[..150], "joined bytes are those of where they were written");
        let mut wrong = whole.clone();
        wrong[33] ^= 1;
        assert_eq!(one.first_difference(&wrong), Some(33));
        assert_eq!(one.first_difference(&whole), Some(150), "longer than it may be");
    }
}
