//! Each serving role, in every scope it can have or forge, tries to read, change, remove and make a
//! neighbour's rows in every table.

use shared::id;
use shared::store::ServingRole;
use shared::testing::{Refused, Session, TestEnv};
use uuid::Uuid;

use crate::common::World;

const DENIED: &str = "42501";

/// In whose name the session believes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Nobody was ever named.
    Unset,
    /// Somebody was named in an earlier transaction: the setting now reads as ''.
    Emptied,
    /// The neighbour of the neighbour.
    Own,
    /// The same, and the sweeps' setting as well.
    OwnAndSweep,
    /// Nobody, and the sweeps' setting.
    Sweep,
}

impl Scope {
    const ALL: [Self; 5] = [
        Self::Unset,
        Self::Emptied,
        Self::Own,
        Self::OwnAndSweep,
        Self::Sweep,
    ];

    async fn enter(self, session: &mut Session, user: Uuid) {
        let name = format!("SELECT set_config('app.current_user_id', '{user}', false)");
        let statements = match self {
            Self::Unset => String::new(),
            Self::Emptied => {
                format!(
                    "BEGIN; SELECT set_config('app.current_user_id', '{user}', true); SET LOCAL app.sweep = 'on'; COMMIT"
                )
            }
            Self::Own => name,
            Self::OwnAndSweep => format!("{name}; SET app.sweep = 'on'"),
            Self::Sweep => "SET app.sweep = 'on'".to_owned(),
        };
        session.run(&statements).await.unwrap();
    }

    fn has_own_rows(self) -> bool {
        matches!(self, Self::Own | Self::OwnAndSweep)
    }

    fn sweeps(self) -> bool {
        matches!(self, Self::Sweep | Self::OwnAndSweep)
    }
}

/// A person with a row in every table.
struct Person {
    id: Uuid,
}

/// The tables that hold people's rows and are not partitions.
async fn tables(env: &TestEnv) -> Vec<String> {
    let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'chat' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                 AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'user_id')
               ORDER BY 1";
    let rows = env.session().await.rows(sql).await.unwrap();
    rows.into_iter()
        .map(|mut row| row.remove(0).unwrap())
        .collect()
}

/// Somebody with one row in each table, made by superuser.
async fn person(world: &World) -> Person {
    let id = Uuid::new_v4();
    let conversation = world.conversation_of(id).await;
    let sent = world
        .send_as(id, &crate::common::text(conversation, "mine"))
        .await;
    let (message, generation) = (sent.message.id, sent.generation.id);
    let new = || id::new(world.clock.now());
    world
        .execute(&format!(
            "INSERT INTO chat.attempts (id, user_id, generation_id, attempt, operation, key_label, model_asked, started_at)
                VALUES ('{}', '{id}', '{generation}', 1, 'completion', 'key', 'model', now());
             INSERT INTO chat.usage_tracking (id, user_id, operation, model, prompt_tokens, completion_tokens,
                                              is_free_model, processing_time_ms)
                VALUES ('{}', '{id}', 'completion', 'model', 1, 1, true, 1);
             INSERT INTO chat.idempotency_keys (user_id, key, fingerprint, status, body)
                VALUES ('{id}', 'key', '\\x00', 200, '{{}}');
             INSERT INTO chat.feedback (message_id, user_id, rating) VALUES ('{message}', '{id}', 'up');
             INSERT INTO chat.audit_log (id, actor, action, subject, user_id)
                VALUES ('{}', 'somebody', 'dead_letter.discard', '{generation}', '{id}');
             INSERT INTO chat.notifications (id, destination, user_id, conversation_id, generation_id, type, occurred_at)
                VALUES ('{}', 'http', '{id}', '{conversation}', '{generation}', 'chat.generation.failed', now());
             INSERT INTO chat.cost_questions (call_id, user_id, upstream_id) VALUES ('{}', '{id}', 'upstream');
             INSERT INTO chat.budget_users (user_id, period, starts_on) VALUES ('{id}', 'day', current_date - (random() * 100000)::integer);
             INSERT INTO chat.budget_reservations (generation_id, user_id, credits, day, month)
                VALUES ('{generation}', '{id}', 1, current_date, current_date);
             INSERT INTO chat.conversation_summaries (conversation_id, version, user_id, up_to, content, token_count, model)
                VALUES ('{conversation}', 1, '{id}', '{message}', 'notes of the neighbour', 1, 'model');
             INSERT INTO chat.assessments (id, user_id, conversation_id) VALUES ('{}', '{id}', '{conversation}');
             INSERT INTO chat.inbound_events (user_id, event_id, assessment_id, type)
                VALUES ('{id}', 'event', '{conversation}', 'analysis_complete');
             INSERT INTO chat.support_questions (message_id, user_id, conversation_id, generation_id, question, intent, answered)
                VALUES ('{message}', '{id}', '{conversation}', '{generation}', 'words of the neighbour', 'general_inquiry', false);
             INSERT INTO chat.knowledge_proposals (id, user_id, conversation_id, issue, solution, resolution)
                VALUES ('{}', '{id}', '{conversation}', 'asked', 'answered', 'resolved')",
            new(),
            new(),
            new(),
            new(),
            new(),
            new(),
            new(),
        ))
        .await;
    Person { id }
}

