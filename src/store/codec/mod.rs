//! Bytes of stored rows: fixed-width big-endian integers, variable-length counts (LEB128), length-prefixed bytes and texts.
//!
//! The width of nothing depends on the machine. A reader never panics: a short or odd row is [`StoreError::Row`].

mod uuid;

use crate::time::Timestamp;
use crate::types::{
    Decision, Delivery, DeliveryKey, FetchFailed, Fetched, HeaderList, ItemsPart, Need, Quantity, Record, RecordBody, Stamp,
};

use super::StoreError;

/// Builds a row.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Over the room of a row that is no longer needed, unless that is more than `most` bytes.
    pub fn reusing(mut row: Vec<u8>, most: usize) -> Self {
        row.clear();
        row.shrink_to(most);
        Self(row)
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The row.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Eight bytes.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Sixteen bytes.
    pub fn i128(&mut self, value: i128) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// One to ten bytes: small numbers are short.
    pub fn count(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(low_bits(value) | 0x80);
            value >>= 7;
        }
        self.0.push(low_bits(value));
        self
    }

    /// A signed number, zigzag, one to ten bytes.
    pub fn signed(&mut self, value: i64) -> &mut Self {
        self.count(((value << 1) ^ (value >> 63)).cast_unsigned())
    }

    /// Bytes of a known length.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len() as u64).raw(bytes)
    }

    /// A text with its length.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// A delivery's id. One of the usual form (a UUID in lower case) takes 17 bytes instead of 37.
    pub fn label(&mut self, text: &str) -> &mut Self {
        match uuid::bytes_of(text) {
            Some(bytes) => self.u8(1).raw(&bytes),
            None => self.u8(0).text(text),
        }
    }

    /// A moment.
    pub fn time(&mut self, at: Timestamp) -> &mut Self {
        self.i64(at.0)
    }

    /// A thing that may be absent: a byte, then the thing.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                write(self, value);
                self
            }
        }
    }

    /// A stamp.
    pub fn stamp(&mut self, stamp: &Stamp) -> &mut Self {
        self.option(stamp.version, |w, v| {
            w.count(v);
        });
        self.option(stamp.at, |w, at| {
            w.signed(at.0);
        });
        self.count(stamp.seq).count(u64::from(stamp.part))
    }
}

/// Bytes that [`Writer::count`] takes for a number.
pub fn count_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// The lowest seven bits.
fn low_bits(value: u64) -> u8 {
    let [low, ..] = value.to_le_bytes();
    low & 0x7f
}

