//! Who asks, and that nobody asks too much.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cellblock_egress::audit::{Event, Line, Verdict};
use rustix::event::{PollFd, PollFlags, Timespec};
use zeroize::Zeroizing;

use crate::bridge::{self, MAX_LINE, Opened, Question, What};
use crate::credentials::Kept;
use crate::log::Log;
use crate::process::Doors;
use crate::settings::{ANSWERS, INSIDE, Settings};
use crate::signature::{self, Object, Pending};
use crate::workmux::{Told, Waiting, told};
use crate::{agent, credentials};

/// Most connections to the agent at a time.
const AGENTS: usize = 32;

/// Most connections of the cell's network at a time.
const NETWORKS: usize = 8;

/// Most questions to the desktop at a time.
const DESKTOP: usize = 4;

/// Most answers that wait to be read, each at most an image, and how long they wait.
const ANSWERS_KEPT: usize = 4;
const ANSWER_AGE: Duration = Duration::from_secs(30);

/// Most questions to the desktop in [`SPAN`].
const MOST: usize = 20;
const SPAN: Duration = Duration::from_secs(60);

/// Most signatures in [`SPAN`]: a rebase asks for one a commit.
const SIGNATURES: usize = 300;

/// How long a request that can be refused for its number is not looked at again.
const PAUSE: Duration = Duration::from_millis(50);

/// How often what was only counted is written.
const FLUSH: Duration = Duration::from_secs(10);

/// Enough for a thread here.
const STACK: usize = 256 << 10;

/// What the threads share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    log: Log,
    kept: Kept,
    answers: Mutex<VecDeque<(Instant, String)>>,
    waiting: Waiting,
}

/// Serves until the process behind the guard has ended.
pub(crate) fn serve(settings: &Settings, doors: &Doors) -> io::Result<()> {
    let shared = Arc::new(Shared {
        log: Log::new(&settings.audit),
        settings: settings.clone(),
        kept: Kept::default(),
        answers: Mutex::default(),
        waiting: Waiting::default(),
    });
    let places = [AGENTS, NETWORKS, DESKTOP].map(Places::new);
    let [agents, networks, desktop] = &places;
    let mut requests = doors.requests.as_ref().map(Requests::new);
    let mut flushed = Instant::now();
    loop {
        let mut fds = vec![PollFd::new(&doors.guard, PollFlags::IN)];
        let sources = [
            doors.agent.as_ref().map(AsFd::as_fd),
            doors.credentials.as_ref().map(AsFd::as_fd),
            doors.requests.as_ref().map(AsFd::as_fd),
        ];
        fds.extend(sources.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        let wait = Timespec { tv_sec: i64::try_from(FLUSH.as_secs()).unwrap_or(1), tv_nsec: 0 };
        match rustix::event::poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds.first().is_some_and(|guard| !guard.revents().is_empty()) {
            return Ok(());
        }
        if let Some(listener) = &doors.agent {
            accept(listener, agents, &shared, |client, shared| {
                if let Some(agent) = &shared.settings.agent {
                    let _ = agent::serve(client, agent, &shared.log);
                }
            });
        }
        if let Some(listener) = &doors.credentials {
            accept(listener, networks, &shared, |client, shared| {
                let _ = credentials::serve(client, &shared.settings, &shared.kept);
            });
        }
        if let Some(requests) = &mut requests {
            requests.read(&shared, desktop)?;
        }
        if flushed.elapsed() >= FLUSH {
            shared.log.flush();
            shared.forget(0);
            flushed = Instant::now();
        }
    }
}

/// A number of places, of which each is taken by a thread.
#[derive(Clone, Debug)]
struct Places {
    taken: Arc<AtomicUsize>,
    most: usize,
}

impl Places {
    fn new(most: usize) -> Self {
        Self { taken: Arc::default(), most }
    }

    /// Does `work` in a thread, if there is a place.
    fn start(&self, work: impl FnOnce() + Send + 'static) -> bool {
        if self.taken.fetch_add(1, Ordering::AcqRel) >= self.most {
            self.taken.fetch_sub(1, Ordering::AcqRel);
            return false;
        }
        let place = Place(Arc::clone(&self.taken));
        let work = move || {
            let _place = place;
            work();
        };
        std::thread::Builder::new().stack_size(STACK).spawn(work).is_ok()
    }
}

/// A place that is given back when it is dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Takes one connection, if there is one. Where there is no place for it, it is closed.
fn accept(
    listener: &UnixListener,
    places: &Places,
    shared: &Arc<Shared>,
    serve: impl FnOnce(&UnixStream, &Shared) + Send + 'static,
) {
    let client = match listener.accept() {
        Ok((client, _)) => client,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
        // No descriptor is left: it will be there still when one is.
        Err(_) => return std::thread::sleep(PAUSE),
    };
    let peer = rustix::net::sockopt::socket_peercred(&client).map(|peer| peer.uid.as_raw());
    let ours = |uid: u32| {
        let mut ranges = shared.settings.peers.iter();
        uid == rustix::process::geteuid().as_raw()
            || ranges.any(|(first, count)| uid.checked_sub(*first).is_some_and(|offset| offset < *count))
    };
    if !peer.is_ok_and(ours) || client.set_nonblocking(false).is_err() {
        return;
    }
    let shared = Arc::clone(shared);
    places.start(move || serve(&client, &shared));
}

/// Reads questions from the pipe.
struct Requests<'a> {
    pipe: &'a OwnedFd,
    /// What stands after the last line end.
    pending: Vec<u8>,
    /// The line was too long: what is left of it counts no more.
    skipping: bool,
    /// When questions were taken: to the desktop, and for a signature.
    taken: [VecDeque<Instant>; 2],
    /// What is to be signed, as far as it has come.
    objects: Pending,
}

