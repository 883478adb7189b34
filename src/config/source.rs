//! `[source.<id>]`: the keys that all sources share. The rest of the table is the platform's.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::items::BadItems;
use super::secret::{Held, Many};
use super::{Context, Findings, Located, SourceConfig, access, api, items, open_capped, secret};
use crate::limits;
use crate::sources::{Kind, Source};
use crate::stock::policy::ANY_LOCATION;
use crate::types::{ItemMap, ItemMapBuilder, NotMapped, Secret, Settings, Sku, SourceId, WarehouseId, closest};

/// The keys that this module reads itself, besides those of the secrets.
const SHARED: &[&str] = &["kind", "warehouse", "locations", "items", "items_file", "allow", "api"];

/// The source tables of the file, sorted by name. What is no table is reported.
pub(super) fn tables(root: &mut Settings) -> Vec<(String, Map<String, Value>)> {
    let Some(mut sources) = root.table("source") else { return Vec::new() };
    let mut tables = Vec::new();
    let mut keys = sources.keys();
    keys.sort_unstable();
    for key in keys {
        match sources.value(&key) {
            Some(Value::Object(table)) => tables.push((key, table)),
            _ => sources.problem(&key, "expected a table: [source.<name>]"),
        }
    }
    root.absorb(sources.finish());
    tables
}

/// Read one source. `None` when it has no usable name or platform; what is wrong is reported either way.
pub(super) fn read(
    name: &str,
    table: Map<String, Value>,
    context: &Context<'_>,
    found: &mut Findings,
) -> Option<SourceConfig> {
    let path = format!("source.{name}");
    let id = SourceId::new(name).map_err(|why| found.problem(&path, why.to_string())).ok();
    let shared_keys = shared_keys();
    let (shared, own): (Map<_, _>, Map<_, _>) = table.into_iter().partition(|(key, _)| shared_keys.contains(key));
    let mut settings = Settings::new(&path, shared);
    let kind = kind(&mut settings, context.kinds);
    let (warehouse, locations) = places(&mut settings, &path, found);
    let items = item_map(&mut settings, context, found);
    let secrets = secret::read(&mut settings, "secret", Many::Rotation, context, found);
    check_secrets(&mut settings, secrets.as_deref().unwrap_or_default(), found);
    let token = token(&mut settings, context, found);
    let allow = access::allowed(&mut settings);
    let clients = access::clients(&mut settings, context);
    let built = kind.map(|kind| (kind, build(kind, &path, &own, &shared_keys, found)));
    let mut api = None;
    if let Some((kind, adapter)) = &built {
        for one in secrets.iter().flatten() {
            if let Some(wrong) = adapter.secret_problem(&one.secret) {
                settings.problem(&one.key, format!("the secret from {} {wrong}", one.from));
            }
        }
        let trust = Trust {
            secret: secrets.is_some(),
            token: gives(&settings, &secret::keys_of("token", Many::One)),
            allow: !allow.is_empty(),
            clients: clients.is_some(),
        };
        check_trust(kind, adapter.as_ref(), &trust, &path, found);
        api = api::read(&mut settings, kind, adapter.as_ref(), context, found);
    } else {
        settings.value("api");
    }
    found.absorb(settings.finish());
    let (kind, adapter) = built?;
    let (secrets, secrets_from) =
        secrets.unwrap_or_default().into_iter().map(|held| (held.secret, held.from.to_string())).unzip();
    Some(SourceConfig {
        id: id?,
        kind,
        adapter,
        settings: own,
        warehouse,
        locations,
        items,
        secrets,
        secrets_from,
        token,
        allow,
        clients,
        api,
    })
}

/// Is one of these keys there, good or bad?
fn gives(settings: &Settings, keys: &[String]) -> bool {
    settings.keys().iter().any(|key| keys.contains(key))
}

fn shared_keys() -> Vec<String> {
    let plain = SHARED.iter().chain(&access::CLIENT_KEYS).map(|key| (*key).to_owned());
    plain.chain(secret::keys_of("secret", Many::Rotation)).chain(secret::keys_of("token", Many::One)).collect()
}

