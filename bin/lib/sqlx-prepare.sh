#!/usr/bin/env bash
# Writes server/repositories/.sqlx, by which `sqlx::query!` and its kin are checked when no database is at hand.
#
#   bin/lib/sqlx-prepare.sh           after changing a query or a migration; then commit server/repositories/.sqlx
#   bin/lib/sqlx-prepare.sh --check   says whether what is committed is still right (bin/test lint does)
#
# It does what `cargo sqlx prepare` does, without sqlx-cli (minutes to build): migrations/*.sql go into a throw-away Postgres, and
# `repositories` (the library; its tests use the unchecked functions) is compiled against that, with SQLX_OFFLINE_DIR telling the
# macros where to write what they learn. To work on queries for longer, keep a database and compile against it:
#
#   export $(BOTDECK_OWNER=$$ bin/lib/services.sh start --throwaway /tmp/botdeck-mine) SQLX_OFFLINE=false   # then apply the migrations
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. bin/lib/env.sh

kept=server/repositories/.sqlx
dir=$(mktemp -d "${TMPDIR:-/tmp}/botdeck-test-XXXXXX")
trap 'bin/lib/services.sh stop "$dir"; rm -rf "$dir"' EXIT
urls=$(BOTDECK_OWNER=$$ bin/lib/services.sh start --throwaway "$dir" postgres)
export DATABASE_URL=${urls#DATABASE_URL=} SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$dir/sqlx"
mkdir "$SQLX_OFFLINE_DIR"

for file in migrations/*.sql; do
  case "$file" in *.down.sql) continue ;; esac
  [ -e "$file" ] || continue
  whole=-1
  case "$(head -n 1 "$file")" in "-- no-transaction"*) whole= ;; esac
  psql -q -X $whole -v ON_ERROR_STOP=1 "$DATABASE_URL" -f "$file" >/dev/null || die "$file does not apply to an empty database"
done
# The nonce makes cargo compile it again, and touches nothing that other builds would then have to repeat.
cargo rustc -p repositories --lib --profile check -- --cfg "sqlx_prepare=\"$$-$RANDOM\"" --allow unexpected_cfgs

if [ "${1:-}" = --check ]; then
  mkdir -p "$dir/none"
  [ -d "$kept" ] || kept=$dir/none
  diff -rq "$kept" "$SQLX_OFFLINE_DIR" >&2 || die "server/repositories/.sqlx is out of date: run bin/lib/sqlx-prepare.sh and commit it"
else
  rm -rf "$kept"
  cp -r "$SQLX_OFFLINE_DIR" "$kept"
  chmod -R u=rwX,go=rX "$kept"
  echo "$(find "$kept" -name '*.json' | wc -l | tr -d ' ') queries written to $kept" >&2
fi
