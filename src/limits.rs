//! Every bound of the gateway, written once, with its reason.
//!
//! A value that an operator may change is a default here and a key in `config/defaults.toml`; one that only a
//! programmer should change is a plain constant. Units are in the name.

use std::time::Duration;

// ---- what a client may send -------------------------------------------------------------------------------------

/// Largest request body in bytes (default). Shopify's largest product payloads stay below it; a stock message is 230 bytes.
pub const BODY_MAX_BYTES: usize = 1024 * 1024;
/// All request bodies buffered at one moment, in bytes (default). Past it the answer is 503 with `Retry-After`.
pub const BODIES_BUFFERED_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Largest header block in bytes. Real senders use 1 to 2 KiB.
pub const HEADERS_MAX_BYTES: usize = 16 * 1024;
/// Most header fields in one request. WooCommerce sends about 15, a proxy adds a few.
pub const HEADERS_MAX_COUNT: usize = 64;
/// Longest request target (path and query) in bytes; a Kladana notification uses 90.
pub const TARGET_MAX_BYTES: usize = 4096;
/// Open connections in all (default); each costs about 50 KiB with its TLS and HTTP buffers.
pub const CONNECTIONS_MAX: usize = 512;
/// Open connections from one address (default). Above what one platform opens, below what would starve the others.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 128;
/// HTTP/2 streams at once on a connection: bounds what one connection can make us buffer.
pub const H2_STREAMS_MAX: u32 = 64;
/// HTTP/2 receive window of one stream in bytes: a body of 1 MiB still moves at 640 KB/s over 100 ms.
pub const H2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// HTTP/2 receive window of a connection: what one client can make us hold before a handler has asked for it.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 128 * 1024;
/// Bytes that hyper buffers for one connection in each direction, body included; above [`HEADERS_MAX_BYTES`].
pub const HTTP_BUFFER_BYTES: usize = 64 * 1024;

/// Largest PROXY header in bytes. Addresses take 52, the TLVs of load balancers some hundred; a client's certificate, which some proxies
/// pass on, stays below this.
pub const PROXY_HEADER_MAX_BYTES: usize = 4096;
/// Certificates in the chain that a client presents: its own and the intermediates. Private authorities have one or two.
pub const CLIENT_CHAIN_MAX: usize = 6;
/// ... and their bytes: the chain is kept as long as the connection, and in the session ticket (whose length has 16 bits).
pub const CLIENT_CHAIN_MAX_BYTES: usize = 16 * 1024;
/// Sources' verdicts on a client's certificate that a connection keeps; a sender delivers to one or two.
pub const CLIENT_VERDICTS_MAX: usize = 8;

// ---- how long a client may take ---------------------------------------------------------------------------------

/// TLS handshake, from accept to finished.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The PROXY header: it is the first packet that a proxy sends.
pub const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a verdict on a client's certificate holds on one connection. A new list of revoked certificates makes it void at once; this
/// is for certificates and lists that expire meanwhile. A signature check for every delivery would cost more than the delivery.
pub const CLIENT_VERDICT_AGE: Duration = Duration::from_secs(30);
/// Request head, from first byte to the empty line; also the keep-alive idle limit on HTTP/1.1.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Whole body, from the head to the last byte.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection without a request is closed after this long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// At most one log line in so many seconds about what anybody, or a proxy for anybody, can make us say again and again.
pub const WARN_PERIOD_SECONDS: i64 = 60;
/// What a refused client is told to wait (`Retry-After`), in seconds. Short: the usual cause is a burst.
pub const RETRY_AFTER_SECONDS: u64 = 5;
/// How long a stop waits for requests that are under way. Below systemd's `TimeoutStopSec=30s`.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that has asked for nothing yet may take to begin, at a stop: its handshake and the way of its first request on
/// a slow line (three round trips of 300 ms). Closed at once, a delivery that was on its way would fail at every restart.
pub const NEWCOMER_GRACE: Duration = Duration::from_secs(1);

/// A response that the client does not take: closed when no byte could be written for this long.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to read on after closing our side, when part of a request was left unread: a close with unread bytes is a
/// reset, and a reset can take the answer (413) away from the client before it has read it.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two HTTP/2 pings: finds clients that vanished without a FIN.
pub const H2_PING_PERIOD: Duration = Duration::from_secs(30);
/// How long an HTTP/2 ping may stay unanswered.
pub const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest pause of the accept loop when the system has no descriptor or memory for a connection.
pub const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(50);
/// See [`ACCEPT_PAUSE_MIN`], which doubles up to this.
pub const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

