//! The threads of a run.

use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread::{self, Builder};

use super::shared::Shared;
use super::worker::Worker;

/// More threads than the host can run at once only cost memory; so many may be had all the same, to try what a
/// larger host would do.
const MOST_SPARE: usize = 64;

/// How many workers are wanted for a number of cores. A core is run by one worker.
pub(super) fn size(threads: usize, cores: usize) -> usize {
    let host = || thread::available_parallelism().map_or(1, usize::from);
    let threads = match threads {
        0 => host(),
        1..=MOST_SPARE => threads,
        _ => threads.min(host().max(MOST_SPARE)),
    };
    threads.min(cores).max(1)
}

/// Stops the run when its worker unwinds, as the others would wait for it for ever.
struct StopOnUnwind<'a>(&'a Shared<'a>);

impl Drop for StopOnUnwind<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.halt();
        }
    }
}

fn work(worker: &mut Worker<'_>) {
    let _guard = StopOnUnwind(worker.shared);
    worker.run();
}

/// Runs workers, one of them on this thread, and returns them when all have ended. `make` is asked for as many as
/// there are threads, at least one and `wanted` at most: those that the host refuses are done without.
///
/// # Panics
/// When a worker does, with what it did.
pub(super) fn run<'a>(
    wanted: usize,
    make: impl FnOnce(usize) -> Vec<Worker<'a>>,
) -> Vec<Worker<'a>> {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 1..wanted {
            let (seat, mine) = mpsc::channel::<Worker<'a>>();
            let body = move || {
                let mut worker = mine.recv().ok()?;
                work(&mut worker);
                Some(worker)
            };
            match Builder::new().spawn_scoped(scope, body) {
                Ok(thread) => threads.push((seat, thread)),
                Err(_) => break,
            }
        }
        let mut team = make(1 + threads.len()).into_iter();
        let mine = team.next();
        let threads = threads
            .into_iter()
            .zip(team)
            .map(|((seat, thread), worker)| {
                // It fails if the thread has ended, which it does not before this.
                let _sent = seat.send(worker);
                thread
            });
        let threads: Vec<_> = threads.collect();
        let mut ended: Vec<_> = mine.into_iter().collect();
        ended.iter_mut().for_each(work);
        for thread in threads {
            match thread.join() {
                Ok(worker) => ended.extend(worker),
                Err(panic) => resume_unwind(panic),
            }
        }
        ended
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_bounded_by_cores_and_host() {
        assert_eq!(size(0, 1), 1);
        assert_eq!(size(3, 0), 1);
        assert_eq!(size(16, 8), 8);
        assert_eq!(size(16, 10_240), 16);
        let host = thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(size(10_240, 10_240), host.max(MOST_SPARE));
    }
}