/// Takes a row apart.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Over a row's bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Bytes of a known length.
    #[inline]
    pub fn raw(&mut self, length: usize, what: &str) -> Result<&'a [u8], StoreError> {
        let Some((head, tail)) = self.0.split_at_checked(length) else { return Err(cut_short(what)) };
        self.0 = tail;
        Ok(head)
    }

    /// Bytes of a length known at compile time.
    #[inline]
    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], StoreError> {
        let Some((head, tail)) = self.0.split_first_chunk() else { return Err(cut_short(what)) };
        self.0 = tail;
        Ok(*head)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self, what: &str) -> Result<u8, StoreError> {
        let Some((byte, tail)) = self.0.split_first() else { return Err(cut_short(what)) };
        self.0 = tail;
        Ok(*byte)
    }

    /// Four bytes.
    pub fn u32(&mut self, what: &str) -> Result<u32, StoreError> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// Eight bytes.
    pub fn u64(&mut self, what: &str) -> Result<u64, StoreError> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// Eight bytes.
    pub fn i64(&mut self, what: &str) -> Result<i64, StoreError> {
        Ok(i64::from_be_bytes(self.array(what)?))
    }

    /// Sixteen bytes.
    pub fn i128(&mut self, what: &str) -> Result<i128, StoreError> {
        Ok(i128::from_be_bytes(self.array(what)?))
    }

    /// A variable-length number.
    pub fn count(&mut self, what: &str) -> Result<u64, StoreError> {
        let mut value: u64 = 0;
        for (length, (byte, shift)) in (1..).zip(self.0.iter().zip((0..64).step_by(7))) {
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                self.0 = self.0.split_at(length).1;
                return Ok(value);
            }
        }
        Err(if self.0.len() < 10 { cut_short(what) } else { StoreError::Row(format!("{what} is not a number")) })
    }

    /// A variable-length number that must fit a narrower type.
    pub fn small<T: TryFrom<u64>>(&mut self, what: &str) -> Result<T, StoreError> {
        T::try_from(self.count(what)?).map_err(|_| StoreError::Row(format!("{what} is too large")))
    }

    /// A signed variable-length number.
    pub fn signed(&mut self, what: &str) -> Result<i64, StoreError> {
        let value = self.count(what)?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// Bytes with their length.
    pub fn bytes(&mut self, what: &str) -> Result<&'a [u8], StoreError> {
        let length = self.small(what)?;
        self.raw(length, what)
    }

    /// A text with its length.
    pub fn text(&mut self, what: &str) -> Result<&'a str, StoreError> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| StoreError::Row(format!("{what} is not UTF-8")))
    }

    /// A delivery's id.
    pub fn label(&mut self, what: &str) -> Result<String, StoreError> {
        match self.u8(what)? {
            0 => self.text(what).map(str::to_owned),
            1 => Ok(uuid::text_of(self.array(what)?)),
            other => Err(StoreError::Row(format!("{what} has the form {other}"))),
        }
    }

    /// A moment.
    pub fn time(&mut self, what: &str) -> Result<Timestamp, StoreError> {
        self.i64(what).map(Timestamp)
    }

    /// A thing that may be absent.
    pub fn option<T>(
        &mut self,
        what: &str,
        read: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match self.u8(what)? {
            0 => Ok(None),
            1 => read(self).map(Some),
            other => Err(StoreError::Row(format!("{what} has the mark {other}"))),
        }
    }

    /// A stamp.
    pub fn stamp(&mut self, what: &str) -> Result<Stamp, StoreError> {
        let version = self.option(what, |r| r.count(what))?;
        let at = self.option(what, |r| r.signed(what).map(Timestamp))?;
        Ok(Stamp { version, at, seq: self.count(what)?, part: self.small(what)? })
    }

    /// A quantity.
    pub fn quantity(&mut self, what: &str) -> Result<Quantity, StoreError> {
        self.signed(what).map(Quantity::from_micros)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    pub fn end(&self, what: &str) -> Result<(), StoreError> {
        if self.0.is_empty() { Ok(()) } else { Err(StoreError::Row(format!("{what} has {} bytes too many", self.0.len()))) }
    }
}

#[cold]
fn cut_short(what: &str) -> StoreError {
    StoreError::Row(format!("{what} is cut short"))
}

/// The rows of a block, each behind its length, numbered from `first`.
pub fn numbered_rows(first: u64, block: &[u8]) -> impl Iterator<Item = Result<(u64, &[u8]), StoreError>> {
    let mut reader = Reader::new(block);
    let mut at = first;
    std::iter::from_fn(move || {
        if reader.is_empty() {
            return None;
        }
        let row = reader.bytes("row of a block").map(|row| (at, row));
        if row.is_err() {
            // a block that does not decode ends here
            reader = Reader::new(&[]);
        }
        at += 1;
        Some(row)
    })
}

/// Bytes of a journal record: its kind, its time, its fields in the order of the struct.
pub fn encode_record(record: &Record<'_>) -> Vec<u8> {
    let mut w = Writer::with_capacity(128 + body_length(&record.body));
    match &record.body {
        RecordBody::Delivery(d) => {
            w.u8(1).time(record.at).text(d.source);
            match d.key {
                DeliveryKey::Named(key) => w.u8(1).raw(&key),
                DeliveryKey::Content => w.u8(0),
            };
            w.raw(&d.body_digest).text(d.label).text(d.query).count(d.headers.0.len() as u64);
            for (name, value) in &d.headers.0 {
                header(&mut w, name, value, d.label);
            }
            w.bytes(d.body);
        }
        RecordBody::Fetched(f) => {
            w.u8(2).time(record.at).text(f.source);
            need(&mut w, &f.need);
            w.count(f.answers).time(f.sent_at).count(u64::from(f.page)).u8(u8::from(f.last)).bytes(f.body);
        }
        RecordBody::FetchFailed(f) => {
            w.u8(3).time(record.at).text(f.source);
            need(&mut w, &f.need);
            w.count(f.answers).text(f.cause);
        }
        RecordBody::Policy(json) => {
            w.u8(4).time(record.at).text(json);
        }
        RecordBody::Items(items) => {
            w.u8(6).time(record.at).raw(&items.map).count(u64::from(items.part)).text(items.lines);
        }
        RecordBody::Decision(decision) => {
            w.u8(5).time(record.at);
            match decision {
                Decision::RetryDead(id) => w.u8(1).count(*id),
                Decision::DropDead(id) => w.u8(2).count(*id),
                Decision::MapItem { source, item, sku } => w.u8(3).text(source).text(item).text(sku),
                Decision::MapLocation { source, location, warehouse } => w.u8(4).text(source).text(location).text(warehouse),
            };
        }
    }
    w.finish()
}

