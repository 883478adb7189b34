//! Carries out fetch tasks: asks the platforms' APIs and appends the answers to the journal.
//!
//! One worker a source, one request at a time, within the source's rate budget, to the configured host only. The task stands
//! in the state until an answer whose request was sent after the newest notification has been folded; so a crash, a lost
//! answer or a notification in between just means that it is asked again. A task is given up only when the platform says
//! that it never will be answered; everything else is tried again, at ever longer intervals, for as long as it takes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use tokio::sync::watch;

use crate::limits::{FETCH_LOOK_PAUSE, FETCH_PAGES_MAX};
use crate::metrics;
use crate::net::client::{Answer, BaseUrl, Client};
use crate::retry::{backoff, budget::Budget};
use crate::sources::{ApiAnswer, Credentials, Source, Verdict};
use crate::store::codec::encode_record;
use crate::store::journal::{Appender, Journal};
use crate::store::rows::FetchTask;
use crate::store::state::SharedState;
use crate::time::{self, Timestamp};
use crate::types::{FetchFailed, Fetched, Need, Record, RecordBody, Seq};

/// How often to look for due tasks when nothing says that there are new ones.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a worker needs to know of its source.
pub struct FetchSource {
    /// Its name.
    pub name: String,
    /// Its adapter.
    pub adapter: Arc<dyn Source>,
    /// The API's base.
    pub base: BaseUrl,
    /// The client that trusts that host.
    pub client: Client,
    /// The credentials of the moment (an access token may be renewed in its file).
    pub credentials: Box<dyn Fn() -> Credentials + Send + Sync>,
    /// Requests allowed per window.
    pub requests: u32,
    /// The window.
    pub per: Duration,
    /// How long to gather notifications of one resource before asking once.
    pub gather: Duration,
}

/// What became of an attempt.
enum Attempt {
    /// Answers are in the journal; they cover notifications up to here.
    Answered(Seq),
    /// Try again, no sooner than asked.
    Later(Option<Duration>),
}

/// What the worker remembers of a task between attempts. Not in the store: after a restart it just asks again.
#[derive(Default)]
struct Progress {
    failures: u32,
    not_before: Timestamp,
    answered: Seq,
}

/// One source's worker.
pub struct Fetcher {
    source: FetchSource,
    state: SharedState,
    journal: Journal,
    appender: Appender,
    budget: Budget,
    progress: HashMap<Box<str>, Progress>,
}

impl Fetcher {
    /// A worker.
    pub fn new(source: FetchSource, state: SharedState, journal: Journal, appender: Appender) -> Self {
        let budget = Budget::new(source.requests, source.per);
        metrics::fetches_begin(&source.name);
        Self { source, state, journal, appender, budget, progress: HashMap::new() }
    }

