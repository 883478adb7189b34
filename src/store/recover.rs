//! Opening a state that may be gone or damaged: no start needs a person for it.

use std::path::Path;
use std::sync::Arc;

use super::disk::{self, Disk};
use super::state::State;
use super::{StoreError, snapshot_path, state_path};
use crate::limits::DEDUP_GENERATION_KEYS;

/// Open the state in a data directory. One that is beyond repair is set aside; one that is not there is begun from the last
/// snapshot, when there is one, else from nothing. The fold brings it up to the journal's end.
pub fn open_state(data: &Path, cache: usize) -> Result<State, StoreError> {
    open_state_on(&disk::real(), data, cache, DEDUP_GENERATION_KEYS)
}

/// The same on another disk and with other dedup generations, for tests.
pub fn open_state_on(disk: &Arc<dyn Disk>, data: &Path, cache: usize, generation: usize) -> Result<State, StoreError> {
    let (path, snapshot) = (state_path(data), snapshot_path(data));
    let there = |file: &Path| {
        let length = disk.length(file).map_err(|error| StoreError::Io(format!("{}: {error}", file.display())))?;
        Ok::<_, StoreError>(length.is_some())
    };
    let begun = !there(&path)? && there(&snapshot)?;
    if begun {
        tracing::warn!("there is no state: it is begun from the last snapshot");
        disk::copy_whole(&**disk, &snapshot, &path)?;
    }
    match State::open_on(Arc::clone(disk), data, cache, generation) {
        Err(error @ (StoreError::Damaged { .. } | StoreError::Row(_))) => {
            // a copy of the snapshot that does not open condemns the snapshot, and itself
            let damaged = if begun { &snapshot } else { &path };
            let aside = disk::set_aside(&**disk, damaged)?;
            tracing::error!(%error, aside = %aside.display(), "set aside: the state is rebuilt from the snapshot or the journal");
            if begun {
                disk.remove(&path).map_err(|error| StoreError::Io(format!("{}: {error}", path.display())))?;
            }
            open_state_on(disk, data, cache, generation)
        }
        other => other,
    }
}