/// Names of header fields that deliveries are kept with, by the number that stands for each. Numbers are for ever: append only.
const HEADER_NAMES: [&str; 16] = [
    "x-shopify-webhook-id",
    "x-shopify-topic",
    "x-shopify-triggered-at",
    "shopify-webhook-id",
    "shopify-topic",
    "shopify-triggered-at",
    "shopify-resource-id",
    "x-wc-webhook-topic",
    "x-wc-webhook-id",
    "x-wc-webhook-delivery-id",
    "x-wc-webhook-resource",
    "x-wc-webhook-event",
    "webhook-id",
    "webhook-timestamp",
    "x-request-id",
    "content-type",
];
/// Flag beside a name's number: the value is the delivery's label, which stands in the record already.
const VALUE_IS_LABEL: u8 = 0x80;

/// A header field: the number of its name (0: the name follows) and its value.
fn header(w: &mut Writer, name: &str, value: &str, label: &str) {
    let known = (1_u8..).zip(HEADER_NAMES).find(|(_, known)| *known == name).map_or(0, |(number, _)| number);
    let is_label = value == label;
    w.u8(if is_label { known | VALUE_IS_LABEL } else { known });
    if known == 0 {
        w.text(name);
    }
    if !is_label {
        w.text(value);
    }
}

fn read_header<'a>(r: &mut Reader<'a>, label: &'a str) -> Result<(&'a str, &'a str), StoreError> {
    let mark = r.u8("header")?;
    let name = match usize::from(mark & !VALUE_IS_LABEL).checked_sub(1) {
        None => r.text("header name")?,
        Some(index) => HEADER_NAMES
            .get(index)
            .ok_or_else(|| StoreError::Row(format!("header name {index} is not known: a newer stockgate wrote this")))?,
    };
    let value = if mark & VALUE_IS_LABEL == 0 { r.text("header value")? } else { label };
    Ok((name, value))
}

fn body_length(body: &RecordBody<'_>) -> usize {
    match body {
        RecordBody::Delivery(d) => {
            d.body.len() + d.query.len() + d.headers.0.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>()
        }
        RecordBody::Fetched(f) => f.body.len(),
        RecordBody::Policy(json) => json.len(),
        RecordBody::Items(items) => items.lines.len(),
        RecordBody::FetchFailed(_) | RecordBody::Decision(_) => 0,
    }
}

/// Read a journal record.
pub fn decode_record(bytes: &[u8]) -> Result<Record<'_>, StoreError> {
    let mut r = Reader::new(bytes);
    let kind = r.u8("record kind")?;
    let at = r.time("record time")?;
    let body = match kind {
        1 => RecordBody::Delivery(decode_delivery(&mut r)?),
        2 => RecordBody::Fetched(Fetched {
            source: r.text("source")?,
            need: read_need(&mut r)?,
            answers: r.count("answers")?,
            sent_at: r.time("sent_at")?,
            page: r.small("page")?,
            last: r.u8("last")? == 1,
            body: r.bytes("body")?,
        }),
        3 => RecordBody::FetchFailed(FetchFailed {
            source: r.text("source")?,
            need: read_need(&mut r)?,
            answers: r.count("answers")?,
            cause: r.text("cause")?,
        }),
        4 => RecordBody::Policy(r.text("policy")?),
        5 => RecordBody::Decision(match r.u8("decision")? {
            1 => Decision::RetryDead(r.count("dead letter")?),
            2 => Decision::DropDead(r.count("dead letter")?),
            3 => Decision::MapItem { source: r.text("source")?, item: r.text("item")?, sku: r.text("sku")? },
            4 => Decision::MapLocation {
                source: r.text("source")?,
                location: r.text("location")?,
                warehouse: r.text("warehouse")?,
            },
            other => return Err(StoreError::Row(format!("decision {other} is not known"))),
        }),
        6 => RecordBody::Items(ItemsPart { map: r.array("map")?, part: r.small("part")?, lines: r.text("lines")? }),
        other => return Err(StoreError::Row(format!("record kind {other} is not known"))),
    };
    r.end("record")?;
    Ok(Record { at, body })
}

