//! A thread that lives in a network namespace and does there what it is asked: what a socket belongs to is where it was made, and the
//! descriptors of a process are shared by its threads, so nothing needs to be sent around.

use std::io;
use std::sync::mpsc;
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// The thread. It ends when this is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Inside {
    jobs: mpsc::Sender<Job>,
}

/// Enough for what is done there; the usual 2 MiB are only address space, but a cell has two such threads.
const STACK: usize = 256 << 10;

impl Inside {
    /// Starts the thread, which first does `enter`: to make a namespace or to join one.
    pub(crate) fn start<T: Send + 'static>(
        name: &str,
        enter: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<(Self, T)> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::sync_channel(1);
        thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
            let entered = enter();
            let failed = entered.is_err();
            if tell.send(entered).is_err() || failed {
                return;
            }
            while let Ok(job) = todo.recv() {
                job();
            }
        })?;
        let entered = told.recv().map_err(|_| gone())??;
        Ok((Self { jobs }, entered))
    }

    /// Does `job` there and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (tell, told) = mpsc::sync_channel(1);
        let job = move || {
            let _ = tell.send(job());
        };
        self.jobs.send(Box::new(job)).map_err(|_| gone())?;
        told.recv().map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the thread in the namespace has ended")
}
