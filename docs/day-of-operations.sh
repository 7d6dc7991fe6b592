#!/usr/bin/env bash
# A day of operations on one machine, with nothing but the programs: deploy, scale, roll, kill, pause, replay, rotate keys,
# back up, restore. People send messages all the time, and at the end every one of them must have been answered. See docs/runbook.md.
#
# Needs the binaries (`cargo build --bins`), Postgres 15 or newer with pg_dump in PGBIN, valkey-server or redis-server in REDIS,
# curl, and as root a user `postgres` to run Postgres as.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-$PWD/target/debug}
PGBIN=${PGBIN:-/usr/lib/postgresql/15/bin}
REDIS=${REDIS:-valkey-server}
WORK=$(mktemp -d) && chmod 755 "$WORK"
step() { printf '\n== %s\n' "$*"; }
as_postgres() { if [ "$(id -u)" = 0 ]; then su postgres -c "$*"; else bash -c "$*"; fi; }
declare -A PIDS
finish() {
  for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
  as_postgres "$PGBIN/pg_ctl -D $WORK/pg -m immediate stop" >/dev/null 2>&1 || true
  rm -rf "$WORK"
}
trap finish EXIT

step "servers: Postgres, Redis, a simulated model"
install -d -m 700 "$WORK/pg"; [ "$(id -u)" != 0 ] || chown postgres "$WORK/pg" "$WORK"
as_postgres "$PGBIN/initdb -D $WORK/pg -U postgres -A trust >/dev/null && $PGBIN/pg_ctl -D $WORK/pg -w -l $WORK/pg/log -o '-p 55432 -k $WORK' start >/dev/null"
PG=postgres://postgres@127.0.0.1:55432
"$PGBIN/createdb" -h 127.0.0.1 -p 55432 -U postgres balas
"$REDIS" --port 56379 --save '' --appendonly no --dir "$WORK" >/dev/null & PIDS[redis]=$!
SIMULATOR_LISTEN=127.0.0.1:58090 SIMULATOR_RATE=300 SIMULATOR_TTFT_MS=100 "$BIN/simulator" >"$WORK/simulator.log" 2>&1 & PIDS[simulator]=$!

export DATABASE_URL=$PG/balas REDIS_URL=redis://127.0.0.1:56379 OPENROUTER_BASE_URL=http://127.0.0.1:58090/api/v1
export JWT_SECRET=the-first-secret-of-the-day INTERNAL_SERVICE_KEY=the-service-key-of-the-day FREE_MODEL_RATE_LIMIT_PER_MINUTE=0
export RATE_LIMIT_MESSAGES_PER_HOUR=1000000 RATE_LIMIT_CONVERSATIONS_PER_DAY=1000000 RATE_LIMIT_UNAUTHENTICATED_PER_MINUTE=1000000
export OPENROUTER_API_KEYS_FILE=$WORK/keys && echo key-of-the-morning >"$WORK/keys"
api() { PORT=$2 "$BIN/balas-api" >>"$WORK/$1.log" 2>&1 & PIDS[$1]=$!; ready "$1" PORT="$2" balas-api; }
worker() { WORKER_NAME=$1 HEALTH_ADDRESS=127.0.0.1:$2 "$BIN/balas-worker" >>"$WORK/$1.log" 2>&1 & PIDS[$1]=$!; ready "$1" HEALTH_ADDRESS=127.0.0.1:"$2" balas-worker; }
ready() { for _ in $(seq 100); do env "$2" "$BIN/$3" healthcheck 2>/dev/null && return; sleep 0.2; done; echo "$1 is not ready"; tail -5 "$WORK/$1.log"; exit 1; }
# Ends one in order and shows its exit code.
end() { kill -TERM "${PIDS[$1]}"; local code=0; wait "${PIDS[$1]}" || code=$?; unset "PIDS[$1]"; echo "$1 ended with $code"; [ $code = 0 ]; }
admin() { "$BIN/balas-worker" admin "$@"; }
token() { "$BIN/xtask" token --user "$1"; }
sql() { "$PGBIN/psql" -XAtq "${2:-$DATABASE_URL}" -c "$1"; }
uuid() { cat /proc/sys/kernel/random/uuid; }
call() { curl -sS --max-time 40 -H "Authorization: Bearer $1" -H 'Content-Type: application/json' "${@:2}"; }
field() { sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }
new() { call "$1" "$2/api/chat/conversations" -d '{}' | sed 's/^{"id":"\([^"]*\)".*/\1/'; }

step "deploy: migrate, one API, one worker"
"$BIN/balas-api" migrate 2>>"$WORK/migrate.log"
api api-1 58081; worker w1 58101
A=http://127.0.0.1:58081; B=http://127.0.0.1:58082
USER=$(uuid); TOKEN=$(token "$USER"); CONVERSATION=$(new "$TOKEN" $A)
call "$TOKEN" "$A/api/chat/conversations/$CONVERSATION/messages" -H 'Prefer: wait=30' -d '{"content":"good morning"}' -o /dev/null -w 'first answer: %{http_code}\n'

