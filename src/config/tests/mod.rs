//! The configuration as its users meet it: files in, messages and a checked configuration out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::{Checked, Inputs, Loaded, Located, Overrides, Report, parse};
use crate::sources::{ApiProfile, Kind, Refusal, Source};
use crate::types::{Identity, Message, Observation, Secret, Settings, Unreadable};

mod access;
mod documentation;
mod drop_ins;
mod mistakes;
mod secrets;
mod whole;

/// Platforms that exist in these tests only.
const KINDS: &[Kind] = &[
    Kind { name: "asking", about: "signs, and has an API without a common host", build: |s| build(s, true, Some(&SHOPS)) },
    Kind { name: "hosted", about: "signs nothing, and has an API at one host", build: |s| build(s, false, Some(&HOSTED)) },
    Kind { name: "signed", about: "signs", build: |s| build(s, true, None) },
    Kind { name: "unsigned", about: "signs nothing", build: |s| build(s, false, None) },
];

const SHOPS: ApiProfile = ApiProfile {
    base_url: None,
    requests: 30,
    per: Duration::from_secs(60),
    gather: Duration::from_secs(2),
    credentials: &["token", "app_id"],
};
const HOSTED: ApiProfile = ApiProfile { base_url: Some("https://api.example.com"), credentials: &["token"], ..SHOPS };

struct Fake {
    signed: bool,
    horizon: Duration,
    api: Option<&'static ApiProfile>,
}

fn build(settings: &mut Settings, signed: bool, api: Option<&'static ApiProfile>) -> Box<dyn Source> {
    let horizon = settings.duration("tolerance").unwrap_or(Duration::from_secs(48 * 3600));
    settings.list("topics");
    if let Some(mut map) = settings.table("map") {
        map.text("sku");
        settings.absorb(map.finish());
    }
    Box::new(Fake { signed, horizon, api })
}

impl Source for Fake {
    fn signed(&self) -> bool {
        self.signed
    }

    fn horizon(&self) -> Duration {
        self.horizon
    }

    fn kept_headers(&self) -> Vec<String> {
        Vec::new()
    }

    fn authenticate(&self, _: &Message<'_>, _: &[Secret]) -> Result<usize, Refusal> {
        Err(Refusal::Unsigned)
    }

    fn identify(&self, _: &Message<'_>) -> Identity {
        Identity::Content
    }

    fn parse(&self, _: &Message<'_>) -> Result<Vec<Observation>, Unreadable> {
        Ok(Vec::new())
    }

    fn api(&self) -> Option<ApiProfile> {
        self.api.cloned()
    }
}

/// A secret that is good for every purpose, in the environment of these tests as `GOOD`.
const GOOD: &str = "correct-horse-battery-staple";

fn environment(more: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
    let mut variables = BTreeMap::from([("GOOD".to_owned(), GOOD.to_owned())]);
    variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    move |name| variables.get(name).cloned()
}

fn parse_in(text: &str, base_dir: &Path, env: &[(&str, &str)]) -> Result<Loaded, Report> {
    let overrides = Overrides::default();
    parse(text, "stockgate.toml", base_dir, &Inputs { kinds: KINDS, overrides: &overrides, env: &environment(env) })
}

fn checked(text: &str) -> Checked {
    parse_in(text, Path::new("/nonexistent"), &[]).unwrap_or_else(|report| panic!("{report}")).0
}

fn lines(located: &[Located]) -> Vec<String> {
    located.iter().map(ToString::to_string).collect()
}

/// What is wrong with a text, as a user reads it.
fn problems(text: &str) -> Vec<String> {
    lines(&parse_in(text, Path::new("/nonexistent"), &[]).expect_err("has problems").problems)
}

/// What a good text is warned about.
fn warnings(text: &str) -> Vec<String> {
    lines(&parse_in(text, Path::new("/nonexistent"), &[]).unwrap_or_else(|report| panic!("{report}")).1)
}