impl<'a> Requests<'a> {
    fn new(pipe: &'a OwnedFd) -> Self {
        Self {
            pipe,
            pending: Vec::new(),
            skipping: false,
            taken: [const { VecDeque::new() }; 2],
            objects: Pending::default(),
        }
    }

    fn read(&mut self, shared: &Arc<Shared>, places: &Places) -> io::Result<()> {
        let mut buffer = [0u8; MAX_LINE];
        let length = match rustix::io::read(self.pipe, &mut buffer) {
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for piece in buffer.get(..length).unwrap_or_default().split_inclusive(|b| *b == b'\n') {
            if self.pending.len() + piece.len() > MAX_LINE {
                self.skipping = true;
            }
            if !self.skipping {
                self.pending.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.pending);
                if !std::mem::take(&mut self.skipping) {
                    self.line(line.trim_ascii_end(), shared, places);
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], shared: &Arc<Shared>, places: &Places) {
        if let Some(told) = told_by(line) {
            return shared.tell(told);
        }
        let Some(Question { id, what }) = bridge::question(line) else { return };
        if let What::Part(part) = what {
            return if shared.settings.signer.is_some() {
                self.objects.add(id, part)
            };
        }
        let object = if what == What::Sign { self.objects.take(id).unwrap_or_default() } else { Vec::new() };
        let [desktop, signatures] = &mut self.taken;
        let (taken, most) = if what == What::Sign { (signatures, SIGNATURES) } else { (desktop, MOST) };
        while taken.front().is_some_and(|at| at.elapsed() >= SPAN) {
            taken.pop_front();
        }
        if taken.len() >= most {
            let line = Line::new(event(what), Verdict::Deny);
            shared.log.line(Line { why: Some(format!("more than {most} a minute")), ..line });
            return shared.answer(id, &refused(&format!("cellblock answers {most} such requests a minute")));
        }
        taken.push_back(Instant::now());
        let (owned, shared, id) = (line.to_vec(), Arc::clone(shared), id.to_owned());
        let busy = Arc::clone(&shared);
        let work = move || {
            if let Some(Question { id, what }) = bridge::question(&owned) {
                let answer = if what == What::Sign { shared.sign(&object) } else { shared.ask(what) };
                shared.answer(id, &answer);
            }
        };
        if !places.start(work) {
            busy.answer(&id, &refused("cellblock is busy with other requests of this cell"));
        }
    }
}

/// What the shim for workmux writes: `ID workmux …`. There is no answer, so that an agent's hook does not wait.
fn told_by(line: &[u8]) -> Option<Told> {
    let mut words = line.splitn(3, |b| *b == b' ');
    words.nth(1).filter(|word| *word == b"workmux")?;
    told(words.next()?)
}

fn event(what: What<'_>) -> Event {
    match what {
        What::HasImage | What::Image => Event::Clipboard,
        What::Open(_) => Event::Open,
        What::Part(_) | What::Sign => Event::Signature,
    }
}

/// The first line of an answer says how it ended: `ok`, `no`, or `error` with why.
fn refused(why: &str) -> Vec<u8> {
    format!("error {why}\n").into_bytes()
}

impl Shared {
    /// Has the real workmux told, by a thread of its own if there is none yet.
    fn tell(self: &Arc<Self>, told: Told) {
        if self.settings.workmux.is_none() || !self.waiting.add(told) {
            return;
        }
        let shared = Arc::clone(self);
        let work = move || {
            if let Some(workmux) = &shared.settings.workmux {
                shared.waiting.tell(workmux, &shared.settings);
            }
        };
        if std::thread::Builder::new().stack_size(STACK).spawn(work).is_err() {
            self.waiting.give_up();
        }
    }

    fn ask(&self, what: What<'_>) -> Vec<u8> {
        let path = match what {
            What::Open(address) => Some(address.to_owned()),
            What::HasImage | What::Image | What::Part(_) | What::Sign => None,
        };
        let settings = &self.settings;
        let outcome = match what {
            // They have ways of their own.
            What::Part(_) | What::Sign => Err("this is no question to the desktop".to_owned()),
            What::Open(_) if !settings.open_url => Err("no address may be opened".to_owned()),
            What::HasImage | What::Image if !settings.clipboard_image => Err("no image may be read".to_owned()),
            What::HasImage => {
                bridge::has_image(settings).map(|yes| if yes { b"ok\n".to_vec() } else { b"no\n".to_vec() })
            }
            What::Image => bridge::image(settings).map(|image| [b"ok\n", image.as_slice()].concat()),
            What::Open(address) => {
                bridge::url(address, &settings.published).map_err(|e| e.to_string()).and_then(|()| {
                    // Before it is done: what cannot be written must not happen.
                    let line = Line { path: Some(address.to_owned()), ..Line::new(Event::Open, Verdict::Allow) };
                    if !self.log.line(line) {
                        return Err("the audit cannot be written".to_owned());
                    }
                    match bridge::open(address, settings) {
                        Opened::Yes => Ok(b"ok\n".to_vec()),
                        Opened::NoProgram => Err("there is no xdg-open on the host; open it yourself".to_owned()),
                        Opened::Failed => Err("xdg-open on the host could not open it".to_owned()),
                    }
                })
            }
        };
        match outcome {
            Ok(answer) => {
                if what == What::Image {
                    let why = Some(format!("an image of {} bytes was read from the clipboard", answer.len()));
                    if !self.log.line(Line { why, ..Line::new(Event::Clipboard, Verdict::Allow) }) {
                        return refused("the audit cannot be written");
                    }
                }
                answer
            }
            Err(why) => {
                let line = Line::new(event(what), Verdict::Deny);
                self.log.line(Line { why: Some(why.clone()), path, ..line });
                refused(&why)
            }
        }
    }

    /// Leaves an answer where the cell finds it, whole or not at all.
    fn answer(&self, id: &str, answer: &[u8]) {
        self.forget(ANSWERS_KEPT);
        let new = self.settings.folder.join(format!("answer.{id}"));
        let place = self.place(id);
        if std::fs::write(&new, answer).and_then(|()| std::fs::rename(&new, &place)).is_err() {
            let _ = std::fs::remove_file(&new);
        }
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push_back((Instant::now(), id.to_owned()));
    }

    /// Has an object of git's signed.
    fn sign(&self, object: &[u8]) -> Vec<u8> {
        let outcome = self.signature(object).map(|signature| [b"ok\n", signature.as_slice()].concat());
        outcome.unwrap_or_else(|why| {
            self.log.line(Line { why: Some(why.clone()), ..Line::new(Event::Signature, Verdict::Deny) });
            refused(&why)
        })
    }

    fn signature(&self, object: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let signer = self.settings.signer.as_ref().ok_or("nothing is signed for this cell")?;
        if object.len() > signature::MAX_OBJECT {
            return Err(format!("a commit or tag of more than {} bytes is not signed", signature::MAX_OBJECT));
        }
        let what = match signature::object(object) {
            Some(Object::Commit(subject)) => format!("signed the commit \"{subject}\""),
            Some(Object::Tag(name)) => format!("signed the tag {name}"),
            None => return Err("only commits and tags of git's are signed".to_owned()),
        };
        // Before it is given: what cannot be written must not happen.
        let line =
            Line { name: Some(signer.key.clone()), why: Some(what), ..Line::new(Event::Signature, Verdict::Allow) };
        if !self.log.line(line) {
            return Err("the audit cannot be written".to_owned());
        }
        signature::sign(object, signer, &self.settings)
    }

    fn place(&self, id: &str) -> PathBuf {
        self.settings.folder.join(INSIDE).join(ANSWERS).join(id)
    }

    /// Removes answers that have waited too long, and the oldest ones until there is room for another: `most` is how many there may be then.
    fn forget(&self, most: usize) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        while answers.front().is_some_and(|(at, _)| at.elapsed() >= ANSWER_AGE) || (most > 0 && answers.len() >= most) {
            if let Some((_, id)) = answers.pop_front() {
                let _ = std::fs::remove_file(self.place(&id));
            }
        }
    }
}
