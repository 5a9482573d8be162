# Sourced by bin/run, bin/botdeck, bin/bench: the built program. Needs env.sh; called in the checkout.
# The program, its site directory and the stamp of the sources that they were made from. BOTDECK_RELEASE names another directory with a
# program that is taken as it is, never built: tests give a debug build that way.
release=${BOTDECK_RELEASE:-$(pwd -P)/.local/release}

# What the build depends on, and nothing else: people keep settings and logs beside it. Contents count, not times, so a checkout
# elsewhere is the same.
sources_hash() {
  {
    rustc --version
    find Cargo.toml Cargo.lock .cargo app frontend server migrations public style -type f ! -path '*/tests/*' |
      LC_ALL=C sort | tr '\n' '\0' | xargs -0 cksum
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

# Where the program finds the servers that `--embedded` starts for what is set nowhere.
export BOTDECK_SERVICES="$PWD/bin/lib/services.sh"