# Everybody sends a message twice a second to whichever API answers; what was accepted (202) is counted.
people() {
  local token conversation
  token=$(token "$(uuid)"); conversation=$(new "$token" $A)
  while [ ! -e "$WORK/evening" ]; do
    for url in $A $B; do
      code=$(call "$token" "$url/api/chat/conversations/$conversation/messages" -d '{"content":"and another one"}' -o /dev/null -w '%{http_code}' 2>/dev/null || true)
      [ "$code" = 202 ] && echo 202 >>"$WORK/accepted" && break
    done
    sleep 0.5
  done
}
for _ in 1 2 3 4; do people & CROWD+=($!); done

step "scale to three workers"
worker w2 58102; worker w3 58103; sleep 2
admin workers

step "roll: the other API takes over, and each worker is replaced"
api api-2 58082; end api-1; api api-1 58081
for n in 1 2 3; do worker "v$n" "5811$n"; end "w$n"; done

step "kill: a worker dies without a word, and comes back under its name"
kill -9 "${PIDS[v2]}"; wait "${PIDS[v2]}" 2>/dev/null || true
worker v2 58112; sleep 3
sql "SELECT count(*) || ' of its generations are still held' FROM chat.generations WHERE status = 'in_progress' AND lease_until < now()"

step "pause and resume"
admin pause standard --reason "a look at the model"; sleep 3
admin queues
admin resume standard; sleep 2

step "replay what was given up"
REFUSED=$(new "$TOKEN" $A)
call "$TOKEN" "$A/api/chat/conversations/$REFUSED/messages" -H 'Prefer: wait=30' -d '{"content":"[[sim:moderation,times=1]] what now?"}' -o /dev/null -w 'refused: %{http_code}\n'
admin dead-letters
admin replay --code content_refused; sleep 3
sql "SELECT 'the replay is ' || status FROM chat.generations WHERE conversation_id = '$REFUSED' AND kind = 'reply' ORDER BY id DESC LIMIT 1"

step "rotate the keys: tokens of both secrets are good while the API rolls, then the old ones are not"
export JWT_SECRET=the-second-secret-of-the-day,the-first-secret-of-the-day
end api-1; api api-1 58081; end api-2; api api-2 58082
NEW=$(JWT_SECRET=the-second-secret-of-the-day token "$USER")
for t in "$TOKEN" "$NEW"; do call "$t" "$A/api/chat/conversations/$CONVERSATION" -o /dev/null -w 'either secret: %{http_code}\n'; done
echo key-of-the-evening >"$WORK/keys.new" && mv "$WORK/keys.new" "$WORK/keys"; sleep 8
curl -s "http://127.0.0.1:58090/sim/calls?key=key-of-the-evening&limit=1" | grep -c '"key":"key-of-the-evening"' | sed 's/^/calls with the new upstream key seen: /'

step "evening: everybody goes home, and what was accepted is answered"
touch "$WORK/evening"; wait "${CROWD[@]}"
for _ in $(seq 300); do [ "$(sql "SELECT count(*) FROM chat.generations WHERE finished_at IS NULL")" = 0 ] && break; sleep 0.3; done
ACCEPTED=$(wc -l <"$WORK/accepted")
sql "SELECT 'accepted by the crowd: $ACCEPTED; ' || string_agg(status || ' ' || n, ', ') FROM (SELECT status, count(*) n FROM chat.generations WHERE kind = 'reply' GROUP BY 1) s"
COMPLETED=$(sql "SELECT count(*) FROM chat.generations g JOIN chat.messages m ON m.id = g.user_message_id WHERE m.content = 'and another one' AND g.status = 'completed' AND g.kind = 'reply'")
[ "$COMPLETED" -ge "$ACCEPTED" ] || { echo "of $ACCEPTED only $COMPLETED were answered"; exit 1; }
curl -s $A/metrics | grep -E '^(fleet_workers|dependency_up|conversations_active)'

step "back up, restore into another database, and run on it"
"$PGBIN/pg_dump" --format=custom --file="$WORK/balas.dump" "$PG/balas"
for name in api-1 api-2 v1 v2 v3; do end $name; done
"$PGBIN/createdb" -h 127.0.0.1 -p 55432 -U postgres balas_restored
export DATABASE_URL=$PG/balas_restored REDIS_KEY_PREFIX=restored JWT_SECRET=the-second-secret-of-the-day
"$BIN/balas-api" migrate 2>>"$WORK/migrate.log"
sql 'DROP SCHEMA chat CASCADE' 2>/dev/null
"$PGBIN/pg_restore" --exit-on-error --dbname="$PG/balas_restored" "$WORK/balas.dump"
"$BIN/balas-api" migrate 2>>"$WORK/migrate.log"
for table in conversations messages generations usage_tracking attempts; do
  echo "$table: $(sql "SELECT count(*) FROM chat.$table" "$PG/balas") before, $(sql "SELECT count(*) FROM chat.$table") after"
done
api api-1 58081; worker w1 58101
call "$TOKEN" "$A/api/chat/conversations/$CONVERSATION" -o /dev/null -w 'the old secret: %{http_code}\n'
call "$NEW" "$A/api/chat/conversations/$CONVERSATION" -o /dev/null -w 'the new secret: %{http_code}\n'
call "$NEW" "$A/api/chat/conversations/$CONVERSATION/messages" -H 'Prefer: wait=30' -d '{"content":"good night"}' -o /dev/null -w 'an answer from the restored database: %{http_code}\n'
end api-1; end w1
echo; echo "the day is over"
