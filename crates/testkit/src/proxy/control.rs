//! What a test has asked of its proxy, shared by all connections.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Cut;
use super::link::Ends;

#[derive(Default)]
struct State {
    armed: Option<(Cut, u32)>,
    /// Cuts that a connection has taken on; `cuts` of them have happened.
    taken: u32,
    cuts: u32,
    commits: u32,
    connections: u32,
    cancels: u32,
    to_server: Duration,
    to_client: Duration,
    frozen: bool,
    refusing: bool,
    ended: bool,
    open: Vec<Arc<Ends>>,
}

/// The way a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToServer,
    ToClient,
}

#[derive(Default)]
pub(super) struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

impl Control {
    pub(super) fn arm(&self, cut: Cut, nth: u32) {
        self.change(|state| state.armed = Some((cut, nth.max(1))));
    }

    /// Whether to cut here, at one moment that fits `fits`. A cut is handed out once.
    pub(super) fn takes(&self, fits: impl Fn(&Cut) -> bool) -> Option<Cut> {
        let mut state = self.lock();
        let (cut, left) = state.armed.as_mut().filter(|(cut, _)| fits(cut))?;
        *left -= 1;
        let now = (*left == 0).then(|| cut.clone());
        if now.is_some() {
            state.armed = None;
            state.taken += 1;
        }
        now
    }

    pub(super) fn count_cut(&self) {
        self.change(|state| state.cuts += 1);
    }

    pub(super) fn count_commit(&self) {
        self.change(|state| state.commits += 1);
    }

    pub(super) fn count_cancel(&self) {
        self.change(|state| state.cancels += 1);
    }

    pub(super) fn cancels(&self) -> u32 {
        self.lock().cancels
    }

    pub(super) fn cuts(&self) -> u32 {
        self.lock().cuts
    }

    pub(super) fn commits(&self) -> u32 {
        self.lock().commits
    }

    pub(super) fn connections(&self) -> u32 {
        self.lock().connections
    }

    pub(super) fn wait_for_cut(&self, limit: Duration) -> bool {
        let waiting = |state: &mut State| state.armed.is_some() || state.taken == 0 || state.cuts < state.taken;
        let (_state, result) =
            self.changed.wait_timeout_while(self.lock(), limit, waiting).unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    pub(super) fn set_delay(&self, to_server: Duration, to_client: Duration) {
        self.change(|state| (state.to_server, state.to_client) = (to_server, to_client));
    }

    pub(super) fn set_frozen(&self, frozen: bool) {
        self.change(|state| state.frozen = frozen);
    }

    pub(super) fn set_refusing(&self, refusing: bool) {
        self.change(|state| state.refusing = refusing);
    }

    pub(super) fn is_refusing(&self) -> bool {
        self.lock().refusing
    }

    /// Registers a connection, to be closed with the others.
    pub(super) fn opened(&self, ends: Arc<Ends>) {
        let mut state = self.lock();
        if state.ended {
            ends.close();
        }
        state.connections += 1;
        state.open.retain(|open| !open.is_closed());
        state.open.push(ends);
    }

    pub(super) fn close_all(&self) {
        self.change(|state| state.open.drain(..).for_each(|ends| ends.close()));
    }

    pub(super) fn end(&self) {
        self.change(|state| state.ended = true);
        self.close_all();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// Waits until a message that arrived at `arrived` may travel on; false once it never may.
    pub(super) fn hold(&self, direction: Direction, arrived: Instant, ends: &Ends) -> bool {
        let mut state = self.lock();
        loop {
            if state.ended || ends.is_closed() {
                return false;
            }
            let delay = match direction {
                Direction::ToServer => state.to_server,
                Direction::ToClient => state.to_client,
            };
            let left = (arrived + delay).saturating_duration_since(Instant::now());
            state = match (state.frozen, left.is_zero()) {
                (true, _) => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                (false, false) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                (false, true) => return true,
            };
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