// ---- certificates -----------------------------------------------------------------------------------------------

/// Between two looks at the certificate's files. A renewal is served within this; each look reads a few KiB from memory.
pub const CERTIFICATE_LOOK_PERIOD: Duration = Duration::from_secs(5);
/// Largest certificate or key file that is read while running, in bytes; as for the configuration.
pub const CERTIFICATE_FILE_MAX_BYTES: u64 = PEM_FILE_MAX_BYTES;
/// Names in one certificate of an ACME server: Let's Encrypt takes no more.
pub const ACME_NAMES_MAX: usize = 100;
/// Largest answer of an ACME server; a chain has some 5 KiB.
pub const ACME_BODY_MAX_BYTES: usize = 256 * 1024;
/// From an order to its readiness, and again to its certificate: servers check a challenge within seconds, and give up
/// within a minute or two.
pub const ACME_ORDER_TIMEOUT: Duration = Duration::from_secs(180);
/// First pause between two questions whether an order is ready; they grow.
pub const ACME_POLL_PAUSE: Duration = Duration::from_millis(500);
/// One attempt in all. Above two [`ACME_ORDER_TIMEOUT`] and the requests around them.
pub const ACME_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long the renewal sleeps at most before it looks at the clock again: the clock of a box may be set meanwhile.
pub const ACME_LOOK_PERIOD: Duration = Duration::from_secs(60);
/// First and longest pause after a server that could not be reached, as while a box starts before its network does.
pub const ACME_UNREACHED_PAUSE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));
/// First and longest pause after a refusal: Let's Encrypt takes five failed validations of a name in an hour.
pub const ACME_REFUSED_PAUSE: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(12 * 3600));
/// Longest wait that an ACME server's `Retry-After` can impose: its longest rate limit is a week.
pub const ACME_RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Between a new certificate and the next one, at most: a clock that is wrong by months must not order one after the other.
pub const ACME_RENEWALS_APART: Duration = Duration::from_secs(3600);
/// How often an ACME server is asked when it wants a certificate renewed (RFC 9773, section 4.3.2): bounds of its `Retry-After`,
/// and what stands in for one.
pub const ACME_RENEWAL_INFO_PERIOD: (Duration, Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(24 * 3600), Duration::from_secs(6 * 3600));
/// Open connections of the HTTP-01 listener: a server checks from some five places, the rest are strangers.
pub const ACME_HTTP_CONNECTIONS_MAX: usize = 32;
/// Bytes that are kept of an ACME server's own words about a failure.
pub const ACME_MESSAGE_MAX_BYTES: usize = 600;

// ---- the service manager --------------------------------------------------------------------------------------------

/// How long a whole stop may take, from the signal on: below systemd's `TimeoutStopSec=30s`, after which it kills. What is then
/// not done is what a crash would leave undone: nothing that was acknowledged.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(25);
/// How long a stop lets the fold go on towards the journal's end. It is there within milliseconds, unless it rebuilds a state,
/// and then the next start goes on from the checkpoint.
pub const FOLD_STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for the service manager to take a message. It takes them at once, or hangs.
pub const NOTIFY_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two looks at what the status line should say.
pub const STATUS_PERIOD: Duration = Duration::from_secs(5);
/// Between two looks at a store that is being opened.
pub const OPENING_LOOK_PERIOD: Duration = Duration::from_secs(1);
/// While opening the store makes progress the service manager is asked for so much time from now on (`EXTEND_TIMEOUT_USEC`):
/// more than the slowest single read or sync of a card that still works.
pub const OPENING_PATIENCE: Duration = Duration::from_secs(60);
/// Looks at the threads in one watchdog period. A sign of life goes out at half of it, later when a thread is busy with one thing for
/// long; the more looks, the longer that thing may take, here seven eighths of the period.
pub const WATCHDOG_LOOKS: u32 = 8;

// ---- journal ----------------------------------------------------------------------------------------------------

