//! Work in an order that keeps dependencies: each piece starts once those it needs are done.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Module;

/// The pieces and how far they are.
pub struct Queue {
    needs: Vec<Vec<usize>>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    next: usize,
    done: Vec<bool>,
    failures: Vec<String>,
}

/// A piece that may start now.
pub struct Turn(pub usize);

/// For each module the places of those before it that it needs: those it names, or all of them where
/// that is not known. `known` has the names that each needs.
pub fn resolve(modules: &[&Module<'_>], known: &[Option<Vec<String>>]) -> Vec<Vec<usize>> {
    let names: Vec<String> = modules.iter().map(|m| m.name()).collect();
    let needs = |(i, wanted): (usize, &Option<Vec<String>>)| match wanted {
        None => (0..i).collect(),
        Some(wanted) => (0..i)
            .filter(|j| names.get(*j).is_some_and(|n| wanted.contains(n)))
            .collect(),
    };
    known.iter().enumerate().map(needs).collect()
}

/// Which modules can wait: those put off by their line, and those that only such ones need. What
/// another module needs cannot.
pub fn put_off(modules: &[Module<'_>], known: &[Option<Vec<String>>]) -> Vec<bool> {
    let mut off = vec![false; modules.len()];
    for (i, module) in modules.iter().enumerate().rev() {
        let name = module.name();
        // What needs it comes after it: decided already.
        let mut users = known
            .iter()
            .zip(&off)
            .skip(i + 1)
            .filter(|(wanted, _)| wanted.as_ref().is_some_and(|w| w.contains(&name)))
            .map(|(_, off)| *off)
            .peekable();
        let used = users.peek().is_some();
        let can = (module.later || used) && users.all(|off| off);
        if let Some(place) = off.get_mut(i) {
            *place = can;
        }
    }
    off
}

impl Queue {
    /// Pieces that need only pieces before them.
    pub fn new(needs: Vec<Vec<usize>>) -> Self {
        let state = State {
            next: 0,
            done: vec![false; needs.len()],
            failures: Vec::new(),
        };
        Self {
            needs,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next piece in order to be startable; `None` when all are taken. The first of
    /// those taken and not done needs nothing that is not done: somebody always goes on.
    pub fn next(&self) -> Option<Turn> {
        let mut state = self.lock();
        let mine = state.next;
        let needs = self.needs.get(mine)?;
        state.next += 1;
        while !needs
            .iter()
            .all(|need| state.done.get(*need).copied().unwrap_or(true))
        {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Some(Turn(mine))
    }

    /// A piece is done, well or not: what needs it may try.
    pub fn done(&self, turn: Turn, failure: Option<String>) {
        let mut state = self.lock();
        if let Some(done) = state.done.get_mut(turn.0) {
            *done = true;
        }
        state.failures.extend(failure);
        self.changed.notify_all();
    }

    /// What failed.
    pub fn failures(self) -> Vec<String> {
        self.state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn module(path: &str, later: bool) -> Module<'_> {
        Module {
            path,
            parameters: String::new(),
            later,
            last: false,
        }
    }

    #[test]
    fn unknown_dependencies_mean_all_before() {
        let all = ["a.ko", "b-c.ko", "d.ko.xz", "e.ko"].map(|path| module(path, false));
        let all: Vec<_> = all.iter().collect();
        let named = Some(vec!["b_c".into(), "not-here".into()]);
        let needs = resolve(&all, &[Some(vec![]), Some(vec![]), None, named]);
        assert_eq!(needs, [vec![], vec![], vec![0, 1], vec![1]]);
    }

    #[test]
    fn what_only_late_modules_need_waits_with_them() {
        let all = [
            module("disk.ko", false),
            module("scsi_mod.ko", false),
            module("libata.ko", false),
            module("ahci.ko", true),
            module("mbcache.ko", true),
            module("ext4.ko", false),
            module("packed.ko.xz", true),
        ];
        let needs = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect());
        let known = [
            needs(&[]),
            needs(&[]),
            needs(&["scsi_mod"]),
            needs(&["libata"]),
            needs(&[]),
            needs(&["mbcache"]),
            None,
        ];
        // mbcache: its line says later, but ext4 needs it now.
        let off = put_off(&all, &known);
        assert_eq!(off, [false, true, true, true, false, false, true]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_piece_starts_once_and_after_its_needs(raw in proptest::collection::vec(proptest::collection::vec(0usize..30, 0..4), 0..30)) {
            let needs: Vec<Vec<usize>> =
                raw.iter().enumerate().map(|(i, n)| n.iter().copied().filter(|j| *j < i).collect()).collect();
            let queue = Queue::new(needs.clone());
            let order = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| while let Some(turn) = queue.next() {
                        let done = order.lock().unwrap().clone();
                        assert!(needs[turn.0].iter().all(|n| done.contains(n)));
                        order.lock().unwrap().push(turn.0);
                        queue.done(turn, None);
                    });
                }
            });
            let mut order = order.into_inner().unwrap();
            order.sort_unstable();
            prop_assert_eq!(order, (0..needs.len()).collect::<Vec<_>>());
        }
    }
}
