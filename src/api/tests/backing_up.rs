//! Pages for a backup.

use super::*;
use crate::limits::BACKUP_IDLE;
use crate::store::backup::{Row, decode_log, decode_rows};
use crate::store::codec::Writer;

impl World {
    fn checkpoint(&self) {
        let mut state = self.state.write().expect("not poisoned");
        state.checkpoint().expect("writes");
    }

    async fn begin(&self) -> Json {
        let answer = self.post("/api/v1/backup", "").await;
        assert_eq!(answer.status, 200);
        answer.json()
    }

    async fn tables(&self, backup: &str, after: Option<&Row>) -> Answered {
        let after = after.map_or(String::new(), |row| {
            let mut w = Writer::default();
            w.text(&row.table).raw(&row.key);
            format!("&after={}", params::cursor_text(&w.finish()))
        });
        self.get(&format!("/api/v1/backup/tables?backup={backup}{after}")).await
    }

    async fn all_tables(&self, backup: &str) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let page = self.tables(backup, rows.last()).await;
            assert_eq!(page.status, 200, "{}", page.text());
            let page = decode_rows(&page.body).expect("frames");
            if page.is_empty() {
                return rows;
            }
            rows.extend(page);
        }
    }
}

#[tokio::test]
async fn tables_are_of_one_moment_however_the_state_goes_on() {
    let world = World::new();
    for seq in 1..=3 {
        world.say("shop", "main", &format!("A-{seq}"), count("5"), seq);
    }
    world.checkpoint();
    let begun = world.begin().await;
    assert_eq!((begun["cursor"].as_u64(), begun["ledger"].as_u64()), (Some(3), Some(3)));
    let id = begun["backup"].as_str().expect("an id").to_owned();
    let first = decode_rows(&world.tables(&id, None).await.body).expect("frames");
    for seq in 4..=9 {
        world.say("shop", "main", &format!("A-{seq}"), count("6"), seq);
        world.checkpoint();
    }
    let again = decode_rows(&world.tables(&id, None).await.body).expect("frames");
    assert_eq!(first, again);
    let rows = world.all_tables(&id).await;
    assert_eq!(rows.iter().filter(|row| row.table == "positions").count(), 3);
    assert!(rows.iter().all(|row| row.table != "audit" && row.table != "ignored"), "logs are apart");
    // the end has come: nothing is held any more
    assert_eq!(world.tables(&id, None).await.status, 410);
    // a log shows all that is on disk
    let audit = decode_log(&world.get("/api/v1/backup/log/audit?from=2").await.body).expect("frames");
    assert_eq!(audit.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (2..=9).collect::<Vec<_>>());
    assert!(world.get("/api/v1/backup/log/audit?from=10").await.body.is_empty());
}

#[tokio::test]
async fn a_page_is_bounded_and_the_next_goes_on_behind_it() {
    let world = World::new();
    let id = world.bury("shop", Cause::Unreadable, &vec![b'x'; 400_000]);
    for _ in 0..4 {
        world.bury("shop", Cause::Unreadable, &vec![b'y'; 400_000]);
    }
    world.checkpoint();
    let begun = world.begin().await;
    let backup = begun["backup"].as_str().expect("an id");
    let page = world.tables(backup, None).await;
    assert!((400_000..1_300_000).contains(&page.body.len()), "{}", page.body.len());
    let letters = world.all_tables(backup).await.into_iter().filter(|row| row.table == "dead-letters");
    let ids: Vec<Vec<u8>> = letters.map(|row| row.key).collect();
    assert_eq!(ids, (id..id + 5).map(|id| id.to_be_bytes().to_vec()).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_abandoned_backup_ends_and_a_new_one_takes_its_place() {
    let world = World::new();
    world.checkpoint();
    let old = world.begin().await["backup"].as_str().expect("an id").to_owned();
    assert_eq!(world.tables(&old, None).await.status, 200);
    let new = world.begin().await["backup"].as_str().expect("an id").to_owned();
    let gone = world.tables(&old, None).await;
    assert_eq!(gone.status, 410);
    assert!(gone.detail().contains("begin a new one"));
    world.api.shared.backup.expire(time::instant() + BACKUP_IDLE / 2);
    assert_eq!(world.tables(&new, None).await.status, 200);
    world.api.shared.backup.expire(time::instant() + BACKUP_IDLE * 2);
    assert_eq!(world.tables(&new, None).await.status, 410);
}

#[tokio::test]
async fn what_is_asked_wrongly_is_said() {
    let world = World::new();
    let backup = world.begin().await["backup"].as_str().expect("an id").to_owned();
    assert_eq!(world.get("/api/v1/backup/log/secrets").await.status, 404);
    assert_eq!(world.get("/api/v1/backup/log/audit?from=x").await.status, 400);
    assert_eq!(world.get("/api/v1/backup/tables?backup=1").await.status, 410);
    let odd = Row { table: "none".to_owned(), key: Vec::new(), value: Vec::new() };
    assert_eq!(world.tables(&backup, Some(&odd)).await.status, 400);
    let odd = Row { table: "audit".to_owned(), ..odd };
    assert_eq!(world.tables(&backup, Some(&odd)).await.status, 400, "a log is no table here");
}