fn decode_delivery<'a>(r: &mut Reader<'a>) -> Result<Delivery<'a>, StoreError> {
    let source = r.text("source")?;
    let key = match r.u8("key")? {
        0 => DeliveryKey::Content,
        1 => DeliveryKey::Named(r.array("key")?),
        other => return Err(StoreError::Row(format!("key kind {other} is not known"))),
    };
    let body_digest = r.array("body digest")?;
    let (label, query) = (r.text("label")?, r.text("query")?);
    let fields: usize = r.small("headers")?;
    let mut headers = Vec::with_capacity(fields.min(64));
    for _ in 0..fields {
        headers.push(read_header(r, label)?);
    }
    Ok(Delivery { source, key, body_digest, label, query, headers: HeaderList(headers), body: r.bytes("body")? })
}

/// Write a need.
pub fn need(w: &mut Writer, need: &Need) {
    w.text(&need.key);
    w.option(need.from, |w, at| {
        w.time(at);
    });
}

/// Read a need.
pub fn read_need(r: &mut Reader<'_>) -> Result<Need, StoreError> {
    Ok(Need { key: r.text("need")?.into(), from: r.option("need from", |r| r.time("need from"))? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_of_record_reads_back() {
        let need = Need { key: "stock/1".into(), from: Some(Timestamp(-5)) };
        let headers = HeaderList(vec![("x-topic", "stock"), ("webhook-id", "d-1"), ("x-id", "d-1"), ("content-type", "")]);
        for body in [
            RecordBody::Delivery(Delivery {
                source: "shop",
                key: DeliveryKey::Named([7; 16]),
                body_digest: [1; 8],
                label: "d-1",
                query: "a=b",
                headers,
                body: b"{\"n\":1}\xff",
            }),
            RecordBody::Fetched(Fetched {
                source: "bsale",
                need: need.clone(),
                answers: 300,
                sent_at: Timestamp(9),
                page: 2,
                last: true,
                body: b"[]",
            }),
            RecordBody::FetchFailed(FetchFailed { source: "bsale", need, answers: 1, cause: "gone" }),
            RecordBody::Policy("{}"),
            RecordBody::Items(ItemsPart { map: [7; 32], part: 300, lines: "1\tA\n" }),
            RecordBody::Decision(Decision::RetryDead(5)),
            RecordBody::Decision(Decision::DropDead(u64::MAX)),
            RecordBody::Decision(Decision::MapItem { source: "s", item: "1", sku: "A" }),
            RecordBody::Decision(Decision::MapLocation { source: "s", location: "1", warehouse: "w" }),
        ] {
            let record = Record { at: Timestamp(1_700_000_000_000_000), body };
            let bytes = encode_record(&record);
            assert_eq!(decode_record(&bytes).expect("reads back"), record);
            for cut in 0..bytes.len() {
                assert!(decode_record(&bytes[..cut]).is_err(), "a torn record is an error, not a guess");
            }
        }
    }

    #[test]
    fn ids_read_back_and_uuids_are_short() {
        let uuid = "98880550-7158-44d4-b7cd-2c97c8a091b5";
        for (text, bytes) in [(uuid, 17), (&uuid.to_uppercase(), 38), (&uuid.replace('-', "0"), 38), ("", 2), ("d-1", 5)] {
            let mut w = Writer::default();
            w.label(text);
            let row = w.finish();
            assert_eq!(row.len(), bytes, "{text}");
            assert_eq!(Reader::new(&row).label("id").expect("reads"), text);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            drop(decode_record(&bytes));
        }

        #[test]
        fn numbers_read_back(count: u64, signed: i64) {
            let mut w = Writer::default();
            w.count(count);
            prop_assert_eq!(w.0.len(), count_bytes(count));
            w.signed(signed);
            let bytes = w.finish();
            let mut r = Reader::new(&bytes);
            prop_assert_eq!(r.count("n").expect("reads"), count);
            prop_assert_eq!(r.signed("n").expect("reads"), signed);
            prop_assert!(r.end("row").is_ok());
        }
    }
}
