//! Opening a state that may be gone or damaged: no start needs a person for it.
//!
//! redb compares pages with their checksums only when it repairs a file that was not closed cleanly. A start does it for a
//! state of up to [`crate::limits::STATE_CHECKED_BYTES`], and for a larger one when there is a reason: a state that led the fold
//! astray is renamed to `state.suspect` ([`State::suspect`]), and the next start looks at every page of it first.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::{self, Disk};
use super::state::State;
use super::{StoreError, guarded, is_damage, open_whole, snapshot_path, state_path, suspect_path};
use crate::limits::DEDUP_GENERATION_KEYS;

/// Open the state in a data directory. One that is beyond repair is set aside; one that is not there is begun from the last
/// snapshot, when there is one, else from nothing. The fold brings it up to the journal's end.
pub fn open_state(data: &Path, cache: usize) -> Result<State, StoreError> {
    open_state_on(&disk::real(), data, cache, DEDUP_GENERATION_KEYS)
}

/// The same on another disk and with other dedup generations, for tests.
pub fn open_state_on(disk: &Arc<dyn Disk>, data: &Path, cache: usize, generation: usize) -> Result<State, StoreError> {
    let (path, snapshot) = (state_path(data), snapshot_path(data));
    clear_suspicion(&**disk, data, cache)?;
    let begun = !there(&**disk, &path)? && there(&**disk, &snapshot)?;
    if begun {
        tracing::warn!("there is no state: it is begun from the last snapshot");
        disk::copy_whole(&**disk, &snapshot, &path)?;
    }
    match guarded(|| State::open_on(Arc::clone(disk), data, cache, generation)) {
        Err(error) if is_damage(&error) => {
            // a copy of the snapshot that does not open condemns the snapshot, and itself
            set_aside(&**disk, if begun { &snapshot } else { &path }, &error)?;
            if begun {
                disk.remove(&path).map_err(|error| io(&path, &error))?;
            }
            open_state_on(disk, data, cache, generation)
        }
        other => other,
    }
}

/// Look at every page of a state that is suspect: a whole one gets its name back, a damaged one is set aside.
fn clear_suspicion(disk: &dyn Disk, data: &Path, cache: usize) -> Result<(), StoreError> {
    let (path, suspect) = (state_path(data), suspect_path(data));
    if !there(disk, &suspect)? {
        return Ok(());
    }
    tracing::warn!("the state did not hold together when it was last used: every page of it is checked");
    match guarded(|| open_whole(disk, &suspect, cache).map(drop)) {
        Ok(()) if !there(disk, &path)? => {
            tracing::info!("the state is whole");
            let renamed = disk.rename(&suspect, &path).and_then(|()| disk.sync_directory(data));
            renamed.map_err(|error| io(&path, &error))
        }
        // somebody has put another state in its place
        Ok(()) => disk::set_aside(disk, &suspect).map(drop),
        Err(error) if is_damage(&error) => set_aside(disk, &suspect, &error),
        Err(error) => Err(error),
    }
}

fn set_aside(disk: &dyn Disk, damaged: &Path, why: &StoreError) -> Result<(), StoreError> {
    let aside = disk::set_aside(disk, damaged)?;
    crate::metrics::state_rebuilt();
    tracing::error!(%why, aside = %aside.display(), "set aside: the state is rebuilt from the snapshot or the journal");
    Ok(())
}

fn there(disk: &dyn Disk, path: &Path) -> Result<bool, StoreError> {
    Ok(disk.length(path).map_err(|error| io(path, &error))?.is_some())
}

fn io(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io(format!("{}: {error}", path.display()))
}