/// Records waiting for the journal's next commit. Full means overloaded: 503, nothing acknowledged.
pub const JOURNAL_QUEUE_RECORDS: usize = 4096;
/// Most records in one commit: keeps a commit, and so every answer that waits for it, short.
pub const JOURNAL_BATCH_RECORDS: usize = 1024;
/// Most bytes in one commit, for the same reason when bodies are large.
pub const JOURNAL_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Bytes in one journal segment (one file), compressed. Retention drops whole segments, so this is its grain, and the newest one is
/// read whole at each start: some 50,000 deliveries.
pub const JOURNAL_SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of the journal's write-ahead log, from which on what it has goes into the journal's database and it begins anew: 250 commits
/// of a single delivery, each of which takes a page. That transaction takes a millisecond or two, which answers wait for.
pub const AHEAD_LOG_BYTES: usize = 1024 * 1024;
/// ... and bytes of what its commits hold, the padding to whole pages not counted: some 50 full commits. As many bytes wait in memory, and
/// in the transaction that takes them. With twice as much it takes twice as long, half as often: p99 at full load was 5.6 to 6.3 ms
/// instead of 4.9 to 5.8 (three runs in turn).
pub const AHEAD_ROWS_BYTES: usize = 400 * 1024;
/// Most bytes of one commit in that log: more than [`JOURNAL_BATCH_BYTES`] and one record with the largest body that can be
/// configured.
pub const AHEAD_FRAME_MAX_BYTES: usize = 256 * 1024 * 1024;
/// redb page cache of the newest journal segment. Appends touch only the right edge of one tree.
pub const JOURNAL_CACHE_BYTES: usize = 1024 * 1024;
/// Committed batches the fold may lag behind in memory; past it the fold reads the journal itself.
pub const FOLD_QUEUE_BATCHES: usize = 64;
/// ... and in bytes.
pub const FOLD_QUEUE_BYTES: usize = 2 * 1024 * 1024;
/// How long raw deliveries are kept (default). Above every platform's retry horizon (48 h) and a long weekend.
pub const RETENTION_AGE: Duration = Duration::from_secs(14 * 24 * 3600);
/// Bytes of raw deliveries kept (default): a small SD card keeps room.
pub const RETENTION_BYTES: u64 = 1024 * 1024 * 1024;
/// Seconds between looks at what retention may drop.
pub const RETENTION_PERIOD: Duration = Duration::from_secs(60);

// ---- disk --------------------------------------------------------------------------------------------------------

/// Room kept back on the disk (default), beside a copy of the state's size: what a few checkpoints write. One that merges runs
/// (`store::state`) writes at most the positions again, for which there is the room of that copy.
pub const RESERVE_BYTES: u64 = 32 * 1024 * 1024;
/// With less free space than this no delivery is acknowledged: twice what the largest commit writes
/// ([`JOURNAL_BATCH_BYTES`]).
pub const DISK_FLOOR_BYTES: u64 = 8 * 1024 * 1024;
/// Between two looks at the free space: so long it takes at most until acknowledgement resumes.
pub const DISK_LOOK_PERIOD: Duration = Duration::from_secs(1);

// ---- state ------------------------------------------------------------------------------------------------------

/// redb page cache of `state.redb` (default). What is needed often is in memory as rows; the system caches the file, too.
pub const STATE_CACHE_BYTES: usize = 4 * 1024 * 1024;
/// redb page cache of a snapshot while it is brought up to date: what is read of it is read once, in order.
pub const SNAPSHOT_CACHE_BYTES: usize = 1024 * 1024;
/// A state of up to so many bytes is compared with its checksums at every start: a fraction of a second on an SSD, a few on an SD
/// card. A larger one is when it is suspect.
pub const STATE_CHECKED_BYTES: u64 = 64 * 1024 * 1024;
/// Most records folded in one step: bounds how long a reader waits for the state lock.
pub const FOLD_STEP_RECORDS: usize = 512;
/// A checkpoint at least this often when anything changed (default). Each writes some twenty pages however little changed, and
/// flash wears; what a crash takes back is folded again in a fraction of a second.
pub const CHECKPOINT_PERIOD: Duration = Duration::from_secs(30);
/// ... or after this many folded records: bounds what a start after a crash has to fold.
pub const CHECKPOINT_RECORDS: u64 = 131_072;
/// ... or when rows that are not yet written take about so many bytes: some twenty thousand changes. They go into the file as runs,
/// so that more of them would not save much writing, and as many again may be on their way there.
pub const CHECKPOINT_BYTES: usize = 7 * 512 * 1024;
/// Keys in one dedup generation; a full one is sealed, sorted and gets a filter.
pub const DEDUP_GENERATION_KEYS: usize = 131_072;
/// Positions kept in memory between checkpoints.
pub const POSITIONS_CACHED: usize = 32_768;

