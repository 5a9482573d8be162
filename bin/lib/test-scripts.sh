#!/usr/bin/env bash
# Tests bin/run, bin/botdeck and bin/bench from the outside: real processes, a real Postgres and Redis, a checkout of their own.
#
#   bin/lib/test-scripts.sh PROGRAMS     a directory with botdeck and bench, built (a debug build will do)
#
# The last line is `N passed, N failed`. bin/test calls it, after installing what it needs.
set -euo pipefail
set -m   # a process group for each job, and SIGINT not ignored in it, as at a terminal
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. bin/lib/env.sh
programs=$(cd "${1:?which directory has botdeck and bench?}" && pwd -P)

# In two steps: without a directory (a full disk), `cd ""` stays in the checkout, and that is what would be removed in the end.
work=$(mktemp -d "${TMPDIR:-/tmp}/botdeck-test-XXXXXX")
work=$(cd "$work" && pwd -P)
checkout=$work/checkout
jobs=()
cleanup() {
  local job
  for job in ${jobs[@]+"${jobs[@]}"}; do
    kill -9 -- "-$job" 2>/dev/null && wait "$job" 2>/dev/null || true
  done
  kill -9 "$(cat "$checkout/.local/server.pid" 2>/dev/null || echo none)" "$(cat "$work/watch/served" 2>/dev/null || echo none)" 2>/dev/null || true
  bin/lib/services.sh stop "$checkout/.local" || true
  bin/lib/services.sh stop "$work/other/.local" || true
  bin/lib/services.sh stop "$work/nobody/.local" || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# A checkout with scripts and no sources: what it would build is given. Others may pass through, or Postgres could not get in.
copy() { # DIR
  mkdir -p "$1"
  cp -R bin Cargo.lock "$1/"
  for file in rust-toolchain rust-toolchain.toml; do [ ! -e "$file" ] || cp "$file" "$1/"; done
}
chmod 711 "$work"
echo $$ >"$work/throwaway"   # when we are killed, the next test run sweeps what we leave
copy "$checkout"
mkdir -p "$work/release/site" "$checkout/.local"
ln "$programs/botdeck" "$work/release/botdeck" 2>/dev/null || cp "$programs/botdeck" "$work/release/botdeck"

port=$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })')
address=127.0.0.1:$port
export BOTDECK_ADDR=$address BOTDECK_RELEASE=$work/release CARGO_TARGET_DIR=$work/target
unset DATABASE_URL REDIS_URL TELEGRAM_BOT_TOKEN OPENAI_API_KEY BOTDECK_SECRET_KEY BOTDECK_SECRET_KEY_FILE
log=$work/log

passed=0 failed=0
# test_that NAME COMMAND…: one test; a failure shows what the last script said.
test_that() {
  if "${@:2}"; then
    passed=$((passed + 1))
    echo "ok      $1"
  else
    failed=$((failed + 1))
    echo "FAILED  $1"
    tail -20 "$log" | sed 's/^/        | /'
  fi
}
# within SECONDS COMMAND…: asks until it is so.
within() {
  local end=$((SECONDS + $1))
  until "${@:2}"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}
not() { if "$@"; then return 1; fi; }
# A zombie is dead: where nobody collects orphans, as in many containers, they stay for ever.
alive() { case "$(ps -o stat= -p "$1" 2>/dev/null)" in "" | Z*) return 1 ;; esac; }
gone() { not alive "$1"; }
says() { grep -qF -- "$1" "$log"; }