/// What a statement did, undone at once.
async fn tried(session: &mut Session, sql: &str) -> Result<u64, Refused> {
    session.run("BEGIN").await.unwrap();
    let done = session.run(sql).await;
    session.run("ROLLBACK").await.unwrap();
    done
}

/// The statement that makes a row like the person's own under another key.
async fn insert_like(superuser: &mut Session, table: &str, person: &Person) -> String {
    let sql = format!(
        "SELECT to_jsonb(t)::text FROM chat.{table} t WHERE user_id = '{}'",
        person.id
    );
    let rows = superuser.rows(&sql).await.unwrap();
    let [[Some(row)]] = rows.iter().map(Vec::as_slice).collect::<Vec<_>>()[..] else {
        panic!("seed one row of {table} in `person`");
    };
    let id = id::new(shared::clock::Clock::system().now());
    format!(
        "INSERT INTO chat.{table} SELECT * FROM jsonb_populate_record(NULL::chat.{table},
           '{}'::jsonb || '{{\"id\": \"{id}\", \"message_id\": \"{id}\", \"key\": \"another\", \"event_id\": \"another\",
                                \"call_id\": \"{id}\", \"generation_id\": \"{id}\", \"starts_on\": \"2020-01-01\",
                                \"version\": 2}}')",
        row.replace('\'', "''")
    )
}

/// The ways in, each with what is asked of the neighbour's row.
async fn ways_in(
    superuser: &mut Session,
    table: &str,
    me: &Person,
    neighbour: &Person,
) -> Vec<(&'static str, String)> {
    let theirs = format!("WHERE user_id = '{}'", neighbour.id);
    vec![
        ("SELECT", format!("SELECT FROM chat.{table} {theirs}")),
        (
            "SELECT",
            format!("SELECT FROM chat.{table} {theirs} FOR UPDATE"),
        ),
        (
            "UPDATE",
            format!("UPDATE chat.{table} SET user_id = user_id {theirs}"),
        ),
        (
            "UPDATE",
            format!("UPDATE chat.{table} SET user_id = '{}' {theirs}", me.id),
        ),
        ("DELETE", format!("DELETE FROM chat.{table} {theirs}")),
        ("INSERT", insert_like(superuser, table, neighbour).await),
        // To give one's own row away is to make a neighbour's.
        (
            "GIVE",
            format!(
                "UPDATE chat.{table} SET user_id = '{}' WHERE user_id = '{}'",
                neighbour.id, me.id
            ),
        ),
    ]
}

