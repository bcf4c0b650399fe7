//! The short-lived process that does one Git operation: reads a job from standard input, writes the outcome to standard
//! output, ends. libgit2 and everything it reads lives and dies here.

use super::failure::Result;
use super::places::Places;
use super::{
    Job, Order, Outcome, branch, clone, commit, config, credentials, http, remote, reset, restore, status, transfer,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::error::Error;
use std::io::{Read, Write};
use std::path::PathBuf;

/// The argument that makes this program the worker.
pub const WORKER_ARGUMENT: &str = "git-worker";

/// `authorities` = a file of certificates that the caller's surroundings name.
pub fn run(authorities: Option<PathBuf>) -> std::result::Result<(), Box<dyn Error>> {
    // Before the job arrives, because it may hold a password.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    let Order { places, job }: Order<Job> = serde_json::from_slice(&text)?;
    http::register(authorities, places.clone())?;
    let outcome = match perform(&places, job) {
        Ok(value) => Outcome::Done(value),
        Err(failure) => Outcome::Failed(failure),
    };
    std::io::stdout().write_all(&serde_json::to_vec(&outcome)?)?;
    Ok(())
}

fn value<T: Serialize>(value: T) -> Result<Box<RawValue>> {
    to_raw_value(&value)
        .map_err(|e| super::GitFailure::new(infield_api::toolbox::DaemonErrorCode::Internal, e.to_string()))
}

fn perform(places: &Places, job: Job) -> Result<Box<RawValue>> {
    match job {
        Job::Clone(request) => value(clone::clone(request)?),
        Job::Status(place) => {
            let mut status = status::status(&place.path)?;
            if place.strict {
                (status.detached, status.upstream) = (None, None);
            }
            value(status)
        }
        Job::Branches(place) => {
            let mut list = branch::list(&place.path)?;
            list.current = list.current.filter(|_| !place.strict);
            value(list)
        }
        Job::CreateBranch(request) => value(branch::create(&request)?),
        Job::DeleteBranch(request) => value(branch::delete(&request)?),
        Job::Checkout(request) => value(branch::checkout(&request)?),
        Job::Add(request) => value(commit::add(&request)?),
        Job::Commit(request) => value(commit::commit(&request)?),
        Job::History(place) => value(commit::history(&place.path)?),
        Job::Pull(request) => value(transfer::pull(request)?),
        Job::Push(request) => value(transfer::push(request)?),
        Job::Init(request) => value(remote::init(&request)?),
        Job::Remotes(place) => value(remote::list(&place.path)?),
        Job::AddRemote(request) => value(remote::add(&request)?),
        Job::Reset(request) => value(reset::reset(&request)?),
        Job::Restore(request) => value(restore::restore(&request)?),
        Job::Config(question) => value(config::get(places, &question)?),
        Job::SetConfig(request) => value(config::set(places, &request)?),
        Job::ConfigureUser(request) => value(config::set_user(places, &request)?),
        Job::Authenticate(request) => value(credentials::store(places, &request)?),
    }
}
