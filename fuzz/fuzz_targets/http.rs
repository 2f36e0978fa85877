//! The requests of a plain connection: no bytes make their checker panic, and in which pieces they come changes nothing that goes on.
#![no_main]

use cellblock_egress::http::{Body, HttpError, MAX, Next, Requests, answer};
use libfuzzer_sys::fuzz_target;

/// What goes on of a stream: the steps, and how much of it was let through or was still waiting.
#[derive(Debug, PartialEq)]
struct Passed {
    steps: Vec<Result<Next, HttpError>>,
    forwarded: usize,
    pending: usize,
}

fuzz_target!(|bytes: &[u8]| {
    // The first byte chooses the pieces, and whether a server ever answers an upgrade.
    let [choice, stream @ ..] = bytes else { return };
    // With a line feed behind it, so that whatever waits is looked at in the end.
    let stream = &[stream, b"\n"].concat()[..];
    let stays = choice & 0x80 != 0;
    let whole = pass(std::iter::once(stream), stays);
    let size = usize::from(choice & 0x7f).max(1);
    assert_eq!(pass(stream.chunks(size), stays), whole);
    // Pieces that grow: cuts at places that even ones never hit.
    let growing = (1..=stream.len()).scan(stream, |rest, size| {
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        *rest = behind;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(pass(growing, stays), whole);
    if let Ok(Some(found)) = answer(stream) {
        assert!((1..=stream.len().min(MAX)).contains(&found.length));
        assert_eq!(answer(&stream[..found.length]), Ok(Some(found)));
        assert_eq!(answer(&stream[..found.length - 1]), Ok(None));
    }
});

fn pass<'b>(pieces: impl Iterator<Item = &'b [u8]>, stays: bool) -> Passed {
    let (mut requests, mut held, mut owed) = (Requests::default(), Vec::new(), 0_u64);
    let (mut steps, mut came, mut forwarded) = (Vec::new(), 0, 0);
    for piece in pieces {
        came += piece.len();
        held.extend_from_slice(piece);
        loop {
            let gone = held.len().min(usize::try_from(owed).unwrap_or(usize::MAX));
            held.drain(..gone);
            forwarded += gone;
            owed -= gone as u64;
            assert_eq!(forwarded + held.len(), came, "nothing is made up, nothing is lost");
            if owed > 0 {
                break;
            }
            let next = requests.next(&held);
            match &next {
                Ok(Next::More) => {
                    assert!(held.len() < MAX, "a caller never has to hold more");
                    break;
                }
                Ok(Next::Head(head)) => {
                    assert!((1..=held.len().min(MAX)).contains(&head.length));
                    assert!(!matches!(head.body, Body::Length(length) if i64::try_from(length).is_err()));
                    owed = head.length as u64;
                }
                Ok(Next::Body(length)) => {
                    assert!(*length > 0);
                    owed = *length;
                }
                Ok(Next::Upgrade) if stays => requests.stays(),
                Ok(Next::Upgrade) => break,
                Err(_) => {
                    assert_eq!(requests.next(&held), next);
                    steps.push(next);
                    // How much is behind a mistake depends on the pieces.
                    return Passed { steps, forwarded, pending: 0 };
                }
            }
            steps.push(next);
        }
    }
    Passed { steps, forwarded, pending: held.len() }
}
