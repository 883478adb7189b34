//! Opening a state that may be gone or damaged: no start needs a person for it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::{self, Disk};
use super::state::State;
use super::{StoreError, guarded, is_damage, snapshot_path, state_path};
use crate::limits::DEDUP_GENERATION_KEYS;

/// Open the state in a data directory. One that is beyond repair is set aside; one that is not there is begun from the last
/// snapshot, when there is one, else from nothing. The fold brings it up to the journal's end.
pub fn open_state(data: &Path, cache: usize) -> Result<State, StoreError> {
    open_state_on(&disk::real(), data, cache, DEDUP_GENERATION_KEYS)
}

/// The same on another disk and with other dedup generations, for tests.
pub fn open_state_on(disk: &Arc<dyn Disk>, data: &Path, cache: usize, generation: usize) -> Result<State, StoreError> {
    let (path, snapshot) = (state_path(data), snapshot_path(data));
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
