//! The two calls of libgit2 that are unsafe because they change its global state. Only behind the feature `git`; only the
//! short-lived Git worker of the agent calls them, once, before it does anything else.

use git2::transport::Transport;
use git2::{Error, Remote};
use std::sync::Mutex;

static DONE: Mutex<bool> = Mutex::new(false);

/// Prepares libgit2 for this process: `factory` makes the transports of URLs that begin with one of `schemes`, and
/// repositories that belong to other users may be opened. Later calls do nothing.
///
/// The caller must not have another thread inside libgit2 at this moment.
pub fn prepare<F>(schemes: &[&str], factory: F) -> Result<(), Error>
where
    F: Fn(&Remote<'_>) -> Result<Transport, Error> + Send + Sync + Clone + 'static,
{
    let mut done = DONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *done {
        return Ok(());
    }
    // SAFETY: the lock serialises callers and the documented condition excludes other users of libgit2's global state.
    unsafe { git2::opts::set_verify_owner_validation(false)? };
    for scheme in schemes {
        // SAFETY: as above.
        unsafe { git2::transport::register(scheme, factory.clone())? };
    }
    *done = true;
    Ok(())
}