// ---- stock ------------------------------------------------------------------------------------------------------

/// Longest SKU, item, location or delivery id in bytes. Shopify's gids are the longest seen, at about 100.
pub const NAME_MAX_BYTES: usize = 255;
/// Longest source or warehouse id in bytes: they are metric labels and path segments.
pub const ID_MAX_BYTES: usize = 48;
/// Deltas remembered after the last absolute report of one source for one place; the oldest is folded into the base.
pub const DELTAS_PENDING: usize = 32;
/// Facts one delivery may carry; a Kladana report over a whole account is read in one piece.
pub const FACTS_PER_RECORD: usize = 200_000;
/// Bytes kept of a dead letter's cause.
pub const CAUSE_MAX_BYTES: usize = 300;
/// Steps of a configured JSON pointer. The deepest known payload needs six.
pub const POINTER_TOKENS_MAX: usize = 32;
/// Signatures looked at in one message (key rotations send two or three): bounds what a forged header can cost.
pub const SIGNATURES_PER_MESSAGE_MAX: usize = 16;
/// Sources in one configuration: bounds the label values of the metrics.
pub const SOURCES_MAX: usize = 256;
/// Warehouses in one configuration: bounds the label values of the metrics.
pub const WAREHOUSES_MAX: usize = 1024;

// ---- fetch ------------------------------------------------------------------------------------------------------

/// Largest answer of a platform's API after decompression.
pub const API_BODY_MAX_BYTES: usize = 32 * 1024 * 1024;
/// One API call, from connect to the last byte.
pub const API_TIMEOUT: Duration = Duration::from_secs(30);
/// Resolving, connecting and shaking hands with an API host.
pub const API_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An unused API connection is kept this long; below the 60 s after which common servers close theirs.
pub const API_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Unused API connections kept for one host.
pub const API_IDLE_PER_HOST: usize = 8;
/// Longest wait that a platform's `Retry-After` can impose.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Fetch tasks are looked through at most this often while records are being folded.
pub const FETCH_LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Pages one fetch may follow.
pub const FETCH_PAGES_MAX: u32 = 2000;

// ---- api --------------------------------------------------------------------------------------------------------

/// Rows in one page of an API listing.
pub const PAGE_ROWS_MAX: usize = 1000;
/// Rows in one page when the client does not say.
pub const PAGE_ROWS: usize = 100;

/// Tokens of the admin API: one for each person or program; all of them are compared with a presented one.
pub const TOKENS_MAX: usize = 64;
/// Largest file of tokens in bytes; 64 of them take 16 KiB.
pub const TOKENS_FILE_MAX_BYTES: u64 = 64 * 1024;
/// Random bytes of a token: beyond guessing.
pub const TOKEN_BYTES: usize = 32;

// ---- metrics ----------------------------------------------------------------------------------------------------

/// Positions that one scrape looks at for drift, [`PAGE_ROWS_MAX`] under one lock: a few milliseconds. 10,000 positions are
/// looked through within two minutes of scrapes every 15 s, a million within four hours.
pub const DRIFT_POSITIONS_PER_SCRAPE: usize = 2000;
/// Positions that one page of the list of drift looks at, [`PAGE_ROWS_MAX`] under one lock: a fraction of a second, whatever it
/// finds.
pub const DRIFT_POSITIONS_PER_PAGE: usize = 20_000;
/// Two numbers that differ count as drift when neither source has spoken of the place for so long: platforms send the same
/// change seconds or minutes apart, and what is fetched comes later still.
pub const DRIFT_SETTLED: Duration = Duration::from_secs(15 * 60);
/// Series of one source on the metrics page: results, outcomes, calls of its API, one for each secret, and a few more. No
/// histogram is among them, which would be twenty each.
pub const SERIES_PER_SOURCE_MAX: usize = 48;
/// Series of one warehouse.
pub const SERIES_PER_WAREHOUSE_MAX: usize = 10;
/// All other series. So there are 10,200 at most with 200 sources and 20 warehouses, and 23,000 with [`SOURCES_MAX`] and
/// [`WAREHOUSES_MAX`].
pub const SERIES_REST_MAX: usize = 400;

