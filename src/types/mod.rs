//! The vocabulary: the words that every other module speaks. No I/O, no clock, no `async`.
//!
//! | word | type | meaning |
//! |---|---|---|
//! | source | [`SourceId`] | one configured account on one platform |
//! | warehouse, SKU | [`WarehouseId`], [`Sku`] | our own ids; platforms' locations and items map to them |
//! | quantity | [`Quantity`] | exact signed decimal, six places |
//! | message | [`Message`] | one request as an adapter sees it: query, headers, raw body, arrival time |
//! | identity | [`Identity`] | what makes two messages the same message |
//! | fact | [`Fact`] | what a source said about one item at one location |
//! | stamp | [`Stamp`] | the order of facts: version, then source time, then arrival |
//! | need | [`Need`] | something that must be fetched from the platform's API |
//! | record | [`Record`] | one entry of the journal |
//! | item map | [`ItemMap`] | a platform's item ids and our SKUs, compact |
//! | network | [`Network`] | an address or a range of addresses, for address lists |
//! | token | [`Token`] | who may ask the admin API for what, without the secret itself |

mod fact;
mod items;
mod map;
mod message;
mod name;
mod network;
mod quantity;
mod record;
mod secret;
mod settings;
mod tokens;

pub use fact::{Change, Fact, Item, Measure, Need, Observation, Place, Said, Stamp, Standing, Unreadable};
pub use items::{ItemMap, ItemMapBuilder, ItemMapDigest, ItemMapRef, ItemMaps, NotMapped, PartsDigest};
pub use map::map_of;
pub use message::{Fields, HeaderList, Headers, Identity, Message, decode_component, query_value};
pub use name::{BadName, Seq, Sku, SourceId, WarehouseId};
pub use network::{BadNetwork, Network};
pub use quantity::{BadQuantity, Quantity};
pub use record::{Decision, Delivery, DeliveryKey, FetchFailed, Fetched, ItemsPart, Record, RecordBody};
pub use secret::Secret;
pub use settings::{Problem, Settings, closest};
pub use tokens::{Role, TOKENS_FILE, Token, Tokens};
