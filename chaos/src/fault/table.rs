//! All faults, with what may be seen of each.

/// What may be seen of a fault that is otherwise a broken promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It takes the database away from a replica, which may then answer 503.
    Refuses,
    /// No worker can look for lost work while it goes on.
    Blinds,
    /// A worker is kept from the database or from an answer of the model, so that it may call the
    /// model once more, or for nothing.
    Disturbs,
}

macro_rules! faults {
    ($($fault:ident $name:literal [$($mark:ident)*] $what:literal,)+) => {
        /// What can go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Fault {
            $($fault,)+
        }

        impl Fault {
            /// Every one.
            pub(crate) const ALL: &[Self] = &[$(Self::$fault,)+];

            /// For `--fault` and the report.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$fault => $name,)+ }
            }

            /// For `--list`.
            pub(crate) const fn what(self) -> &'static str {
                match self { $(Self::$fault => $what,)+ }
            }

            const fn marks(self) -> &'static [Mark] {
                match self { $(Self::$fault => &[$(Mark::$mark,)*],)+ }
            }
        }
    };
}

faults! {
    WorkerKill "worker-kill" []
        "kill -9 a worker; it comes back at once, later, or after its leases",
    WorkerKillClaimed "worker-kill-claimed" []
        "kill -9 a worker whose claim is committed and who does not know it yet",
    WorkerKillBeforeFirstToken "worker-kill-before-first-token" []
        "kill -9 a worker that waits for the model's first token",
    WorkerKillMidstream "worker-kill-midstream" []
        "kill -9 a worker in the middle of a reply",
    WorkerKillAnswered "worker-kill-answered" []
        "kill -9 a worker that has the whole reply and has not stored it",
    WorkerKillFinished "worker-kill-finished" []
        "kill -9 a worker whose reply is stored and not published",
    WorkerFreezeShort "worker-freeze-short" [Disturbs]
        "SIGSTOP a worker for half a lease",
    WorkerFreeze "worker-freeze" [Disturbs]
        "SIGSTOP a worker in the middle of a reply until its lease has run out, then SIGCONT",
    WorkerFreezeSweeping "worker-freeze-sweeping" [Disturbs]
        "SIGSTOP a worker while it holds the lock of the sweeps, for two leases",
    FleetKill "fleet-kill" [Blinds]
        "kill -9 all workers with a crowd of replies in flight",
    ApiKill "api-kill" []
        "kill -9 a replica of the API",
    ApiKillBeforeCommit "api-kill-before-commit" []
        "kill -9 a replica that is about to commit a message",
    ApiKillAfterCommit "api-kill-after-commit" []
        "kill -9 a replica whose message is committed, before it gives a hint",
    ApiKillAfterHint "api-kill-after-hint" []
        "kill -9 a replica that has given the hint, before its client hears of it",
    ApiFreeze "api-freeze" [Refuses]
        "SIGSTOP a replica in the middle of accepting a message",
    RollWorkers "roll-workers" []
        "SIGTERM the workers one after the other, as a deploy does, with a reply that outlasts their grace",
    RollApis "roll-apis" []
        "SIGTERM the replicas of the API one after the other",
    RollingRestart "rolling-restart" []
        "SIGTERM everybody in turn; the next worker of a name starts while the one before drains",
    DoubleSigterm "double-sigterm" []
        "SIGTERM a worker and a replica, and again before their grace is over",
    SigtermRedisDown "sigterm-redis-down" []
        "SIGTERM a worker and a replica while Redis is away",
    SigtermPostgresDown "sigterm-postgres-down" [Refuses Blinds Disturbs]
        "SIGTERM a worker and a replica while Postgres is away",
    Twins "twins" []
        "two living workers of one name, and one of them starts again and again",
    RedisKill "redis-kill" []
        "kill -9 Redis and start it on its data",
    RedisEmpty "redis-empty" []
        "kill -9 Redis and start it empty",
    RedisTruncated "redis-truncated" []
        "kill -9 Redis and cut off the end of its append-only file",
    RedisFlush "redis-flush" []
        "FLUSHALL, several times",
    RedisPause "redis-pause" []
        "CLIENT PAUSE: Redis takes connections and answers nothing",
    RedisDown "redis-down" []
        "Redis is away for 15 s",
    RedisFull "redis-full" []
        "Redis is out of memory and refuses every write",
    PostgresCrash "postgres-crash" [Refuses Blinds Disturbs]
        "Postgres stops without a word and recovers",
    PostgresRestart "postgres-restart" [Refuses Blinds Disturbs]
        "Postgres throws everybody out and starts again",
    PostgresDown "postgres-down" [Refuses Blinds Disturbs]
        "Postgres is away for 20 s",
    PostgresReadOnly "postgres-read-only" [Refuses Blinds Disturbs]
        "Postgres takes no writes, as after a fail-over to a replica",
    PostgresFull "postgres-full" [Refuses Blinds Disturbs]
        "the disk with the tables is full",
    SlowDatabase "slow-database" [Refuses Disturbs]
        "200 ms between a process and Postgres",
    SlowRedis "slow-redis" []
        "200 ms between a process and Redis",
    SlowModel "slow-model" [Disturbs]
        "200 ms between a worker and the model",
    CutDatabase "cut-database" [Refuses Disturbs]
        "connections between a process and Postgres break after some bytes",
    CutRedis "cut-redis" []
        "connections between a process and Redis break after some bytes",
    CutModel "cut-model" [Disturbs]
        "connections between a worker and the model break after some bytes",
    CutClients "cut-clients" []
        "connections between clients and a replica break after some bytes",
    DeafDatabase "deaf-database" [Refuses Disturbs]
        "nothing arrives between a process and Postgres until leases have run out",
    DeafRedis "deaf-redis" []
        "nothing arrives between a process and Redis for a while",
    DeafModel "deaf-model" [Disturbs]
        "nothing arrives between a worker and the model for a while",
    CommitAmbiguous "commit-ambiguous" [Refuses Disturbs]
        "5 % of all commits are sent and their answer never comes",
    ModelLimits "model-limits" [Disturbs]
        "the model answers 429",
    ModelFails "model-fails" [Disturbs]
        "the model answers 503",
    ModelHangs "model-hangs" [Disturbs]
        "the model answers nothing",
    ModelCuts "model-cuts" [Disturbs]
        "the model breaks off in the middle of every reply",
    ModelGone "model-gone" [Disturbs]
        "the model cannot be reached",
    ReceiverDown "receiver-down" []
        "the notification service cannot be reached",
    ReceiverRefuses "receiver-refuses" []
        "the notification service answers 500, or hangs up",
    ReceiverAmbiguous "receiver-ambiguous" []
        "the notification service takes everything, and none of its answers arrives whole",
    CutReceiver "cut-receiver" []
        "connections between a worker and the notification service break after some bytes",
    DeafReceiver "deaf-receiver" []
        "nothing arrives between a worker and the notification service for a while",
}

impl Fault {
    /// Whether it has a mark.
    pub(crate) fn is(self, mark: Mark) -> bool {
        self.marks().contains(&mark)
    }

    /// The fault of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|fault| fault.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        let names: HashSet<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
        for fault in Fault::ALL {
            assert_eq!(Fault::named(fault.name()), Some(*fault));
        }
        assert_eq!(Fault::named("worker"), None);
    }
}
