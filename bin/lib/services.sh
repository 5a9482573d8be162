#!/usr/bin/env bash
# A private Postgres and Redis, reached through unix sockets only: no port is taken, nobody else can connect.
#
#   services.sh start [--throwaway] DIR [postgres] [redis]   start (or find running) both or the one; prints DATABASE_URL=… and REDIS_URL=…
#   services.sh stop DIR                                     stop what runs; a throw-away DIR is removed. Exit 3, and nothing is
#                                                            stopped, while a process has a lock on DIR/services.users
#   services.sh signal DIR postgres|redis SIGNAL             send a signal to one: QUIT is Postgres' immediate stop; for tests
#   services.sh urls DIR [postgres] [redis]                  print the URLs of what runs; exit 1 when something does not
#   services.sh sweep                                        remove throw-away servers whose test run was killed
#
# `--throwaway` gives up safety for speed, and is for tests; BOTDECK_OWNER is the process it lives for (our caller). Used by bin/test and `botdeck --embedded`.
# `start` takes the Postgres that lies somewhere below BOTDECK_POSTGRES, where that is set, instead of the newest that is installed.
set -euo pipefail
unset "${!PG@}"   # PGHOST and the like would send our own calls to another server
umask 077

die() { printf 'botdeck: %s\n' "$*" >&2; exit 1; }

# Postgres refuses to run as root; root hands both servers to the user that Debian's package made, or to whose they are already.
service_user=
if [ "$(id -u)" = 0 ]; then
  service_user=postgres
  id "$service_user" >/dev/null 2>&1 || die "no user 'postgres': install PostgreSQL first (bin/run does)"
fi
as_service() {
  if [ -n "$service_user" ]; then
    setpriv --reuid="$service_user" --regid="$(id -g "$service_user")" --init-groups -- "$@" 8>&- 9>&-
  else
    "$@" 8>&- 9>&-
  fi
}

# Two programs may start the same servers at the same moment: one after the other. The lock goes with the process
# that holds it (and not with the servers it starts: 9>&- above). macOS has no flock, and does without.
lock() {
  mkdir -p "$1"
  if command -v flock >/dev/null 2>&1; then
    exec 9>"$1/services.lock"
    flock -w 120 9 || die "another process has been starting or stopping the servers in $1 for two minutes"
  fi
}

# Who uses the servers holds a shared lock on this file (server/src/embedded.rs), so that nobody stops them under somebody else.
# Held by us until we end: who comes meanwhile waits, and then starts them anew. macOS has no flock, and does without.
unused() {
  command -v flock >/dev/null 2>&1 || return 0
  exec 8>>"$1/services.users"
  flock -n 8
}

# Server programs are not on Debian's PATH, and data made by one major version is read by that one only.
pg_bin() {
  local want="" dir
  if [ -d "$home/programs" ]; then dirname "$(find "$home/programs" -path '*/bin/initdb')"; return; fi
  [ ! -s "$home/postgres/PG_VERSION" ] || want=$(cat "$home/postgres/PG_VERSION")
  for dir in $(ls -d /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin 2>/dev/null | sort -rV) \
    "$(dirname "$(command -v initdb || echo /)")"; do
    [ -x "$dir/initdb" ] || continue
    case "$("$dir/postgres" --version)" in *" $want"*) echo "$dir"; return ;; esac
  done
  die "no PostgreSQL ${want:-server} found${want:+ (the data in $home/postgres needs that version)}"
}

# Sets `home` (data and logs) and `sock` (sockets). A socket's path may have 107 bytes at most, so it is short and
# keyed by the directory, and by nothing of the caller's session: cron and sudo would look elsewhere. Data lies in DIR,
# unless the service user cannot get there (a checkout below /root): then in /var/lib/botdeck, with a link to it.
locate() {
  mkdir -p "$1"
  dir=$(cd "$1" && pwd -P)
  local key base=/tmp uid owner line
  key=$(printf %s "$dir" | cksum | cut -d' ' -f1)
  uid=$(id -u)
  home=$dir/services
  if [ -n "$service_user" ]; then
    # A root who comes by sudo to a person's checkout.
    owner=$(stat -Lc %U "$home" 2>/dev/null || echo root)
    if [ "$owner" != root ] && [ "$owner" != "$service_user" ]; then
      service_user=$owner
      uid=$(id -u "$owner")
    elif [ -w /run ]; then
      base=/run
    fi
  fi
  sock=$base/botdeck-$uid-$key
  if [ -n "$service_user" ] && [ ! -e "$home" ] && ! as_service test -x "$dir"; then
    # A throw-away directory and .local are ours to open; what lies above them is not.
    chmod go+x "$dir" && as_service test -x "$dir" || {
      rm -f "$home"
      install -d -m 711 /var/lib/botdeck
      ln -s "/var/lib/botdeck/$key" "$home"
      home=/var/lib/botdeck/$key
    }
  fi
  if [ -L "$home" ]; then home=$(readlink "$home"); fi
  # One that runs says itself where it is reached: scripts of another release may have started it.
  if pg_pid >/dev/null; then
    line=$(sed -n 5p "$home/postgres/postmaster.pid" || true)
    sock=${line:-$sock}
  fi
}

