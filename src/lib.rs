//! stockgate: an inventory gateway for a warehouse, in one process.
//!
//! It takes in the stock webhooks of commerce and warehouse platforms over TLS, keeps them on disk before it answers 200,
//! folds them into one level per warehouse and SKU that explains itself, and shows all of it to people and to Prometheus.
//!
//! # The way of one delivery
//!
//! ```text
//!  TCP, TLS, HTTP     authenticate,       append         fold                      what changed
//!  limits             identify                           (pure, in order)
//!  net/          ->   pipeline/ingest ->  JOURNAL   ->   pipeline/apply       ->   STATE: levels, audit,   ->  api/, cli/, metrics
//!                     sources/<kind>      journal/       sources/ + stock/         totals, fetch tasks,
//!                                            ^                                     dead letters
//!                                            |                                     state.redb
//!  platform's API  <-  pipeline/fetch  ------+  one door: what was fetched or decided by a person is appended too
//! ```
//!
//! Stages never call each other; they meet in the journal and in the state. Every arrow is a table and a wake-up: a crash
//! between any two loses nothing, a stage can be tested with a store alone, and "where is it now?" always has an answer.
//!
//! # Invariants
//!
//! 1. **200 means it is on disk.** A 2xx leaves only after the journal commit that holds the delivery is durable (fsync). The
//!    write queue owns the delivery: a client that hangs up changes nothing.
//! 2. **After authentication nothing is refused for its content.** What is genuine and fits the size limit is journaled and
//!    acknowledged; what cannot be understood, mapped or applied becomes a dead letter with its cause. Overload and disk trouble
//!    answer 503 with Retry-After, before anything is acknowledged.
//! 3. **The journal is the truth; everything in the state is its fold.** Same journal, same state, byte for byte, on any
//!    machine, whatever the batches and checkpoints. Time is data in the journal, never read inside the fold; so is the part of
//!    the configuration that decides what a delivery means ([`stock::policy`]).
//! 4. **The state moves in one piece.** Dedup key, register, level, audit entry, totals, fetch tasks and the cursor reach the
//!    disk in one transaction. The state may lag the journal; it never disagrees with a prefix of it.
//! 5. **One door.** Fetched answers and a person's decisions enter through the journal like any webhook. Nothing writes a
//!    level directly, so every number explains itself.
//! 6. **A number is never older than one already accepted** from the same source for the same place: version, then source
//!    time, then arrival. What lost is recorded with the reason, not dropped.
//! 7. **Outbound is newest-per-SKU** (for the channels, which are not built yet).
//! 8. **A failed commit or fsync stops acknowledgement** and is never retried in place: not ready, no acks, reopen.
//! 9. Pure modules do no I/O, read no clock, are not `async`. Every queue, body, batch, wait and table has a bound, written
//!    once with its reason in [`limits`].
//! 10. **No secret in a log, a metric, an error or a page**; every secret comparison is constant time. URLs found in a payload
//!     are never fetched as they are: identifying parameters only, on the configured host.
//!
//! # Where is the thing that ...
//!
//! | question | place |
//! |---|---|
//! | ... decides whether a delivery is genuine, and what it says? | [`sources`]`/<kind>`: one folder a platform |
//! | ... answers the webhook? | [`pipeline::ingest`], served by [`net::serve`] |
//! | ... chooses the ciphers, and which comes first? | [`net`], `net/ciphers.rs` |
//! | ... makes it durable? | [`store::journal`]: one thread, group commit, one file a segment |
//! | ... turns it into a level? | [`pipeline::apply`], by the rules of [`stock::level`] |
//! | ... knows that it came before? | [`store::dedup`] (ids), [`stock::level`] (bodies without an id) |
//! | ... keeps what cannot be used? | dead letters: [`store::rows`], released by [`pipeline::apply`] |
//! | ... asks a platform's API? | [`pipeline::fetch`], with requests from [`sources`] |
//! | ... keeps a full disk from stopping everything? | [`store::Reserve`] |
//! | ... mends what is damaged? | [`store::journal`] (segments), [`store::open_state`] (the state) |
//! | ... removes old deliveries? | [`pipeline::retain`] |
//! | ... proves the numbers? | [`stock::audit`] (the chain), `stockgate verify`, `stockgate replay` |
//! | ... makes a backup, and takes one? | [`store::backup`], over [`api`] or the files; `stockgate backup`, `stockgate restore` |
//! | ... keeps the certificate new? | [`pipeline::certificate`], by files or by [`net::acme`] |
//! | ... looks for what is wrong with the box? | `stockgate doctor` ([`cli`]) |
//! | ... is written to disk, byte by byte? | [`store::codec`], [`store::rows`] |
//! | ... checks the configuration? | [`config`]; every key is documented in `config/defaults.toml` |
//! | ... reads the drop-ins `conf.d/*.toml`? | [`config::drop_ins()`] |
//! | ... makes the Debian package? | `packaging/build-deb`; its life is tested by `tests/system/deb.sh` |
//! | ... shows it? | [`api`] (admin listener), [`metrics`], [`cli`] |
//! | ... finds where sources disagree? | [`api`], at `/api/v1/drift` and a piece at every scrape; `stockgate drift` |
//! | ... wakes somebody? | `packaging/prometheus`: rules, their cases, and what to do |
//! | ... decides who may connect? | [`net::client_auth`] (client certificates), the PROXY header in [`net`], address lists in [`pipeline::ingest`], tokens in [`api::Access`] and `stockgate token` |
//! | ... plays the platforms? | [`simulator`] |
//! | ... cannot be said in safe Rust? | `src/native`, a package of its own |
//! | ... starts and stops it all? | [`app`] |
//! | ... tells systemd how it is, and answers its watchdog? | [`app::Manager`], `app/watchdog.rs`, with [`store::heart`] and [`net::notify`] |
//! | ... takes over sockets that systemd has opened? | [`net::passed`] |
//! | ... refuses what a newer release wrote? | [`store::release`], and the schema version in every database |
//!
//! **A new platform** is one folder in `sources/` and one line in [`sources::KINDS`]; the module's own documentation is the recipe.
//!
//! # Who may name whom
//!
//! A module names only what stands earlier: `limits`, `types`, `time` and `metrics`, {`stock`, `retry`, `sources`}, {`store`,
//! `net`}, `pipeline`, {`config`, `api`, `simulator`}, `app`, `cli`. Stages and platforms are strangers to their siblings.
//! `tests/it/tidy.rs` reads the source and keeps it so.
//!
//! # Where the code differs from the first design, and why
//!
//! - **The journal is a directory of segment files**, not one `journal.redb`. Measured: a redb file whose old tables were
//!   dropped kept 16.8 MB for 1 MB of live records, and compacting it needs the database to itself. Removing a file gives space back
//!   at once, bounds the repair after a crash to one segment, and keeps damage within it.
//! - **The rows of journal and ledger are blocks**, not one row a record, and the journal's are compressed. Measured: an insertion into
//!   the tree costs seven thousand instructions; deliveries of one platform shrink to a third, and so does what retention keeps.
//! - **A write-ahead log stands before the journal's redb file.** A commit is one frame of it: the block of its records, compressed, with
//!   a checksum, synced once. When the log is full all its blocks go into the segment in one transaction, by redb's own two syncs.
//!   Measured: a commit of redb writes 13 pages and waits for the disk twice whatever it holds, 40 KiB for a lone delivery; a frame
//!   is one or two pages. A card wears out by that. And with a commit of redb's for each of the journal's, the journal's thread took
//!   8 us of CPU for a delivery under full load; now it takes 5, and a lone delivery 5 KiB of the disk instead of 11.
//! - **A busy journal waits a moment** (0.1 ms) for the senders that it has just answered. Otherwise they fall into groups that take
//!   turns, with a third more commits or a half. A few senders never wait.
//! - **The state is written behind**: the fold works in memory and writes what changed at checkpoints, with the cursor, in one
//!   durable transaction, instead of many transactions without durability. Fewer random writes, same guarantee. A thread of its own
//!   writes a checkpoint while the fold goes on: on a memory card it takes seconds, in which levels would stand still.
//! - **Changed positions are sorted runs** before they are rows of their table (`store::state`). Those that change between two checkpoints
//!   lie on nearly every page of the table. Measured at the disk, over a million events to 571,000 positions: 1,345 bytes for each event
//!   without runs, 897 with them; and a checkpoint need not gather much, which is where much of the memory was.
//! - **A snapshot is brought up to date** in one transaction of its own, by what has changed, while the fold goes on. A copy of the whole
//!   state for each piece of the journal that ages out would write more than the journal does.
//! - **A package with unsafe code** (`src/native`) lies below this one, which forbids it: one option of the allocator's, without which a
//!   fifth more memory stays with the process, and for musl the functions that compare and copy bytes, a fifth of the fold's CPU time.
//! - **The policy is in the journal**: mappings, authority lists and adapters' settings, without secrets. Otherwise a replay would
//!   depend on today's file. It names its item mappings by their digest; their parts are records before it ([`types::ItemMap`]),
//!   so that 100,000 items cost 3.5 MB once and not a policy text of 4 MB in every checkpoint.
//! - **Arrival is a journal position, not a time**, so a clock that is set back makes nothing stale; a fetched answer ranks where
//!   the journal's head was when its request was sent.
//! - **A backup is rows in plain files**, fetched in pages, not copies of the database files: those change under their readers, and a
//!   daemon that may write nowhere but to its own directory could not put them elsewhere. What only grows is fetched once.
//! - **Identity has two forms** ([`types::Identity`]): a name that the platform gives its deliveries, looked up in the dedup table; or
//!   none, and then a body is a repeat only if it was also the last one about its place. A, B, A stays three reports.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod limits;
pub mod metrics;
pub mod net;
pub mod pipeline;
pub mod retry;
pub mod simulator;
pub mod sources;
pub mod stock;
pub mod store;
pub mod time;
pub mod types;
