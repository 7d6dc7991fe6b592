//! Rows land in the partition of the month that their id names.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use shared::id;
use shared::store::maintenance;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::common::World;

impl World {
    async fn ensure(&self, months: u32) -> String {
        self.value(&format!("chat.ensure_partitions({months})"))
            .await
    }

    /// Books something at that moment. Returns the partition it went into.
    async fn book(&self, id: Uuid) -> String {
        let mut tx = self.worker.user(self.user).await.unwrap();
        let wasted = shared::store::ledger::Used {
            id,
            conversation_id: id,
            generation_id: id,
            operation: "completion",
            usage: &crate::common::usage(),
            wasted: true,
        };
        shared::store::ledger::used(&mut tx, &wasted).await.unwrap();
        tx.commit().await.unwrap();
        self.partition_of(id).await
    }

    async fn partition_of(&self, id: Uuid) -> String {
        let sql = format!(
            "SELECT replace(tableoid::regclass::text, 'chat.', '') FROM chat.usage_tracking WHERE id = '{id}'"
        );
        self.value(&sql).await
    }

    /// The first of the month, so many months from now, by the database's clock.
    async fn month(&self, months: i32) -> OffsetDateTime {
        let sql = format!(
            "SELECT extract(epoch FROM date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
                                     + {months} * interval '1 month')::bigint"
        );
        OffsetDateTime::from_unix_timestamp(self.value(&sql).await.parse().unwrap()).unwrap()
    }
}

fn partition(month: OffsetDateTime) -> String {
    format!(
        "usage_tracking_{}_{:02}",
        month.year(),
        u8::from(month.month())
    )
}

#[tokio::test]
async fn the_next_months_are_there_and_each_row_finds_its_own() {
    let world = World::new().await;
    let millisecond = Duration::milliseconds(1);
    for months in -1..=3 {
        let (first, next) = (world.month(months).await, world.month(months + 1).await);
        for at in [first, first + Duration::days(3), next - millisecond] {
            assert_eq!(world.book(id::new(at)).await, partition(first), "{at}");
        }
        assert_eq!(
            world.book(id::floor(first)).await,
            partition(first),
            "the smallest id of {first}"
        );
    }
    for outside in [world.month(4).await, world.month(-1).await - millisecond] {
        assert_eq!(
            world.book(id::new(outside)).await,
            "usage_tracking_default",
            "{outside}"
        );
    }
}

#[tokio::test]
async fn partitions_are_made_ahead_and_once() {
    let world = World::new().await;
    let mut tx = world.worker.sweep().await.unwrap();
    assert_eq!(
        maintenance::ensure_partitions(&mut tx).await.unwrap(),
        0,
        "the migration made them"
    );
    tx.commit().await.unwrap();
    assert_eq!(world.ensure(5).await, "6", "two months of three tables");
    assert_eq!(world.ensure(5).await, "0");
    let fifth = world.month(5).await;
    assert_eq!(world.book(id::new(fifth)).await, partition(fifth));
    // Two workers that come at once.
    let both = [world.env.session().await, world.env.session().await];
    let made = futures::future::join_all(both.map(async |mut session| {
        session
            .rows("SELECT chat.ensure_partitions(7)::text")
            .await
            .unwrap()[0][0]
            .clone()
            .unwrap()
    }))
    .await;
    assert_eq!(
        made.iter()
            .map(|made| made.parse::<i32>().unwrap())
            .sum::<i32>(),
        6,
        "{made:?}"
    );
}

/// Maintenance was away for months, or a replica's clock is far ahead.
#[tokio::test]
async fn a_month_that_is_made_late_takes_its_rows_from_the_default_partition() {
    let world = World::new().await;
    let (fourth, fifth, ninth) = (
        world.month(4).await,
        world.month(5).await,
        world.month(9).await,
    );
    let early = [
        id::new(fourth),
        id::new(fifth - Duration::milliseconds(1)),
        id::new(fifth),
        id::new(ninth),
    ];
    for id in early {
        assert_eq!(world.book(id).await, "usage_tracking_default");
    }
    assert_eq!(world.ensure(5).await, "6");
    let now = [
        partition(fourth),
        partition(fourth),
        partition(fifth),
        "usage_tracking_default".to_owned(),
    ];
    for (id, partition) in early.into_iter().zip(now) {
        assert_eq!(world.partition_of(id).await, partition, "{id}");
    }
    // What was moved is as safe, and as whole, as before.
    let unsafe_tables =
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'chat'::regnamespace AND relispartition
                         AND relkind = 'r' AND NOT (relrowsecurity AND relforcerowsecurity)";
    assert_eq!(world.value(unsafe_tables).await, "0");
    let differing = "SELECT count(DISTINCT shape) FROM (
        SELECT c.oid, string_agg(a.attname || format_type(a.atttypid, a.atttypmod) || a.attnotnull
                                 || COALESCE(pg_get_expr(d.adbin, d.adrelid), ''), ',' ORDER BY a.attname)
               || (SELECT string_agg(pg_get_constraintdef(k.oid), ',' ORDER BY pg_get_constraintdef(k.oid))
                   FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype <> 'n')
               || (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid) AS shape
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relispartition AND c.relkind = 'r' AND c.relname LIKE 'messages%' GROUP BY c.oid) x";
    assert_eq!(world.value(differing).await, "1");
    let mut stranger = world.api.user(Uuid::new_v4()).await.unwrap();
    assert!(
        shared::store::generations::list(&mut stranger, &Default::default())
            .await
            .is_ok()
    );
    let mut tx = world.worker.user(world.user).await.unwrap();
    let again = shared::store::ledger::Used {
        id: early[0],
        conversation_id: early[0],
        generation_id: early[0],
        operation: "completion",
        usage: &crate::common::usage(),
        wasted: true,
    };
    shared::store::ledger::used(&mut tx, &again).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        world
            .value("SELECT count(*) FROM chat.usage_tracking")
            .await,
        "4",
        "each is there once"
    );
}

/// The partitions of the database and the ids of the application agree on what time it is.
#[test]
fn the_databases_floor_of_a_moment_is_ours() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let agree = |micros: i64| {
        let at = OffsetDateTime::UNIX_EPOCH + Duration::microseconds(micros);
        let sql =
            format!("chat.uuid7_floor('epoch'::timestamptz + {micros} * interval '1 microsecond')");
        let theirs: Uuid = runtime.block_on(world.value(&sql)).parse().unwrap();
        (theirs, id::floor(at), id::new(at))
    };
    for at in [
        datetime!(2026-01-01 0:00 UTC),
        datetime!(2026-02-28 23:59:59.999 UTC),
        datetime!(2400-02-29 0:00 UTC),
    ] {
        let micros = i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap();
        let (theirs, ours, _) = agree(micros);
        assert_eq!(theirs, ours, "{at}");
    }
    let config = Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&(0..9_000_000_000_000_000_i64), |micros| {
            let (theirs, ours, new) = agree(micros);
            prop_assert_eq!(theirs, ours, "{} us", micros);
            prop_assert!(theirs <= new);
            Ok(())
        })
        .unwrap();
    runtime.block_on(async { drop(world) });
}
