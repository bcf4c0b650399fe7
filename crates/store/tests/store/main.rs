//! The store on both databases.

mod databases;
mod people;
mod sandbox;
mod snapshot;
