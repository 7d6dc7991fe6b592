//! What operators see of a fleet and tell it to do, with and without Redis, and from a terminal.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets something unexpected must fail where it does"
)]

mod common;

use clap::Parser;
use common::{Fleet, is_completed};
use secrecy::ExposeSecret as _;
use shared::budgets::{BudgetsConfig, Reckoning};
use shared::config::Vars;
use shared::domain::{FleetWorker, GenerationStatus, Priority, WorkerStatus};
use shared::models::{ModelsConfig, Prices};
use shared::operator::Operator;
use shared::queue;
use shared::redis::{Redis, RedisConfig};
use shared::store::ServingRole;
use shared::store::audit::Actor;
use uuid::Uuid;
use worker::admin::{Admin, AdminConfig, Outcome};

/// Where nothing listens.
const NOWHERE: &str = "redis://127.0.0.1:1";
const WITHOUT_REDIS: [(&str, &str); 1] = [("REDIS_URL", NOWHERE)];

#[derive(Debug, Parser)]
struct Terminal {
    #[command(flatten)]
    admin: Admin,
}

fn actor() -> Actor {
    Actor {
        name: "a test".to_owned(),
        request_id: None,
    }
}

impl Fleet {
    /// An operator whom Redis does not help.
    fn operator(&self) -> Operator {
        let mut vars = Vars::from_map::<String, String>([]);
        let redis = RedisConfig {
            url: NOWHERE.into(),
            prefix: "nobody".to_owned(),
            authorities: None,
        };
        Operator {
            view: self.env.db(ServingRole::Operator),
            people: self.env.db(ServingRole::Worker),
            redis: Redis::connect_lazy(&redis).unwrap(),
            models: ModelsConfig::from_vars(&mut vars),
            reckoning: Reckoning {
                config: BudgetsConfig::from_vars(&mut vars),
                history_tokens: 6_000,
                prices: Prices::default(),
            },
            clock: self.clock.clone(),
        }
    }

    async fn workers(&self) -> Vec<FleetWorker> {
        self.operator().workers().await.unwrap()
    }

    async fn worker_becomes(&self, name: &str, status: WorkerStatus) -> FleetWorker {
        self.until(async || {
            let workers = self.workers().await;
            workers
                .into_iter()
                .find(|worker| worker.name == name && worker.status == status)
        })
        .await
    }

    /// Commits a message in the standard queue, without a push.
    async fn standard(&self) -> Uuid {
        let conversation = self.conversation().await;
        self.commit(self.user, conversation, "hello").await.0.id
    }

    /// The same with a push.
    async fn pushed(&self) -> Uuid {
        let conversation = self.conversation().await;
        self.send(conversation, "hello").await.id
    }

    /// Commits a message in the premium queue, and waits for its reply.
    async fn premium_passes(&self) {
        let id = self.standard().await;
        let move_up = format!("UPDATE chat.generations SET priority = 'premium' WHERE id = '{id}'");
        self.env.execute(&move_up).await;
        assert!(is_completed(&self.ended(id).await));
    }

    async fn is_untouched(&self, id: Uuid) -> bool {
        let generation = self.generation(id).await;
        generation.status == GenerationStatus::Queued && generation.attempts == 0
    }

    async fn terminal(&self, arguments: &str) -> Outcome {
        let words = ["admin"].into_iter().chain(arguments.split_whitespace());
        let terminal = Terminal::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
        let redis = self.env.redis_config();
        let mut vars = Vars::from_map([
            ("DATABASE_URL", self.env.database_url().to_owned()),
            ("REDIS_URL", redis.url.expose_secret().to_owned()),
            ("REDIS_KEY_PREFIX", redis.prefix.clone()),
            ("USER", "ana".to_owned()),
        ]);
        let config = AdminConfig::from_vars(&mut vars);
        vars.finish().unwrap();
        let outcome = worker::admin::run(config, terminal.admin, self.clock.clone()).await;
        outcome.unwrap()
    }

    /// A dead letter whose message would be answered by now.
    async fn dead_letter(&self) -> Uuid {
        let conversation = self.conversation().await;
        let content = format!("[[sim:moderation,times=1]] what of {conversation}?");
        let sent = self.send(conversation, &content).await;
        let failed = self.ended(sent.id).await;
        assert_eq!(failed.status, GenerationStatus::Failed);
        sent.id
    }
}

