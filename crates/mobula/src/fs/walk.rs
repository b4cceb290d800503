//! A walk over a tree of items, each before its children, without recursion: trees may be deep.

use std::vec::IntoIter;

use super::item::Item;

/// A walk; the verb decides what to descend into.
#[derive(Debug)]
pub struct Walk {
    frames: Vec<Frame>,
}

/// Items that lie side by side.
#[derive(Debug)]
struct Frame {
    items: IntoIter<Item>,
    /// How many of them were given.
    given: usize,
}

impl Frame {
    fn of(items: Vec<Item>) -> Frame {
        Frame { items: items.into_iter(), given: 0 }
    }
}

impl Walk {
    /// A walk that begins with `items`, at depth 0.
    pub fn over(items: Vec<Item>) -> Walk {
        Walk { frames: vec![Frame::of(items)] }
    }

    /// The next item and how deep it lies.
    pub fn next(&mut self) -> Option<(usize, Item)> {
        loop {
            let depth = self.frames.len().checked_sub(1)?;
            let frame = &mut self.frames[depth];
            match frame.items.next() {
                Some(item) => {
                    frame.given += 1;
                    return Some((depth, item));
                }
                None => {
                    self.frames.pop();
                }
            }
        }
    }

    /// How many items lie before the last one beside it, and those that lie after it.
    pub fn siblings(&self) -> (usize, &[Item]) {
        let frame = self.frames.last();
        frame.map_or((0, &[]), |frame| (frame.given.saturating_sub(1), frame.items.as_slice()))
    }

    /// Walks `children` next, one deeper than the last item.
    pub fn descend(&mut self, children: Vec<Item>) {
        self.frames.push(Frame::of(children));
    }
}
