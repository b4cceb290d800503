//! A walk over a tree of items, each before its children, without recursion: trees may be deep.

use std::vec::IntoIter;

use super::item::Item;

/// A walk; the verb decides what to descend into.
#[derive(Debug)]
pub struct Walk {
    frames: Vec<IntoIter<Item>>,
}

impl Walk {
    /// A walk that begins with `items`, at depth 0.
    pub fn over(items: Vec<Item>) -> Walk {
        Walk { frames: vec![items.into_iter()] }
    }

    /// The next item and how deep it lies.
    pub fn next(&mut self) -> Option<(usize, Item)> {
        loop {
            let depth = self.frames.len().checked_sub(1)?;
            match self.frames[depth].next() {
                Some(item) => return Some((depth, item)),
                None => {
                    self.frames.pop();
                }
            }
        }
    }

    /// Walks `children` next, one deeper than the last item.
    pub fn descend(&mut self, children: Vec<Item>) {
        self.frames.push(children.into_iter());
    }
}