fn is_success(outcome: &Outcome) -> bool {
    format!("{:?}", outcome.code) == format!("{:?}", std::process::ExitCode::SUCCESS)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_needs_no_redis_and_survives_a_restart() {
    let fleet = Fleet::new().await;
    let operator = fleet.operator();
    operator
        .pause(Priority::Standard, None, &actor())
        .await
        .unwrap();
    let held = fleet.standard().await;
    let first = fleet.worker_with("w1", &WITHOUT_REDIS);
    fleet.premium_passes().await;
    assert!(fleet.is_untouched(held).await);
    first.kill();
    let _second = fleet.worker_with("w1", &WITHOUT_REDIS);
    fleet.premium_passes().await;
    assert!(fleet.is_untouched(held).await);
    operator.resume(Priority::Standard, &actor()).await.unwrap();
    assert!(is_completed(&fleet.ended(held).await));
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_reaches_a_worker_that_hears_no_broadcast() {
    for settings in [&[][..], &WITHOUT_REDIS] {
        let fleet = Fleet::new().await;
        let _worker = fleet.worker_with("w1", settings);
        assert!(is_completed(&fleet.ended(fleet.pushed().await).await));
        let operator = fleet.operator();
        operator
            .pause(Priority::Standard, None, &actor())
            .await
            .unwrap();
        // Once it knows, a message stays where it is while a later one of another queue is answered.
        let held = fleet
            .until(async || {
                let id = fleet.pushed().await;
                fleet.premium_passes().await;
                fleet.is_untouched(id).await.then_some(id)
            })
            .await;
        for _ in 0..3 {
            fleet.premium_passes().await;
            assert!(fleet.is_untouched(held).await);
        }
        operator.resume(Priority::Standard, &actor()).await.unwrap();
        assert!(is_completed(&fleet.ended(held).await));
    }
}

/// Ids that wait in the list of a paused queue stay there and are taken when it is resumed.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_with_every_queue_paused_rests_and_wakes() {
    let fleet = Fleet::new().await;
    let operator = fleet.operator();
    for queue in Priority::ALL {
        operator.pause(*queue, None, &actor()).await.unwrap();
    }
    let _worker = fleet.worker("w1");
    fleet.worker_becomes("w1", WorkerStatus::Running).await;
    let held = fleet.pushed().await;
    assert!(fleet.is_untouched(held).await);
    for queue in Priority::ALL {
        operator.resume(*queue, &actor()).await.unwrap();
    }
    assert!(is_completed(&fleet.ended(held).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_register_follows_a_worker_from_start_to_end() {
    let fleet = Fleet::new().await;
    let worker = fleet.worker("w1");
    let running = fleet.worker_becomes("w1", WorkerStatus::Running).await;
    assert_eq!((running.concurrency, running.in_flight), (16, 0));
    assert_eq!(running.version, env!("CARGO_PKG_VERSION"));
    let conversation = fleet.conversation().await;
    let sent = fleet
        .send(conversation, "A story. [[sim:rate=30]] [[sim:tokens=60]]")
        .await;
    fleet.streaming(sent.id).await;
    worker.stop();
    let draining = fleet.worker_becomes("w1", WorkerStatus::Draining).await;
    assert_eq!((draining.leases, draining.leases_overdue), (1, 0));
    assert!(draining.lease_expires_in_seconds.unwrap() > -1.0);
    worker.ended().await;
    assert!(is_completed(&fleet.ended(sent.id).await));
    let stopped = fleet.worker_becomes("w1", WorkerStatus::Stopped).await;
    assert_eq!((stopped.boot, stopped.in_flight), (running.boot, 0));

    // One that dies is missed, until its successor takes its place.
    let killed = fleet.worker("w2");
    let before = fleet.worker_becomes("w2", WorkerStatus::Running).await.boot;
    killed.kill();
    let lost = fleet.worker_becomes("w2", WorkerStatus::Lost).await;
    assert_eq!(lost.boot, before);
    let _successor = fleet.worker("w2");
    let after = fleet.worker_becomes("w2", WorkerStatus::Running).await.boot;
    assert_ne!(before, after);
    let replaced = fleet.worker_becomes("w2", WorkerStatus::Stopped).await;
    assert_eq!(replaced.boot, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_at_work_measures_itself() {
    let fleet = Fleet::new().await;
    let _worker = fleet.worker("w1");
    for _ in 0..3 {
        let conversation = fleet.conversation().await;
        let sent = fleet.send(conversation, "hello").await;
        fleet.ended(sent.id).await;
    }
    let drain = "SELECT drain FROM chat.queues WHERE name = 'standard' AND rate > 0 AND workers = 1
                   AND measured_at > now() - interval '5 seconds'";
    fleet
        .until(async || fleet.env.value(drain).await.filter(|drain| drain != "0"))
        .await;
    // So a client is told how long it may take.
    let told = fleet
        .until(async || {
            let conversation = fleet.conversation().await;
            let sent = fleet.send(conversation, "hello").await;
            fleet.ended(sent.id).await;
            sent.estimated_response_time_ms
        })
        .await;
    assert!(told > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_read_and_settled_from_a_terminal() {
    let fleet = Fleet::new().await;
    let _worker = fleet.worker("w1");
    let none = fleet.terminal("dead-letters").await;
    assert_eq!(none.text, "no dead letters\n");
    let mut letters = Vec::new();
    for _ in 0..3 {
        letters.push(fleet.dead_letter().await);
    }
    let listed = fleet.terminal("dead-letters --limit 2").await.text;
    assert!(listed.contains("3 in all: 3 content_refused"), "{listed}");
    assert!(listed.contains(&letters[2].to_string()), "{listed}");
    assert!(listed.contains(&format!("more with --before {}", letters[1])));
    let json = fleet
        .terminal("dead-letters --json --code content_refused --kind reply")
        .await
        .text;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert_eq!(json[0]["id"], letters[2].to_string());

    let discarded = fleet.terminal(&format!("discard {}", letters[0])).await;
    assert!(is_success(&discarded), "{}", discarded.text);
    let again = fleet
        .terminal(&format!("replay {} {}", letters[0], letters[1]))
        .await;
    assert!(!is_success(&again));
    assert!(again.text.contains("left alone: was discarded before"));
    assert!(
        again.text.contains("replayed 1, left alone 1"),
        "{}",
        again.text
    );
    let rest = fleet
        .terminal("replay --code content_refused --model other/model:free")
        .await;
    assert!(is_success(&rest), "{}", rest.text);
    assert!(
        rest.text
            .contains(&format!("{}   replayed as ", letters[2])),
        "{}",
        rest.text
    );
    let replayed = "SELECT string_agg(r.status || ' ' || r.model, ', ' ORDER BY r.id)
                    FROM chat.generations l JOIN chat.generations r ON r.id = l.replayed_as";
    fleet
        .until(async || {
            let replayed = fleet.env.value(replayed).await?;
            let done = "completed test/first:free, completed other/model:free";
            (replayed == done).then_some(())
        })
        .await;
    let trail = "SELECT string_agg(DISTINCT actor, ', ') FROM chat.audit_log";
    assert_eq!(
        fleet.env.value(trail).await.as_deref(),
        Some("terminal of ana")
    );
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_and_workers_are_seen_from_a_terminal() {
    let fleet = Fleet::new().await;
    assert_eq!(
        fleet.terminal("workers").await.text,
        "no worker was heard of in the last day\n"
    );
    let _worker = fleet.worker("w1");
    fleet.worker_becomes("w1", WorkerStatus::Running).await;
    let workers = fleet.terminal("workers").await.text;
    assert!(
        workers.contains("w1") && workers.contains("0/16"),
        "{workers}"
    );
    let paused = fleet
        .terminal("pause standard --reason maintenance")
        .await
        .text;
    assert!(
        paused.contains("by terminal of ana: maintenance"),
        "{paused}"
    );
    let resumed = fleet.terminal("resume standard").await.text;
    assert!(!resumed.contains("paused"), "{resumed}");
    assert_eq!(resumed.matches("open").count(), 3, "{resumed}");
}

#[test]
fn a_terminal_must_say_which() {
    let refuses = |arguments: &str| {
        let words = ["admin"].into_iter().chain(arguments.split_whitespace());
        assert!(Terminal::try_parse_from(words).is_err(), "{arguments}");
    };
    let id = Uuid::new_v4();
    refuses("");
    refuses("replay");
    refuses("discard");
    refuses("replay not-an-id");
    refuses("replay --code no_such_code");
    refuses(&format!("replay {id} --code internal"));
    refuses(&format!("discard {id} --limit 3"));
    refuses("replay --code internal --limit 0");
    refuses("dead-letters --limit 1001");
    refuses("pause everything");
}

/// What waits in a long list was not lost, and would be in it twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_not_made_longer() {
    let fleet = Fleet::new().await;
    // The only place is taken, so nothing leaves the list.
    let _worker = fleet.worker_with("w1", &[("WORKER_CONCURRENCY", "1")]);
    let busy = fleet.conversation().await;
    let busy = fleet.send(busy, "[[sim:hold=3]] go on").await.id;
    fleet.streaming(busy).await;
    // More than the sweep adds to: a wait that was given up on a busy machine may still take some.
    let others = || (0..520).map(|_| (Uuid::new_v4(), Priority::Standard));
    queue::push_back(&fleet.redis, others()).await.unwrap();
    let waits = fleet.standard().await;
    let old = format!(
        "UPDATE chat.generations SET run_at = now() - interval '1 minute' WHERE id = '{waits}'"
    );
    fleet.env.execute(&old).await;
    let pushed =
        format!("SELECT (pushed_at IS NOT NULL)::text FROM chat.generations WHERE id = '{waits}'");
    let is_pushed = async || fleet.env.value(&pushed).await.as_deref() == Some("true");
    // A measurement ends a pass of the sweep: two of them enclose a whole one.
    let measured = "SELECT min(measured_at) FROM chat.queues";
    for _ in 0..3 {
        let before = fleet.env.value(measured).await;
        fleet
            .until(async || (fleet.env.value(measured).await != before).then_some(()))
            .await;
    }
    assert!(!is_pushed().await, "pushed into a list of 520");
    fleet.env.wipe_redis().await;
    fleet.until(async || is_pushed().await.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_title_that_failed_is_made_after_all() {
    let fleet = Fleet::new().await;
    let operator = fleet.operator();
    operator
        .pause(Priority::Background, None, &actor())
        .await
        .unwrap();
    let _worker = fleet.worker("w1");
    let conversation = fleet.conversation().await;
    let sent = fleet.send(conversation, "hello").await;
    assert!(is_completed(&fleet.ended(sent.id).await));
    let fail = "UPDATE chat.generations SET status = 'failed', error_code = 'internal', finished_at = now()
                WHERE kind = 'title' AND status = 'queued'";
    fleet.env.execute(fail).await;
    fleet.terminal("resume background").await;
    let replayed = fleet
        .terminal("replay --code internal --kind title")
        .await
        .text;
    assert!(replayed.contains("replayed 1, left alone 0"), "{replayed}");
    let titled = "SELECT count(*)::text FROM chat.conversations WHERE NOT title_is_default";
    fleet
        .until(async || (fleet.env.value(titled).await.as_deref() == Some("1")).then_some(()))
        .await;
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_notifications_are_read_and_settled_from_a_terminal() {
    let fleet = Fleet::new().await;
    let none = fleet.terminal("dead-notifications").await;
    assert_eq!(none.text, "no dead notifications\n");
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = shared::id::new(fleet.clock.now());
        let rows = format!(
            "INSERT INTO chat.notifications (id, destination, user_id, conversation_id, generation_id, type, occurred_at,
                                             attempts, last_error, dead_at, dead_reason)
             SELECT '{id}', d.name, '{}', '{id}', '{id}', 'chat.generation.failed', now(), 40, 'status 500', now(),
                    'tries_exhausted'
             FROM chat.notification_destinations d",
            fleet.user
        );
        assert_eq!(fleet.env.execute(&rows).await, 2);
        ids.push(id);
    }
    ids.sort_unstable();
    let listed = fleet.terminal("dead-notifications --limit 2").await.text;
    assert!(listed.contains("6 in all: 3 "), "{listed}");
    assert!(
        listed.contains(&format!("more with --before {}", ids[1])),
        "{listed}"
    );
    let rows = listed.lines().filter(|line| line.contains("status 500"));
    assert_eq!(rows.count(), 4, "{listed}");
    let json = fleet
        .terminal("dead-notifications --json --destination http --reason tries_exhausted")
        .await;
    let json: serde_json::Value = serde_json::from_str(&json.text).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert_eq!(json[0]["deliveries"].as_array().unwrap().len(), 1);
    let one = fleet
        .terminal(&format!(
            "replay-notifications {} --destination http",
            ids[0]
        ))
        .await;
    assert!(is_success(&one) && one.text.contains("replayed at http"));
    let unknown = fleet
        .terminal(&format!("discard-notifications {}", Uuid::new_v4()))
        .await;
    assert!(!is_success(&unknown) && unknown.text.contains("it is not dead"));
    let rest = fleet.terminal("discard-notifications --all").await;
    assert!(is_success(&rest), "{}", rest.text);
    assert!(
        rest.text.contains("discarded at http and amqp"),
        "{}",
        rest.text
    );
    let left = "SELECT string_agg(id || ' ' || destination || ' ' || (dead_at IS NULL), ', ') FROM chat.notifications";
    assert_eq!(
        fleet.env.value(left).await,
        Some(format!("{} http true", ids[0]))
    );
    let trail = "SELECT count(*) || ' ' || min(actor) FROM chat.audit_log WHERE action LIKE 'dead_notification.%'";
    assert_eq!(
        fleet.env.value(trail).await.as_deref(),
        Some("4 terminal of ana")
    );
}