fn kind(settings: &mut Settings, kinds: &'static [Kind]) -> Option<&'static Kind> {
    let names: Vec<&str> = kinds.iter().map(|k| k.name).collect();
    let all = names.join(", ");
    if !settings.keys().iter().any(|key| key == "kind") {
        settings.problem("kind", format!("missing: name the platform, one of {all}"));
        return None;
    }
    let word = settings.text("kind")?;
    let kind = kinds.iter().find(|k| k.name == word);
    if kind.is_none() {
        let hint = closest(&word, names.iter().copied()).map(|n| format!("; did you mean \"{n}\"?")).unwrap_or_default();
        settings.problem("kind", format!("\"{}\" is not one of {all}{hint}", word.escape_debug()));
    }
    kind
}

/// Build the adapter over its own keys. The shared ones are made known to it, so that `warehous` is told from `warehouse`.
fn build(
    kind: &Kind,
    path: &str,
    own: &Map<String, Value>,
    shared_keys: &[String],
    found: &mut Findings,
) -> Arc<dyn Source> {
    let mut settings = Settings::new(path, own.clone());
    for key in shared_keys {
        settings.value(key);
    }
    let adapter = (kind.build)(&mut settings);
    found.absorb(settings.finish());
    Arc::from(adapter)
}

/// The default warehouse and the mapped locations.
fn places(
    settings: &mut Settings,
    path: &str,
    found: &mut Findings,
) -> (Option<WarehouseId>, BTreeMap<String, WarehouseId>) {
    let given = settings.keys();
    let warehouse = settings.text("warehouse").and_then(|text| {
        let id = WarehouseId::new(&text);
        id.map_err(|why| settings.problem("warehouse", why.to_string())).ok()
    });
    let mut locations = BTreeMap::new();
    let mapped = settings.text_map("locations").unwrap_or_default();
    for (location, name) in &mapped {
        let key = format!("locations.{location}");
        let id = if location == ANY_LOCATION { Ok(location.as_str()) } else { items::item_id(location) };
        match (id, WarehouseId::new(name)) {
            (Ok(id), Ok(warehouse)) => drop(locations.insert(id.to_owned(), warehouse)),
            (Err(why), _) => settings.problem(&key, why),
            (_, Err(why)) => settings.problem(&key, why.to_string()),
        }
    }
    let says_where = given.iter().any(|key| key == "warehouse") || !mapped.is_empty();
    if !says_where && !given.iter().any(|key| key == "locations") {
        found.problem(
            path,
            "does not say where its stock lies: set warehouse = \"main\" when it is all in one place, or map the platform's \
             locations with locations = { \"<id>\" = \"main\" }",
        );
    } else if !says_where {
        settings.problem("locations", "maps nothing: name a location, or set warehouse = \"main\"");
    }
    (warehouse, locations)
}

/// `items` over `items_file`; one item may not be two SKUs.
fn item_map(settings: &mut Settings, context: &Context<'_>, found: &mut Findings) -> Arc<ItemMap> {
    let mut items = settings.text("items_file").map(|file| items_file(settings, &file, context, found)).unwrap_or_default();
    for (item, sku) in settings.text_map("items").unwrap_or_default() {
        let key = format!("items.{item}");
        match (items::item_id(&item), Sku::check(&sku)) {
            (Ok(id), Ok(sku)) => match items.insert(id, sku) {
                Ok(()) => {}
                Err(NotMapped::Already(other)) => {
                    settings.problem(&key, format!("is `{sku}` here and `{other}` in items_file: keep one"));
                }
                Err(other) => settings.problem(&key, items::not_mapped(id, sku, &other)),
            },
            (Err(why), _) => settings.problem(&key, why),
            (_, Err(why)) => settings.problem(&key, why.to_string()),
        }
    }
    if items.len() > limits::ITEMS_CONFIGURED_MAX {
        let message = format!(
            "maps {} items, more than the {} that a configuration takes: use `stockgate map import`",
            items.len(),
            limits::ITEMS_CONFIGURED_MAX
        );
        settings.problem("items_file", message);
    }
    Arc::new(items.finish())
}

fn items_file(settings: &mut Settings, file: &str, context: &Context<'_>, found: &mut Findings) -> ItemMapBuilder {
    let path = context.base_dir.join(file);
    let shown = path.display().to_string();
    let cannot = |why: String| format!("{shown} cannot be read: {why}");
    let opened = match open_capped(&path, limits::ITEMS_FILE_MAX_BYTES) {
        Ok(opened) => opened,
        Err(why) => {
            settings.problem("items_file", cannot(why));
            return ItemMapBuilder::default();
        }
    };
    let room = usize::try_from(opened.bytes).unwrap_or(0);
    match items::read_items(BufReader::new(opened), ItemMapBuilder::with_room(room)) {
        Ok(items) => items,
        Err(BadItems::Unreadable(why)) => {
            settings.problem("items_file", cannot(why));
            ItemMapBuilder::default()
        }
        Err(BadItems::Rows(rows)) => {
            for row in rows {
                found.elsewhere(Located {
                    file: shown.clone(),
                    line: Some(row.line),
                    path: String::new(),
                    message: row.message,
                });
            }
            ItemMapBuilder::default()
        }
    }
}

fn check_secrets(settings: &mut Settings, held: &[Held], found: &mut Findings) {
    if held.len() > limits::SECRETS_MAX {
        let message = format!("{} secrets are too many: at most {} at a time", held.len(), limits::SECRETS_MAX);
        // The key of a list, without the index of its element.
        let key = held.first().and_then(|one| one.key.split('[').next()).unwrap_or("secret_files");
        settings.problem(key, message);
    }
    for one in held.iter().filter(|one| one.secret.expose().len() < limits::SECRET_SHORT_BYTES) {
        let message = format!("the secret from {} is shorter than {} bytes", one.from, limits::SECRET_SHORT_BYTES);
        found.warning(&settings.path_of(&one.key), message);
    }
}

/// The path token, when there is one that can be used.
fn token(settings: &mut Settings, context: &Context<'_>, found: &mut Findings) -> Option<Secret> {
    let held = secret::read(settings, "token", Many::One, context, found)?.into_iter().next()?;
    let bytes = held.secret.expose();
    if bytes.len() < limits::TOKEN_MIN_BYTES || bytes.len() > limits::NAME_MAX_BYTES {
        let (least, most) = (limits::TOKEN_MIN_BYTES, limits::NAME_MAX_BYTES);
        settings.problem(&held.key, format!("the token has {} characters: it must have {least} to {most}", bytes.len()));
    } else if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(b)) {
        settings
            .problem(&held.key, "the token is a path segment: only letters, digits, `-`, `.`, `_` and `~` can stand in it");
    }
    Some(held.secret)
}

/// What a source is trusted by.
struct Trust {
    secret: bool,
    token: bool,
    allow: bool,
    clients: bool,
}

fn check_trust(kind: &Kind, adapter: &dyn Source, trust: &Trust, path: &str, found: &mut Findings) {
    let name = kind.name;
    match (adapter.signed(), trust) {
        (true, Trust { secret: false, .. }) => found.problem(
            path,
            format!(
                "{name} signs what it sends, and there is no secret to check it with: set secret_file (a file that holds the \
                 secret) or secret_env"
            ),
        ),
        (false, Trust { token: false, allow: false, clients: false, .. }) => found.problem(
            path,
            format!(
                "{name} does not sign what it sends: set token_file (a file that holds a secret path of at least {} characters), \
                 allow (the addresses it sends from) or client_ca_file (the authority of its certificate)",
                limits::TOKEN_MIN_BYTES
            ),
        ),
        (false, Trust { token: false, clients: false, .. }) => found.warning(
            path,
            format!("{name} does not sign what it sends: set token_file too, an address alone can be shared or forged"),
        ),
        _ => {}
    }
    if !adapter.signed() && trust.secret {
        found.warning(path, format!("has a secret, but {name} does not sign what it sends: it is not used"));
    }
}