#[tokio::test]
async fn nobody_reaches_a_neighbours_rows() {
    let world = World::new().await;
    let (me, neighbour) = (person(&world).await, person(&world).await);
    let mut superuser = world.env.session().await;
    let mut attempts = Vec::new();
    for table in tables(&world.env).await {
        for (verb, sql) in ways_in(&mut superuser, &table, &me, &neighbour).await {
            attempts.push((format!("{table} {verb}"), sql));
        }
    }
    let mut through = Vec::new();
    for role in [ServingRole::Api, ServingRole::Worker] {
        for scope in Scope::ALL {
            let mut session = world.env.session_as(role).await;
            scope.enter(&mut session, me.id).await;
            for (what, sql) in &attempts {
                match tried(&mut session, sql).await {
                    Ok(0) => {}
                    Ok(_) if role == ServingRole::Worker && scope.sweeps() => through.push(what),
                    Ok(rows) => panic!("{role:?} as {scope:?} reached {rows} rows: {sql}"),
                    Err(refused) => {
                        assert_eq!(
                            refused.code, DENIED,
                            "{role:?} as {scope:?}: {sql}: {refused:?}"
                        );
                    }
                }
            }
        }
    }
    // What the worker's sweeps are for, and nothing else.
    through.sort();
    through.dedup();
    assert_eq!(
        through,
        [
            "assessments DELETE",
            "assessments GIVE",
            "assessments SELECT",
            "assessments UPDATE",
            "attempts GIVE",
            "attempts INSERT",
            "attempts SELECT",
            "attempts UPDATE",
            "budget_reservations DELETE",
            "budget_reservations INSERT",
            "budget_reservations SELECT",
            "budget_users DELETE",
            "budget_users GIVE",
            "budget_users INSERT",
            "budget_users SELECT",
            "budget_users UPDATE",
            "conversation_summaries DELETE",
            "conversation_summaries SELECT",
            "conversations DELETE",
            "conversations GIVE",
            "conversations SELECT",
            "conversations UPDATE",
            "cost_questions DELETE",
            "cost_questions GIVE",
            "cost_questions INSERT",
            "cost_questions SELECT",
            "cost_questions UPDATE",
            "generations DELETE",
            "generations GIVE",
            "generations INSERT",
            "generations SELECT",
            "generations UPDATE",
            "idempotency_keys DELETE",
            "idempotency_keys SELECT",
            "inbound_events DELETE",
            "inbound_events SELECT",
            "knowledge_proposals DELETE",
            "knowledge_proposals SELECT",
            "messages GIVE",
            "messages INSERT",
            "messages SELECT",
            "messages UPDATE",
            "notifications DELETE",
            "notifications GIVE",
            "notifications INSERT",
            "notifications SELECT",
            "notifications UPDATE",
            "support_questions DELETE",
            "support_questions GIVE",
            "support_questions SELECT",
            "support_questions UPDATE",
            "usage_tracking GIVE",
            "usage_tracking INSERT",
            "usage_tracking SELECT",
            "usage_tracking UPDATE",
        ]
    );
}

/// An operator sees whose work there is and how it fares, and nothing that anybody wrote.
#[tokio::test]
async fn an_operator_sees_the_work_and_not_the_words() {
    let world = World::new().await;
    let (me, neighbour) = (person(&world).await, person(&world).await);
    let mut superuser = world.env.session().await;
    let mut session = world.env.session_as(ServingRole::Operator).await;
    Scope::OwnAndSweep.enter(&mut session, me.id).await;
    let mut through = Vec::new();
    for table in tables(&world.env).await {
        for (verb, sql) in ways_in(&mut superuser, &table, &me, &neighbour).await {
            match tried(&mut session, &sql).await {
                Ok(0) => {}
                Ok(_) => through.push(format!("{table} {verb}")),
                Err(refused) => assert_eq!(refused.code, DENIED, "{sql}: {refused:?}"),
            }
        }
    }
    assert_eq!(
        through,
        [
            "audit_log SELECT",
            "generations SELECT",
            "notifications SELECT",
            "usage_tracking SELECT"
        ]
    );
    for column in ["partial_content", "usage", "claim_token", "*"] {
        let refused = session
            .run(&format!("SELECT {column} FROM chat.generations"))
            .await
            .unwrap_err();
        assert_eq!(refused.code, DENIED, "{column}");
    }
}

/// Whoever keeps the knowledge base reads what it did not answer and what was proposed, and nothing else.
#[tokio::test]
async fn an_editor_sees_what_was_not_answered_and_nothing_else() {
    let world = World::new().await;
    let (me, neighbour) = (person(&world).await, person(&world).await);
    let mut superuser = world.env.session().await;
    let mut attempts = Vec::new();
    for table in tables(&world.env).await {
        for (verb, sql) in ways_in(&mut superuser, &table, &me, &neighbour).await {
            attempts.push((format!("{table} {verb}"), sql));
        }
    }
    for (role, expected) in [
        (
            ServingRole::Api,
            &["knowledge_proposals SELECT", "support_questions SELECT"][..],
        ),
        (ServingRole::Worker, &[]),
        (
            ServingRole::Operator,
            &[
                "audit_log SELECT",
                "generations SELECT",
                "notifications SELECT",
                "usage_tracking SELECT",
            ],
        ),
    ] {
        let mut session = world.env.session_as(role).await;
        Scope::Own.enter(&mut session, me.id).await;
        session.run("SET app.editor = 'on'").await.unwrap();
        let mut through = Vec::new();
        for (what, sql) in &attempts {
            match tried(&mut session, sql).await {
                Ok(0) => {}
                Ok(_) => through.push(what.as_str()),
                Err(refused) => assert_eq!(refused.code, DENIED, "{role:?}: {sql}: {refused:?}"),
            }
        }
        through.dedup();
        assert_eq!(through, expected, "{role:?}");
    }
}