    /// Work until told to stop. `folded` changes whenever there may be new tasks.
    pub async fn run(mut self, mut folded: watch::Receiver<Seq>, mut stop: watch::Receiver<bool>) {
        loop {
            for task in self.due() {
                tokio::select! {
                    () = self.carry_out(&task) => {}
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
            tokio::time::sleep(FETCH_LOOK_PAUSE).await;
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                changed = folded.changed() => if changed.is_err() { return },
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Tasks that may be carried out now, oldest first.
    fn due(&mut self) -> Vec<FetchTask> {
        let now = time::now();
        let mut due: Vec<FetchTask> = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let Some(number) = state.find_source(&self.source.name) else { return Vec::new() };
            let from = (number, Box::from(""));
            state.tasks().range(from..).take_while(|((source, _), _)| *source == number).map(|(_, t)| t.clone()).collect()
        };
        self.progress.retain(|key, _| due.iter().any(|task| task.need.key == *key));
        due.retain(|task| {
            let progress = self.progress.get(&task.need.key);
            let waiting = progress.is_some_and(|p| p.not_before > now || p.answered >= task.last);
            !waiting && now.since(task.since) >= self.source.gather
        });
        due.sort_by_key(|task| task.first);
        due
    }

    async fn carry_out(&mut self, task: &FetchTask) {
        let key = task.need.key.clone();
        // the tasks before it took their time: this one may be done, or its window may have grown
        let Some(task) = self.as_it_is_now(&key) else { return };
        match self.attempt(&task.need).await {
            Attempt::Answered(answers) => {
                self.progress.insert(key, Progress { answered: answers, ..Progress::default() });
            }
            Attempt::Later(asked) => {
                let progress = self.progress.entry(key).or_default();
                progress.failures = progress.failures.saturating_add(1);
                progress.not_before = time::now().plus(backoff::delay(progress.failures, task.first, asked));
                if progress.failures.is_power_of_two() {
                    tracing::warn!(
                        source = self.source.name,
                        resource = %task.need.key,
                        failures = progress.failures,
                        next = %progress.not_before,
                        "the platform's API does not answer yet"
                    );
                }
            }
        }
    }

    fn as_it_is_now(&self, key: &str) -> Option<FetchTask> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let number = state.find_source(&self.source.name)?;
        state.tasks().get(&(number, Box::from(key))).cloned()
    }

    /// Ask for every page of a resource.
    async fn attempt(&mut self, need: &Need) -> Attempt {
        let credentials = (self.source.credentials)();
        let answers = self.journal.head();
        let mut next: Option<String> = None;
        for page in 0..FETCH_PAGES_MAX {
            let Some(request) = self.source.adapter.request(need, next.as_deref(), &credentials) else {
                return self.give_up(need, answers, "the adapter knows no such resource").await;
            };
            self.wait_for_budget().await;
            let sent_at = time::now();
            let mut builder = Request::get(&request.target).header(header::USER_AGENT, "stockgate");
            for (name, value) in &request.headers {
                let Ok(mut value) = header::HeaderValue::from_str(value) else { return Attempt::Later(None) };
                value.set_sensitive(true);
                builder = builder.header(*name, value);
            }
            let Ok(http_request) = builder.body(Bytes::new()) else {
                return self.give_up(need, answers, "the request cannot be spelt as HTTP").await;
            };
            let answer = match self.source.client.send(&self.source.base, http_request).await {
                Ok(answer) => answer,
                Err(error) => {
                    metrics::fetch(&self.source.name, "unreachable");
                    tracing::debug!(source = self.source.name, %error, "api call failed");
                    return Attempt::Later(None);
                }
            };
            match self.judge(need, &answer) {
                Verdict::Done => {
                    metrics::fetch(&self.source.name, "done");
                    return self.keep(need, answers, sent_at, page, true, &answer).await;
                }
                Verdict::Next(token) => {
                    metrics::fetch(&self.source.name, "done");
                    if let later @ Attempt::Later(_) = self.keep(need, answers, sent_at, page, false, &answer).await {
                        return later;
                    }
                    next = Some(token);
                }
                Verdict::Retry(after) => {
                    metrics::fetch(&self.source.name, "retry");
                    tracing::debug!(source = self.source.name, status = answer.status.as_u16(), "api asks to wait");
                    return Attempt::Later(after);
                }
                Verdict::GiveUp(why) => {
                    metrics::fetch(&self.source.name, "failed");
                    return self.give_up(need, answers, &why).await;
                }
            }
        }
        self.give_up(need, answers, "the answer has too many pages").await
    }

    fn judge(&self, need: &Need, answer: &Answer) -> Verdict {
        let seen = ApiAnswer { status: answer.status.as_u16(), headers: &answer.headers, body: &answer.body };
        self.source.adapter.judge(need, &seen, time::now())
    }

    async fn wait_for_budget(&mut self) {
        while let Err(wait) = self.budget.take(time::now()) {
            tokio::time::sleep(wait).await;
        }
    }

    async fn keep(&self, need: &Need, answers: Seq, sent_at: Timestamp, page: u32, last: bool, answer: &Answer) -> Attempt {
        let body = RecordBody::Fetched(Fetched {
            source: &self.source.name,
            need: need.clone(),
            answers,
            sent_at,
            page,
            last,
            body: &answer.body,
        });
        self.append(body, answers).await
    }

    async fn give_up(&self, need: &Need, answers: Seq, cause: &str) -> Attempt {
        tracing::warn!(source = self.source.name, resource = %need.key, cause, "a fetch is given up");
        let body = RecordBody::FetchFailed(FetchFailed { source: &self.source.name, need: need.clone(), answers, cause });
        self.append(body, answers).await
    }

    async fn append(&self, body: RecordBody<'_>, answers: Seq) -> Attempt {
        let bytes = encode_record(&Record { at: time::now(), body });
        let durable = match self.appender.append(bytes) {
            Ok(pending) => pending.durable().await,
            Err(refused) => Err(refused),
        };
        match durable {
            Ok(_) => Attempt::Answered(answers),
            Err(_) => Attempt::Later(None),
        }
    }
}
