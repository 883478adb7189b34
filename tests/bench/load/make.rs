//! Requests signed beforehand, so that wrk only reads them: the client's cost is the same for every peer.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::json;

use crate::event::{Events, ITEMS, LOCATIONS, item, location};
use crate::{Failure, at};

/// Options of `source`.
#[derive(clap::Args)]
pub(crate) struct SourceArgs {
    /// Where items.csv goes
    #[arg(long)]
    items: PathBuf,
    /// The file with the source's secret
    #[arg(long)]
    secret_file: PathBuf,
}

/// Write the items, print the source.
pub(crate) fn source(args: &SourceArgs) -> Result<(), Failure> {
    let mut items = BufWriter::new(File::create(&args.items).map_err(at(&args.items))?);
    let all = (0..ITEMS).try_for_each(|index| writeln!(items, "{},SHP-{index:06}", item(index)));
    all.and_then(|()| items.flush()).map_err(at(&args.items))?;
    let locations: Vec<String> = (0..LOCATIONS).map(|l| format!("\"{}\" = \"hall-{}\"", location(l), l + 1)).collect();
    println!(
        "[source.shop]\nkind = \"shopify\"\nsecret_file = \"{}\"\nitems_file = \"{}\"\nlocations = {{ {} }}",
        args.secret_file.display(),
        args.items.display(),
        locations.join(", ")
    );
    Ok(())
}

/// Options of `make`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files are called OUT.1, OUT.2, ..
    #[arg(long)]
    out: PathBuf,
    /// Number of the first event
    #[arg(long)]
    first: u64,
    /// Events in all files together
    #[arg(long)]
    count: u64,
    /// Files: one for each thread of wrk
    #[arg(long, default_value_t = 2)]
    parts: u64,
    /// The file with the source's secret
    #[arg(long)]
    secret_file: PathBuf,
    /// The `Host` field
    #[arg(long, default_value = "localhost")]
    host: String,
}

/// The path of a part, from 1.
pub(crate) fn part_path(out: &Path, part: u64) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(format!(".{part}"));
    PathBuf::from(name)
}

/// The secret without the end of its line, as the gateway reads it.
pub(crate) fn secret(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    Ok(text.trim_end_matches(['\r', '\n']).as_bytes().to_vec())
}

/// Write the files, print the length of one request.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let events = &Events::new(&secret(&args.secret_file)?, &args.host, args.first, args.parts);
    let lengths: Result<Vec<usize>, Failure> = thread::scope(|scope| {
        let parts: Vec<_> = (1..=args.parts).map(|part| scope.spawn(move || write(args, events, part))).collect();
        parts.into_iter().map(|part| part.join().expect("writing a file does not panic")).collect()
    });
    let lengths = lengths?;
    let record_bytes = lengths.first().copied().unwrap_or(0);
    println!("{}", json!({ "record_bytes": record_bytes, "events": args.count }));
    Ok(())
}

fn write(args: &Args, events: &Events, part: u64) -> Result<usize, Failure> {
    let path = part_path(&args.out, part);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(at(&path))?);
    let (mut record, mut k) = (Vec::with_capacity(1024), args.first + part - 1);
    while k < args.first + args.count {
        events.write(k, &mut record);
        file.write_all(&record).map_err(at(&path))?;
        k += args.parts;
    }
    file.flush().map_err(at(&path))?;
    Ok(record.len())
}
