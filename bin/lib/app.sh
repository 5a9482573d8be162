# Sourced by bin/run, bin/botdeck, bin/bench: the built program and the settings it runs with. Needs env.sh; called in the checkout.
# The program, its site directory and the stamp of the sources that they were made from. BOTDECK_RELEASE names another directory with a
# program that is taken as it is, never built: tests give a debug build that way.
release=${BOTDECK_RELEASE:-$(pwd -P)/.local/release}

# What the build depends on: every file but tests, scripts and papers. Contents count, not times, so a checkout elsewhere is the same.
sources_hash() {
  {
    rustc --version
    find . -mindepth 1 -maxdepth 1 ! -name '.[!c]*' ! -name .ci ! -name bin ! -name end2end ! -name docs ! -name target ! -name '*.md' -print0 |
      xargs -0 -I{} find {} -type f ! -path '*/tests/*' ! -path '*/node_modules/*' | LC_ALL=C sort | tr '\n' '\0' | xargs -0 cksum
  } | cksum
}

# Beside each file that a browser loads, what it is sent: compressed once, as well as it goes, so that no request costs any
# compression (the server takes NAME.br or NAME.gz where it is there).
precompress() {
  local file
  for file in "$1"/pkg/*.wasm "$1"/pkg/*.js "$1"/pkg/*.css; do
    [ -f "$file" ] || continue
    brotli -q 11 -k -f "$file"
    gzip -9 -k -f "$file"
  done
}

# Built in the cache, where everything compiled lies, then copied: what runs is not changed under it by the next build.
build_release() {
  local want
  if [ -n "${BOTDECK_RELEASE:-}" ]; then
    [ -x "$release/botdeck" ] || die "BOTDECK_RELEASE names $release, and there is no botdeck in it"
    return
  fi
  want=$(sources_hash)
  if [ -x "$release/botdeck" ] && [ "$(cat "$release/stamp" 2>/dev/null)" = "$want" ]; then return; fi
  step "Building Botdeck, optimised (about 15 minutes the first time on two cores; only what changed after that)"
  LEPTOS_SITE_ROOT="$CARGO_TARGET_DIR/site-release" cargo leptos build --release >&2
  rm -rf "$release.new"
  mkdir -p "$release.new"
  cp "$CARGO_TARGET_DIR/release/botdeck" "$release.new/"
  cp -R "$CARGO_TARGET_DIR/site-release" "$release.new/site"
  precompress "$release.new/site"
  echo "$want" >"$release.new/stamp"
  rm -rf "$release"
  mv "$release.new" "$release"
}

# The master key for stored secrets: made once, kept for good; without it, what was stored cannot be read.
use_secret_key() {
  if [ -n "${BOTDECK_SECRET_KEY:-}${BOTDECK_SECRET_KEY_FILE:-}" ]; then return; fi
  if [ ! -s .local/secret.key ]; then
    step "Making the key for stored secrets: .local/secret.key (back it up with the database)"
    (umask 077 && head -c 32 /dev/urandom | base64 >.local/secret.key.new && mv .local/secret.key.new .local/secret.key)
  fi
  export BOTDECK_SECRET_KEY_FILE="$PWD/.local/secret.key"
}

# start or urls; sets what the environment has not. `own_services` says whether any are ours.
own_services=
use_services() {
  local wanted="" line urls
  [ -n "${DATABASE_URL:-}" ] || wanted="postgres"
  [ -n "${REDIS_URL:-}" ] || wanted="$wanted redis"
  [ -n "$wanted" ] || return 0
  # shellcheck disable=SC2086
  urls=$(bin/lib/services.sh "$1" .local $wanted) || return 1
  own_services=yes
  while read -r line; do
    # shellcheck disable=SC2163
    case "${line%%=*}" in DATABASE_URL) [ -n "${DATABASE_URL:-}" ] || export "$line" ;; REDIS_URL) [ -n "${REDIS_URL:-}" ] || export "$line" ;; esac
  done <<<"$urls"
}
stop_services() { [ -z "$own_services" ] || bin/lib/services.sh stop .local; }

# Where `botdeck serve --embedded` finds the same servers.
export BOTDECK_SERVICES="$PWD/bin/lib/services.sh" BOTDECK_LOCAL="$PWD/.local"