# start COMMAND…: in the checkout, as a job; `job` is its process group.
start() {
  : >"$log"
  (cd "$checkout" && exec "$@") >"$log" 2>&1 </dev/null &
  job=$!
  jobs+=("$job")
}
# Until it serves; 0 also means that it did not end before.
ready() { within "${1:-60}" ready_or_ended "$job" && says "Botdeck is ready"; }
ready_or_ended() { says "Botdeck is ready" || gone "$1"; }
status() { # status METHOD PATH [FORM]: what the server answers with
  node -e '
    const [method, url, body] = process.argv.slice(1);
    const headers = { accept: "application/json", "content-type": "application/x-www-form-urlencoded" };
    fetch(url, { method, body, headers: body ? headers : {} }).then(r => console.log(r.status), () => console.log("none"));
  ' "$1" "http://$address$2" ${3+"$3"}
}
serves() { [ "$(status GET /readyz)" = 200 ]; }
password="correct horse battery"
signs_in() { [ "$(status POST /api/fn/auth/sign-in "email=owner%40example.org&password=${password// /+}&next=%2F")" = 200 ]; }
in_checkout() { (cd "$checkout" && "$@") >"$log" 2>&1 </dev/null; }

# The processes that a run stands on, by their own files; `remember` keeps the numbers for when the files are gone.
remember() {
  server=$(cat "$checkout/.local/server.pid" 2>/dev/null || true)
  remember_services
}
remember_services() {
  postgres=$(head -1 "$checkout/.local/services/postgres/postmaster.pid")
  redis=$(cat "$checkout/.local/services/redis.pid")
}
all_run() { alive "$server" && alive "$postgres" && alive "$redis"; }
services_gone() { gone "$postgres" && gone "$redis"; }
nothing_left() { gone "$server" && services_gone && [ ! -e "$checkout/.local/server.pid" ]; }
ended() { # how a job ended, as its parent learns it
  local code=0
  within 60 gone "$1" || return 1
  wait "$1" 2>/dev/null || code=$?
  [ "$code" = "$2" ]
}

# --- Numbers of processes that have gone to strangers

bash -c 'exec -a "bash bin/run serve" sleep 3600' &
stranger=$!
jobs+=("$stranger")
echo "$stranger" >"$checkout/.local/run.pid"
echo "$stranger" >"$checkout/.local/server.pid"
start bin/run
test_that "bin/run serves although a stranger has the number of an old run" ready
test_that "the stranger is left alone" alive "$stranger"
remember
test_that "server, Postgres and Redis of this run are there" all_run

# --- What a run prints, and who else may use its settings

link_opens() {
  local link
  link=$(sed -n 's/.*(once, within a day): //p' "$log")
  [ -n "$link" ] && [ "$(status GET "${link#http://"$address"}")" = 200 ]
}
test_that "it prints a one-time link, which opens" link_opens

refused() {
  local code=0
  in_checkout "$@" || code=$?
  [ "$code" = 1 ] && says "bin/run serves this checkout already (process $job)"
}
test_that "a second bin/run beside it is refused" refused bin/run
# As on macOS.
mkdir "$work/path"
cp -rs /usr/bin/. "$work/path/" 2>/dev/null || true
rm -f "$work/path/flock" "$work/path/brotli" "$work/path/sudo"
for program in node npm cargo rustc rustup; do ln -sf "$(command -v "$program" || echo /nonexistent)" "$work/path/$program"; done
if [ -e "$work/path/bash" ]; then test_that "so it is without flock" refused env PATH="$work/path" bin/run; fi
test_that "and the first goes on" serves

make_owner() { (cd "$checkout" && printf %s "$password" | bin/botdeck admin create --email owner@example.org --role owner --password-stdin) >"$log" 2>&1; }
test_that "bin/botdeck makes an account beside it" make_owner
test_that "which that server knows" signs_in
services_run() { bin/lib/services.sh urls "$checkout/.local" >/dev/null; }
test_that "and leaves Postgres and Redis running" services_run

# --- Others who use the same servers

same_services() { # those that were remembered, and none beside them
  alive "$postgres" && alive "$redis" &&
    [ "$(head -1 "$checkout/.local/services/postgres/postmaster.pid")" = "$postgres" ] && services_run
}
urls=$(bin/lib/services.sh urls "$checkout/.local")
redis_url=${urls#*REDIS_URL=}
only() { [ "$(bin/lib/services.sh urls "$checkout/.local" "$1")" = "$2=${urls##*"$2="}" ]; }
test_that "the address of Redis alone can be asked for" only redis REDIS_URL
test_that "bin/botdeck with a REDIS_URL only" in_checkout env REDIS_URL="$redis_url" bin/botdeck bot list
test_that "leaves both running" same_services
test_that "bin/botdeck in another session" in_checkout env XDG_RUNTIME_DIR="$work/release" bin/botdeck bot list
test_that "finds the same servers" same_services
taken() { not in_checkout bin/botdeck serve --embedded && says "is taken"; }
test_that "serve --embedded on the same address is refused" taken
test_that "and stops nothing" same_services
test_that "nor does services.sh stop" not bin/lib/services.sh stop "$checkout/.local"
test_that "so the first goes on" eval 'same_services && serves'

# --- Settings of a file and of flags hold, although there are private servers

echo 'database_url = "postgres://nobody@127.0.0.1:1/elsewhere"' >"$checkout/botdeck.toml"
elsewhere() { not in_checkout bin/botdeck bot list && says "is not reached"; }
test_that "a database of botdeck.toml is the one that is used" elsewhere
echo 'botdeck_secret_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="' >"$checkout/botdeck.toml"
key_of() { in_checkout bin/botdeck doctor "$@" || true; sed -n 's/.*secret key  *//p' "$log"; }
of_file=$(key_of)
rm "$checkout/botdeck.toml"
of_local=$(key_of)
of_flag=$(key_of --set BOTDECK_SECRET_KEY=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=)
test_that "and so is its key" eval '[ -n "$of_file" ] && [ "$of_file" != "$of_local" ]'
test_that "and a key of --set" [ "$of_flag" = "$of_file" ]

# --- A run that is killed

kill -9 "$job"
wait "$job" 2>/dev/null || true
test_that "kill -9 of bin/run leaves its server behind" serves
left=$server
started=$SECONDS
start bin/run
test_that "the next bin/run serves" ready
test_that "within 10 seconds" [ $((SECONDS - started)) -le 10 ]
test_that "having stopped the one that was left" gone "$left"
remember
test_that "with a server of its own" all_run

# --- Ctrl-C

kill -INT -- "-$job"
test_that "Ctrl-C ends bin/run, well" ended "$job" 0
test_that "and server, Postgres and Redis with it" nothing_left

started=$SECONDS
start bin/run
test_that "a run after that serves" ready
test_that "within 10 seconds, too" [ $((SECONDS - started)) -le 10 ]
test_that "and knows what was stored" signs_in
remember
kill -TERM "$job"
test_that "SIGTERM ends it as well" ended "$job" 0
test_that "with all of it" nothing_left

# --- For development

# cargo-leptos as bin/run knows it: it serves what it built, in a process group of its own, serves anew after a change (here: USR2), and
# ends with its server. Node, since a shell could not mind an INT that it was started to ignore; by this name, since a run that was killed
# is known by it.
mkdir -p "$work/watch" "$CARGO_TARGET_DIR/debug"
ln "$work/release/botdeck" "$CARGO_TARGET_DIR/debug/botdeck"
node=$(node -p process.execPath)
ln "$node" "$work/watch/cargo-leptos" 2>/dev/null || cp "$node" "$work/watch/cargo-leptos"
cat >"$work/watch/watch.js" <<'WATCH'
const { spawn } = require('child_process');
const { writeFileSync } = require('fs');
const args = process.argv.slice(2);
const { WATCH, CARGO_TARGET_DIR, LEPTOS_SITE_ADDR, LEPTOS_SITE_ROOT } = process.env;
writeFileSync(`${WATCH}/call`, [args.join(' '), LEPTOS_SITE_ADDR, LEPTOS_SITE_ROOT].join('\n'));
let server, changed;
function serve() {
  changed = false;
  server = spawn(`${CARGO_TARGET_DIR}/debug/botdeck`, args.slice(args.indexOf('--') + 1), { stdio: 'inherit', detached: true });
  writeFileSync(`${WATCH}/served`, String(server.pid));
  server.on('exit', () => (changed ? serve() : process.exit()));
}
process.on('SIGUSR2', () => { changed = true; server.kill('SIGINT'); });
process.on('SIGINT', () => server.kill('SIGINT'));
if (process.env.HUP_IGNORED) process.on('SIGHUP', () => {});   // Node forgets what it was started to ignore
serve();
WATCH
cat >"$work/watch/cargo" <<'CARGO'
#!/bin/sh
if sh -c 'kill -HUP $$'; then export HUP_IGNORED=yes; fi
exec "$WATCH/cargo-leptos" "$WATCH/watch.js" "$@"
CARGO
chmod 755 "$work/watch/cargo"
watches() { start env WATCH="$work/watch" PATH="$work/watch:$PATH" bin/run --watch "$@"; }
watched() { remember && served=$(cat "$work/watch/served") && all_run && alive "$served"; }

watches --roles web,worker
test_that "bin/run --watch serves" ready
test_that "what cargo-leptos builds of this checkout, where it is told to" [ "$(cat "$work/watch/call")" = "leptos watch -- --embedded serve --roles web,worker
$address
$CARGO_TARGET_DIR/site-dev" ]
test_that "on Postgres and Redis of its own" watched
test_that "a bin/run beside it is refused" refused bin/run
kill -USR2 "$server"
served_anew() { [ "$(cat "$work/watch/served")" != "$served" ] && serves; }
test_that "after a change it serves anew" within 30 served_anew
test_that "on the same servers" same_services
watched
kill -INT -- "-$job"
test_that "Ctrl-C ends bin/run --watch, well" ended "$job" 0
test_that "and all it started with it" eval 'nothing_left && gone "$served"'

watches
ready && watched
kill -TERM "$job"
test_that "SIGTERM, which goes to bin/run alone, ends it as well" ended "$job" 0
test_that "with all of it" eval 'nothing_left && gone "$served"'

watches
ready && watched
kill -HUP -- "-$job"
test_that "a terminal that is closed ends it as well" ended "$job" 0
test_that "with all of it" eval 'nothing_left && gone "$served"'

watches
ready && watched
kill -9 -- "-$job"
wait "$job" 2>/dev/null || true
test_that "kill -9 of it and of cargo-leptos leaves a server behind" eval 'gone "$server" && serves'
left=$served
watches
test_that "the next one serves" ready
test_that "having stopped it" gone "$left"
watched
kill -9 "$job"
wait "$job" 2>/dev/null || true
test_that "kill -9 of bin/run alone leaves cargo-leptos behind" eval 'alive "$server" && serves'
left=$server
start bin/run
test_that "a bin/run without --watch serves" ready
test_that "having stopped both" eval 'gone "$left" && gone "$served"'
kill -INT -- "-$job"
test_that "and ends" ended "$job" 0

# --- The program without bin/run

test_that "bin/botdeck starts what a command needs" in_checkout bin/botdeck bot list
test_that "and stops it" not services_run
start bin/botdeck serve --embedded
test_that "serve --embedded serves" ready
remember_services
test_that "on Postgres and Redis of its own" eval 'alive "$postgres" && alive "$redis"'
test_that "and the data of bin/run" signs_in
kill -INT -- "-$job"
test_that "Ctrl-C ends it" ended "$job" 0
test_that "with both" services_gone

# --- Two at once: whoever is last stops the servers

second=0.0.0.0:$(node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })')
start bin/botdeck serve --addr "$second"
test_that "bin/botdeck serve serves" ready
test_that "and says where a browser goes" says "Botdeck is ready: http://127.0.0.1:${second#*:}"
first=$job
remember_services
start bin/run
test_that "bin/run comes later" ready
kill -INT -- "-$first"
test_that "the first goes" ended "$first" 0
test_that "and leaves the servers to the other" eval 'same_services && serves'
kill -INT -- "-$job"
test_that "which goes" ended "$job" 0
test_that "with them" services_gone

node -e 'require("net").createServer(() => {}).listen(0, "127.0.0.1", function () { console.log(this.address().port) })' >"$work/mute" &
mute=$!
jobs+=("$mute")
within 10 [ -s "$work/mute" ]
start env TELEGRAM_BOT_TOKEN=1:never TELEGRAM_API_URL="http://127.0.0.1:$(cat "$work/mute")" bin/botdeck doctor
test_that "a command that waits for Telegram has servers" within 30 services_run
remember_services
kill -INT -- "-$job"
test_that "Ctrl-C ends it" ended "$job" 130
test_that "with them, too" services_gone
elsewhere() { not in_checkout bin/botdeck serve --addr 192.0.2.1:80 && says "192.0.2.1:80 cannot be listened on"; }
test_that "an address of another machine is not called taken" elsewhere

# --- What needs no servers, or cannot have them

copy "$work/other"
in_other() { (cd "$work/other" && "$@") >"$log" 2>&1 </dev/null; }
test_that "bin/botdeck settings lists them" in_other bin/botdeck settings
test_that "and makes no database for it" [ ! -e "$work/other/.local/services" ]
mkdir -p "$work/other/.local/services/postgres"
echo 99 >"$work/other/.local/services/postgres/PG_VERSION"
examined() { not in_other bin/botdeck doctor && says "no PostgreSQL 99 found" && grep -q "^BAD *database" "$log" && grep -q "disk" "$log"; }
test_that "bin/botdeck doctor looks at the rest when Postgres cannot start" examined

# --- What is built again, and what is not

for dir in .cargo app frontend server/tests migrations public style; do mkdir -p "$work/other/$dir"; done
echo '[workspace]' >"$work/other/Cargo.toml"
echo 'fn main() {}' >"$work/other/app/lib.rs"
hash_of() { (cd "$work/other" && . bin/lib/env.sh && . bin/lib/app.sh && sources_hash); }
hash=$(hash_of)
touch "$work/other/nohup.out"
echo 'botdeck_workers = 7' >"$work/other/botdeck.toml"
echo 'no test' >"$work/other/server/tests/it.rs"
test_that "settings, logs and tests cause no new build" [ "$(hash_of)" = "$hash" ]
for file in app/lib.rs .cargo/config.toml migrations/1.sql style/main.scss Cargo.lock; do
  echo '# changed' >>"$work/other/$file"
  test_that "a change of $file does" [ "$(hash_of)" != "$hash" ]
  hash=$(hash_of)
done
rm -rf "$work/other/.local"
mkdir "$work/other/.local"
cp -R "$work/release" "$work/other/.local/release"
echo "$hash" >"$work/other/.local/release/stamp"
started=$SECONDS
: >"$log"
(cd "$work/other" && exec env -u BOTDECK_RELEASE bin/run) >"$log" 2>&1 </dev/null &
job=$!
jobs+=("$job")
test_that "what was built from the same sources is served" ready
test_that "within 10 seconds, its database being made" [ $((SECONDS - started)) -le 10 ]
kill -INT -- "-$job"
test_that "and ends" ended "$job" 0

# --- No room for a test's files

no_room() { not in_other env TMPDIR=/nonexistent bin/lib/test-scripts.sh "$programs" && [ -e "$work/other/bin/run" ]; }
test_that "tests that find no room remove nothing" no_room

# --- A compiler that does not know mold

if [ "$(uname -sm)" = "Linux x86_64" ] && command -v mold >/dev/null; then
  mkdir "$work/old"
  printf '#!/bin/sh\ncase "$*" in *fuse-ld*) exit 1 ;; esac\n' >"$work/old/cc"
  chmod 755 "$work/old/cc"
  linker() { (unset CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS && PATH=$1$PATH && . bin/lib/env.sh && echo "${CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS:-}"); }
  test_that "mold links" [ -n "$(linker "")" ]
  test_that "but not where the compiler is too old for it" [ -z "$(linker "$work/old:")" ]
fi

# --- A part that is none

no_part() {
  local code=0
  in_checkout bin/test unit nonsense || code=$?
  [ "$code" = 2 ] && says "no part 'nonsense'; there are: lint unit db bot chaos scripts e2e"
}
test_that "bin/test knows its parts" no_part
if [ -e .ci/run ]; then
  mkdir -p "$work/judged/bin" "$work/judged/.ci"
  cp .ci/run "$work/judged/.ci/"
  printf '#!/bin/sh\necho "CI=$CI arguments=$#"\nexit 7\n' >"$work/judged/bin/test"
  chmod 755 "$work/judged/bin/test"
  judged() {
    local code=0
    "$work/judged/.ci/run" >"$log" 2>&1 || code=$?
    [ "$code" = 7 ] && [ "$(cat "$log")" = "CI=true arguments=0" ]
  }
  test_that "what decides over a change is the whole of bin/test" judged
fi

# --- Without root, something missing

if command -v apt-get >/dev/null 2>&1; then
  # Everything is there but brotli; the user is nobody, who cannot run what lies in a home directory.
  mkdir "$work/stubs"
  for program in cargo rustc rustup cc mold ps npm; do printf '#!/bin/sh\n' >"$work/stubs/$program"; done
  printf '#!/bin/sh\necho 22\n' >"$work/stubs/node"
  chmod 755 "$work/stubs"/* "$work/stubs" "$work/path"
  copy "$work/nobody"
  as=()
  if [ "$(id -u)" = 0 ]; then
    chown -R nobody "$work/nobody"
    as=(setpriv --reuid=nobody --clear-groups --)
  fi
  without_root() {
    local code=0 line='  sudo apt-get update && sudo apt-get install -y --no-install-recommends brotli'
    (cd "$work/nobody" && ${as[@]+"${as[@]}"} env -i HOME="$work/nobody" PATH="$work/stubs:$work/path" bin/run) >"$log" 2>&1 </dev/null || code=$?
    [ "$code" = 1 ] && [ "$(tail -1 "$log")" = "$line" ]
  }
  test_that "without root the line to type is told" without_root
  counts_it() {
    (cd "$work/nobody" && ${as[@]+"${as[@]}"} env -i HOME="$work/nobody" PATH="$work/stubs:$work/path" bin/test lint) >"$log" 2>&1 </dev/null && return 1
    [ "$(tail -1 "$log")" = "0 passed, 1 failed" ]
  }
  test_that "and bin/test ends with its counts all the same" counts_it

  # A user who is not root has no /run. One more session of theirs, cron has none at all, and each finds the same servers.
  servers_of() { # SESSION ARGUMENT…
    (cd "$work/nobody" && ${as[@]+"${as[@]}"} env -i HOME="$work/nobody" PATH="$work/path" ${1:+XDG_RUNTIME_DIR="$1"} bin/lib/services.sh "${@:2}" .local redis) 2>"$log"
  }
  for dir in one two; do
    mkdir -m 700 "$work/nobody/$dir"
    ${as[@]+chown nobody "$work/nobody/$dir"}
  done
  of_one=$(servers_of "$work/nobody/one" start || true)
  test_that "a user who is not root has servers" [ -n "$of_one" ]
  test_that "which another session finds" [ "$(servers_of "$work/nobody/two" urls || true)" = "$of_one" ]
  test_that "and cron" [ "$(servers_of "" urls || true)" = "$of_one" ]
fi

. bin/lib/test-install.sh

# --- The benchmark

bench() {
  in_checkout env BOTDECK_PROGRAM="$programs/botdeck" BENCH_PROGRAM="$programs/bench" bin/bench bot \
    --messages 30 --users 3 --rates 20 --seconds 1 --chats 0 --old 0 --json "$work/bench.json" &&
    says "answers/s" && node -e '
      const { bot } = JSON.parse(require("fs").readFileSync(process.argv[1]));
      const names = [...new Set(bot.runs.map(run => run.name))].sort().join("; ");
      const costs = run => run.answers_per_second > 0 && (process.platform !== "linux" || (run.cpu_ms > 0 && run.peak_memory_bytes > 0));
      process.exit(bot.runs.length === 8 && names === "Botdeck, polling; Botdeck, webhook; bare loop" && bot.runs.every(costs) ? 0 : 1);
    ' "$work/bench.json"
}
test_that "bin/bench measures three contestants under two loads, and streamed answers" bench

bench_gateway() {
  in_checkout env BOTDECK_PROGRAM="$programs/botdeck" BENCH_PROGRAM="$programs/bench" bin/bench gateway \
    --connections 2 --arrivals 20 --span 200 --streams 5 --json "$work/gateway.json" &&
    says "| memory of a stream in flight | 64 kB |" && node -e '
      const { gateway: { runs, held } } = JSON.parse(require("fs").readFileSync(process.argv[1]));
      const ways = [...new Set(runs.map(run => run.way))].join();
      const costs = run => run.calls > 1 && run.calls_per_second > 0 && run.p50_ms > 0 && run.first_p50_ms <= run.p50_ms && run.to_direct &&
        (process.platform !== "linux" || run.memory_bytes > 0);
      const apart = run => run.kind !== "Paced" || run.p50_ms >= 285;
      process.exit(runs.length === 24 && ways === "Direct,Proxy,Deck,LimitedDeck" && held.length === 3 &&
        runs.every(run => apart(run) && (run.way === "Direct" || costs(run))) ? 0 : 1);
    ' "$work/gateway.json"
}
test_that "bin/bench gateway measures four ways under two loads, plain and streamed" bench_gateway

# The bounds are wide, since the tests beside it take their share; a work factor that has slipped is tenfold out.
bench_argon2() {
  in_checkout env BOTDECK_PROGRAM="$programs/botdeck" BENCH_PROGRAM="$programs/bench" bin/bench argon2 --json "$work/argon2.json" &&
    node -e '
      const { readFileSync } = require("fs");
      const { median_ms, wanted_ms: [low, high], within, work } = JSON.parse(readFileSync(process.argv[1])).argon2;
      const fair = low < 100 && high > 100 && low >= 50 && high <= 200 && within === (median_ms >= low && median_ms <= high);
      const told = readFileSync(process.argv[2], "utf8").includes(`with argon2id v=19 m=47104,t=2,p=1: ${within ? "within" : "NOT within"} `);
      process.exit(fair && told && work && median_ms > 25 && median_ms < 1000 ? 0 : 1);
    ' "$work/argon2.json" "$log"
}
test_that "bin/bench argon2 tells whether a password hash takes about 100 ms" bench_argon2

# A site as it is built and compressed, out of what compresses well.
mkdir -p "$work/site/pkg"
for kind in wasm js css; do seq 5000 >"$work/site/pkg/botdeck.$kind"; done
bench_wasm() {
  in_checkout bash -c '. bin/lib/env.sh; . bin/lib/app.sh; precompress "$0"' "$work/site" &&
    in_checkout env BOTDECK_PROGRAM="$programs/botdeck" BENCH_PROGRAM="$programs/bench" LEPTOS_SITE_ROOT="$work/site" \
      bin/bench wasm --json "$work/wasm.json" && says "as sent, with brotli" && node -e '
      const { readFileSync, statSync } = require("fs");
      const { site } = JSON.parse(readFileSync(process.argv[1]));
      const size = name => statSync(`${process.argv[2]}/pkg/${name}`).size;
      const right = file => file.bytes === size(file.name) && file.brotli_bytes === size(`${file.name}.br`) && file.brotli_bytes < file.bytes / 2;
      process.exit(site.length === 3 && site.every(right) ? 0 : 1);
    ' "$work/wasm.json" "$work/site"
}
test_that "bin/bench wasm tells how much a browser loads, with brotli" bench_wasm

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
