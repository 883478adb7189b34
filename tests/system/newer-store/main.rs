//! Makes a stopped gateway's data look as if a newer version had written it: newer-store DATA-DIRECTORY
//!
//! Raises the schema version of the state's file, as the next version would. What else that version changed does not matter: an
//! older one must stop before it looks.
#![expect(clippy::print_stdout, reason = "a tool of the tests")]
#![expect(clippy::disallowed_types, reason = "what a newer version would do is done by hand, below the store")]

use std::error::Error;
use std::path::Path;

use redb::{Database, TableDefinition};
use stockgate::store::SCHEMA_VERSION;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

fn main() -> Result<(), Box<dyn Error>> {
    let data = std::env::args().nth(1).ok_or("usage: newer-store DATA-DIRECTORY")?;
    let file = Path::new(&data).join("state.redb");
    let newer = SCHEMA_VERSION + 1;
    let write = Database::open(&file)?.begin_write()?;
    let before = write.open_table(META)?.insert("schema", newer.to_be_bytes().as_slice())?.map(|old| old.value().to_vec());
    if before != Some(SCHEMA_VERSION.to_be_bytes().to_vec()) {
        return Err(format!("{} has the schema {before:?}, not {SCHEMA_VERSION}", file.display()).into());
    }
    write.commit()?;
    println!("{} has schema {newer}", file.display());
    Ok(())
}
