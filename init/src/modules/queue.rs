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
/// that is not known.
pub fn resolve(
    modules: &[Module<'_>],
    depends: impl Fn(&Module<'_>) -> Option<Vec<String>>,
) -> Vec<Vec<usize>> {
    let names: Vec<String> = modules.iter().map(Module::name).collect();
    let needs = |(i, module): (usize, &Module<'_>)| match depends(module) {
        None => (0..i).collect(),
        Some(wanted) => (0..i)
            .filter(|j| names.get(*j).is_some_and(|n| wanted.contains(n)))
            .collect(),
    };
    modules.iter().enumerate().map(needs).collect()
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

    #[test]
    fn unknown_dependencies_mean_all_before() {
        let module = |path| Module {
            path,
            parameters: "",
        };
        let modules = [
            module("a.ko"),
            module("b-c.ko"),
            module("d.ko.xz"),
            module("e.ko"),
        ];
        let needs = resolve(&modules, |m| match m.path {
            "d.ko.xz" => None,
            "e.ko" => Some(vec!["b_c".into(), "not-here".into()]),
            _ => Some(vec![]),
        });
        assert_eq!(needs, [vec![], vec![], vec![0, 1], vec![1]]);
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