make_dirs() {
  local d
  for d in "$home" "$sock"; do
    [ -d "$d" ] || mkdir -p "$d"
    [ ! -L "$d" ] || die "$d is a link"   # by which root would give away what it leads to
    if [ -n "$service_user" ]; then
      chown "$service_user:" "$d"
    else
      [ -O "$d" ] || die "$d belongs to somebody else"   # someone may have put it into /tmp before us
    fi
    chmod 700 "$d"
  done
}

# --- Postgres

pg_pid() { # the postmaster of this very data directory, if it lives; a pid file alone proves nothing
  local pid
  pid=$(head -1 "$home/postgres/postmaster.pid" 2>/dev/null) || return 1
  case "$(ps -o args= -p "$pid" 2>/dev/null)" in *"$home/postgres"*) echo "$pid" ;; *) return 1 ;; esac
}
pg_ready() { "$bin/pg_isready" -q -h "$sock" -t 2; }
pg_stop() {
  as_service "$bin/pg_ctl" -D "$home/postgres" -m fast -t 30 -w stop >/dev/null 2>&1 ||
    as_service "$bin/pg_ctl" -D "$home/postgres" -m immediate -t 10 -w stop >/dev/null 2>&1 || true
}

start_postgres() {
  local init opts ctype=C.UTF-8 try pid
  bin=$(pg_bin)
  if pg_pid >/dev/null; then
    pg_ready && return
    pg_stop   # runs, but its socket is gone or it hangs
  fi
  if [ ! -s "$home/postgres/PG_VERSION" ]; then
    [ "$(uname)" != Darwin ] || ctype=en_US.UTF-8
    init=(-U botdeck -A trust -E UTF8 --locale=C --lc-ctype="$ctype")   # a real ctype: searches ignore case in Russian too
    if [ -n "$throwaway" ]; then init+=(--no-sync); else init+=(--data-checksums); fi
    # Made aside and moved, so that an initdb that was killed leaves no half of a data directory.
    rm -rf "$home/postgres.new"
    as_service "$bin/initdb" "${init[@]}" -D "$home/postgres.new" >"$home/initdb.log" 2>&1 ||
      { cat "$home/initdb.log" >&2; die "initdb failed"; }
    mv "$home/postgres.new" "$home/postgres"
  fi
  # Postgres sees through the pid file of a dead process by itself, but not when the number has gone to another process.
  pid=$(head -1 "$home/postgres/postmaster.pid" 2>/dev/null || true)
  if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then rm -f "$home/postgres/postmaster.pid"; fi
  rm -f "$sock"/.s.PGSQL.*
  opts="-k $sock -c listen_addresses= -c unix_socket_permissions=0700 -c max_connections=200"
  if [ -n "$throwaway" ]; then opts+=" -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_wal_size=4GB -c max_connections=400"; fi
  # Backends of a killed postmaster may need a moment to go.
  for try in 1 2 3 4 5 6 7 8 9 10; do
    as_service "$bin/pg_ctl" -D "$home/postgres" -l "$home/postgres.log" -o "$opts" -t 60 -w start >/dev/null 2>&1 && break
    pg_ready && break
    [ "$try" != 10 ] || { tail -20 "$home/postgres.log" >&2; die "Postgres did not start; its log is $home/postgres.log"; }
    sleep 1
  done
  if [ "$("$bin/psql" -h "$sock" -U botdeck -d postgres -tAc "select count(*) from pg_database where datname = 'botdeck'")" = 0 ]; then
    "$bin/createdb" -h "$sock" -U botdeck botdeck
  fi
}

# --- Redis: only speed, so nothing of it is kept.

