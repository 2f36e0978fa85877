//! The ssh agent's protocol (draft-ietf-sshm-ssh-agent), as far as a cell may speak it: which keys there are, and a signature for logging in.
//!
//! Everything else is refused: keys are neither added nor removed, the agent is not locked, no smart card is touched, and nothing is signed
//! that is not what an ssh client or git signs. A certificate, say, is not.

mod proxy;
pub mod wire;

pub(crate) use proxy::serve;