// ---- backup -----------------------------------------------------------------------------------------------------

/// Bytes of rows in one page of a backup. A page of the journal is read under the lock that a new segment waits for, so it is
/// no longer than a commit: 25 ms on a card that reads 20 MB/s.
pub const BACKUP_PAGE_BYTES: usize = 512 * 1024;
/// Records in one page of a backup, for the same reason when they are small.
pub const BACKUP_PAGE_RECORDS: usize = 8192;
/// A backup that asks for no page for this long has ended: its read transaction keeps pages of the state from being used again.
pub const BACKUP_IDLE: Duration = Duration::from_secs(60);
/// ... and so has one that still reads tables after this long: 1 GB at 1 MB/s.
pub const BACKUP_TABLES_MAX: Duration = Duration::from_secs(1000);

// ---- configuration ----------------------------------------------------------------------------------------------

/// Drop-ins beside a configuration file: one for each source, and a few for the fixed sections.
pub const CONFIG_DROP_INS_MAX: usize = SOURCES_MAX + 64;
/// Largest configuration file in bytes, its drop-ins included: 256 sources and 1024 warehouses fit several times. While it is read, its tree takes
/// more than thirty times its size; mappings of many items belong in an `items_file`, which is read line by line.
pub const CONFIG_MAX_BYTES: u64 = 512 * 1024;
/// Largest file that holds a secret, in bytes: past it, it is another file.
pub const SECRET_FILE_MAX_BYTES: u64 = 64 * 1024;
/// Largest certificate, key or authority bundle in bytes; a system's whole bundle is about 250 KiB.
pub const PEM_FILE_MAX_BYTES: u64 = 2 * 1024 * 1024;
/// Largest `items_file` in bytes.
pub const ITEMS_FILE_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Longest line of an `items_file` in bytes: two ids of [`NAME_MAX_BYTES`] in quotes fit, a file that is no table does not.
pub const ITEMS_LINE_MAX_BYTES: usize = 4096;
/// Bad lines of an `items_file` that are told one by one: another file by mistake has as many as it has lines.
pub const ITEMS_BAD_LINES_TOLD: usize = 100;
/// Ids and SKUs of one mapping in bytes: above [`ITEMS_FILE_MAX_BYTES`] and [`CONFIG_MAX_BYTES`] together, below 26 bits.
pub const ITEM_MAP_MAX_BYTES: usize = 32 * 1024 * 1024;
/// One journal record and one row of a mapping in bytes: with its key it fits a page of 64 KiB of the database.
pub const ITEM_PART_MAX_BYTES: usize = 60 * 1024;
/// Parts of a mapping on their way into the journal at once: one durable write for some, and never much in memory.
pub const ITEM_PARTS_IN_FLIGHT: usize = 4;
/// A checkpoint is made when so many bytes of mappings are not yet written: they are held twice until then.
pub const ITEM_PARTS_UNWRITTEN_BYTES: usize = 512 * 1024;
/// Items one source may map in its configuration: about 3.5 MB of memory, twice that during a reload
/// that changes them; `map import` has no such bound.
pub const ITEMS_CONFIGURED_MAX: usize = 100_000;
/// Secrets of one source: each costs one HMAC for every forged request. A rotation needs two.
pub const SECRETS_MAX: usize = 8;
/// A signing secret shorter than this, in bytes, is warned about.
pub const SECRET_SHORT_BYTES: usize = 8;
/// Shortest path token in bytes: 16 characters of hex are 64 bits, out of reach of guessing over a network.
pub const TOKEN_MIN_BYTES: usize = 16;
/// Networks in the address list of one source; the list is walked for every request.
pub const NETWORKS_MAX: usize = 256;
/// Bytes of a dead letter's body that are shown; a fetched answer may have 32 MiB.
pub const DEAD_BODY_SHOWN_MAX_BYTES: usize = 256 * 1024;