redis_ready() { [ "$(redis-cli -s "$sock/redis.sock" ping 2>/dev/null)" = PONG ]; }
stop_redis() {
  local pid
  redis-cli -s "$sock/redis.sock" shutdown nosave >/dev/null 2>&1 || true
  pid=$(cat "$home/redis.pid" 2>/dev/null) || return 0
  case "$(ps -o args= -p "$pid" 2>/dev/null)" in *redis-server*"$sock"*) kill -9 "$pid" ;; esac
  rm -f "$home/redis.pid"
}

start_redis() {
  if redis_ready; then return; fi
  stop_redis
  rm -f "$sock/redis.sock"
  as_service redis-server --port 0 --unixsocket "$sock/redis.sock" --unixsocketperm 700 --save '' --appendonly no \
    --daemonize yes --pidfile "$home/redis.pid" --logfile "$home/redis.log" --dir "$home" >/dev/null
  local try
  for try in $(seq 50); do
    if redis_ready; then return; fi
    sleep 0.1
  done
  tail -20 "$home/redis.log" >&2
  die "Redis did not start; its log is $home/redis.log"
}

# ---

print_urls() {
  case " $what " in *" postgres "*) echo "DATABASE_URL=postgres://botdeck@localhost/botdeck?host=$sock" ;; esac
  case " $what " in *" redis "*) echo "REDIS_URL=redis+unix://$sock/redis.sock" ;; esac
}

stop_all() {
  [ -d "$1" ] || return 0
  locate "$1"
  bin=
  if pg_pid >/dev/null; then
    bin=$(pg_bin)
    pg_stop
  fi
  stop_redis
  rm -rf "$sock"
  if [ -e "$dir/throwaway" ]; then
    if [ -L "$dir/services" ]; then rm -rf "$home"; fi
    rm -rf "$dir"
  fi
}

command=${1:-}
[ $# = 0 ] || shift
throwaway=
if [ "${1:-}" = --throwaway ]; then throwaway=yes; shift; fi
case "$command" in
  start | stop | signal | urls) [ -n "${1:-}" ] || die "services.sh $command: which directory?" ;;
esac
case "$command" in
  start)
    what="${*:2}"
    what="${what:-postgres redis}"
    locate "$1"
    lock "$dir"
    # Whose the throw-away servers are: when that process is gone, anyone may sweep them.
    if [ -n "$throwaway" ]; then echo "${BOTDECK_OWNER:-$PPID}" >"$dir/throwaway"; fi
    make_dirs
    # Copied, since the service user may not get to where it lies, and whoever stops it need not know where that is.
    if [ -n "${BOTDECK_POSTGRES:-}" ] && [ ! -d "$home/programs" ]; then
      cp -R "$BOTDECK_POSTGRES" "$home/programs"
      chmod -R go+rX "$home/programs"
    fi
    cd "$home"   # the service user need not be able to enter where we were called
    case " $what " in *" postgres "*) start_postgres ;; esac
    case " $what " in *" redis "*) start_redis ;; esac
    print_urls
    ;;
  stop)
    [ -d "$1" ] || exit 0
    lock "$1"
    unused "$1" || { echo "botdeck: the servers in $1 are in use by another process, and go on" >&2; exit 3; }
    stop_all "$1"
    ;;
  signal)
    locate "$1"
    case "${2:-}" in
      postgres) pid=$(pg_pid) || die "no Postgres runs in $1" ;;
      redis) pid=$(cat "$home/redis.pid" 2>/dev/null) || die "no Redis runs in $1" ;;
      *) die "services.sh signal: postgres or redis?" ;;
    esac
    kill "-${3:?which signal}" "$pid"
    ;;
  urls)
    what="${*:2}"
    what="${what:-postgres redis}"
    locate "$1"
    case " $what " in *" postgres "*) bin=$(pg_bin) && pg_pid >/dev/null && pg_ready || exit 1 ;; esac
    case " $what " in *" redis "*) redis_ready || exit 1 ;; esac
    print_urls
    ;;
  sweep)
    for mark in "${TMPDIR:-/tmp}"/botdeck-test-*/throwaway; do
      [ -O "$mark" ] || continue
      if kill -0 "$(cat "$mark")" 2>/dev/null; then continue; fi
      # What bin/lib/test-scripts.sh had started; no other process has that directory's name.
      pkill -9 -f "^${mark%/*}/(release|target/debug)/botdeck " || true
      for used in "${mark%/*}"/*/.local; do (stop_all "$used"); done
      stop_all "${mark%/*}"
    done
    ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