/// The same statements reach one's own rows: what stops them above is whose the rows are.
#[tokio::test]
async fn everybody_reaches_their_own() {
    let world = World::new().await;
    let me = person(&world).await;
    let mut superuser = world.env.session().await;
    let tables = tables(&world.env).await;
    for role in [ServingRole::Api, ServingRole::Worker] {
        for scope in Scope::ALL {
            if role == ServingRole::Worker && scope == Scope::Sweep {
                continue;
            }
            let mut session = world.env.session_as(role).await;
            scope.enter(&mut session, me.id).await;
            for table in &tables {
                let own = u64::from(scope.has_own_rows());
                let mine = format!("WHERE user_id = '{}'", me.id);
                for (verb, sql) in [
                    ("SELECT", format!("SELECT FROM chat.{table} {mine}")),
                    (
                        "UPDATE",
                        format!("UPDATE chat.{table} SET user_id = user_id {mine}"),
                    ),
                    ("INSERT", insert_like(&mut superuser, table, &me).await),
                ] {
                    let granted =
                        format!("SELECT has_table_privilege('chat.{table}', '{verb}')::text");
                    let granted = session.rows(&granted).await.unwrap();
                    let expected = match (granted[0][0].as_deref(), verb) {
                        (Some("true"), "INSERT") if own == 0 => Err(DENIED.to_owned()),
                        (Some("true"), _) => Ok(own),
                        _ => Err(DENIED.to_owned()),
                    };
                    let done = tried(&mut session, &sql)
                        .await
                        .map_err(|refused| refused.code);
                    assert_eq!(done, expected, "{role:?} as {scope:?}: {sql}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_name_that_is_nobodys_is_an_error_and_not_everybody() {
    let world = World::new().await;
    person(&world).await;
    let mut session = world.env.session_as(ServingRole::Api).await;
    session
        .run("SET app.current_user_id = '* OR 1=1'")
        .await
        .unwrap();
    let refused = session.run("SELECT FROM chat.messages").await.unwrap_err();
    assert_eq!(refused.code, "22P02", "{refused:?}");
}

#[tokio::test]
async fn a_partition_gives_nothing_even_to_those_who_may_read_it() {
    let world = World::new().await;
    let me = person(&world).await;
    let partitions =
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                      WHERE n.nspname = 'chat' AND c.relispartition AND c.relkind = 'r' ORDER BY 1";
    let partitions = world.env.session().await.rows(partitions).await.unwrap();
    assert!(partitions.len() > 3);
    for role in [ServingRole::Api, ServingRole::Worker] {
        let mut session = world.env.session_as(role).await;
        Scope::OwnAndSweep.enter(&mut session, me.id).await;
        for partition in partitions.iter().map(|row| row[0].as_deref().unwrap()) {
            let refused = session
                .run(&format!("SELECT FROM {partition}"))
                .await
                .unwrap_err();
            assert_eq!(refused.code, DENIED, "{role:?} {partition}");
        }
    }
    // A grant too many is not enough.
    world
        .execute(
            "GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA chat TO balas_api, balas_worker",
        )
        .await;
    for role in [ServingRole::Api, ServingRole::Worker] {
        let mut session = world.env.session_as(role).await;
        Scope::OwnAndSweep.enter(&mut session, me.id).await;
        for partition in partitions.iter().map(|row| row[0].as_deref().unwrap()) {
            for statement in ["SELECT FROM", "UPDATE", "DELETE FROM"] {
                let set = if statement == "UPDATE" {
                    "SET user_id = user_id"
                } else {
                    ""
                };
                let reached = tried(&mut session, &format!("{statement} {partition} {set}")).await;
                assert_eq!(reached, Ok(0), "{role:?} {statement} {partition}");
            }
        }
    }
    let rows = "SELECT (SELECT count(*) FROM chat.messages) + (SELECT count(*) FROM chat.attempts)
                     + (SELECT count(*) FROM chat.usage_tracking)";
    assert_eq!(world.value(rows).await, "3", "there was something to find");
}

/// An upsert must not update the row it ran into.
#[tokio::test]
async fn an_upsert_does_not_reach_the_row_it_runs_into() {
    let world = World::new().await;
    let (me, neighbour) = (person(&world).await, person(&world).await);
    let message = format!(
        "SELECT message_id FROM chat.feedback WHERE user_id = '{}'",
        neighbour.id
    );
    let message = world.value(&message).await;
    let mut tx = world.api.user(me.id).await.unwrap();
    let stored =
        shared::store::feedback::put(&mut tx, message.parse().unwrap(), false, Some("mine now"))
            .await;
    assert!(stored.is_err(), "the neighbour's rating was overwritten");
    drop(tx);
    let rating = format!(
        "SELECT rating || COALESCE(comment, '') FROM chat.feedback WHERE message_id = '{message}'"
    );
    assert_eq!(world.value(&rating).await, "up");
}
