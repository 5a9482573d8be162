# Sourced by every script: where build outputs go and which compiler is used. Nothing here installs anything.
export BOTDECK_CACHE="${BOTDECK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/botdeck}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$BOTDECK_CACHE/target}"
export SQLX_OFFLINE="${SQLX_OFFLINE:-true}"
# Tools of pinned versions (bin/lib/install.sh) come before any of the same name that the machine has.
case ":$PATH:" in
  *":$BOTDECK_CACHE/tools/bin:"*) ;;
  *) export PATH="$BOTDECK_CACHE/tools/bin:$BOTDECK_CACHE/tools/node_modules/.bin:$PATH" ;;
esac
# The Debian way of getting the wasm target links a rustup toolchain "web" (bin/lib/install.sh); server and frontend share it.
if [ -z "${RUSTUP_TOOLCHAIN:-}" ] && rustup toolchain list 2>/dev/null | grep -q '^web'; then
  export RUSTUP_TOOLCHAIN=web
fi
if command -v wasm-ld-19 >/dev/null 2>&1 && [ "${RUSTUP_TOOLCHAIN:-}" = web ]; then
  export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19
fi
# gcc knows mold by name since 12; asked for its version, the linker that it calls tells whether it does.
if [ "$(uname -sm)" = "Linux x86_64" ] && command -v mold >/dev/null 2>&1 && cc -fuse-ld=mold -Wl,--version >/dev/null 2>&1; then
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-Clink-arg=-fuse-ld=mold"
fi

# Two checkouts that share the cache: cargo names both's crates alike and goes by the files' times, so one could be given what was
# compiled from the other. The one that was not last here has the workspace's own crates compiled anew; the 600 others are shared.
botdeck_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
if [ -d "$CARGO_TARGET_DIR" ] && [ "$(cat "$CARGO_TARGET_DIR/.checkout" 2>/dev/null)" != "$botdeck_root" ]; then
  for botdeck_crate in app domain frontend server repositories services gateway bot jobs test-support bench; do
    find "$CARGO_TARGET_DIR" -maxdepth 5 -path "*/.fingerprint/$botdeck_crate-*" -type d -exec rm -rf {} + 2>/dev/null || true
  done
  echo "$botdeck_root" >"$CARGO_TARGET_DIR/.checkout"
fi
unset botdeck_root botdeck_crate

# One look for all scripts: `step` says what is being done, `die` what went wrong and what to do. Both on stderr, so that
# a script's output stays usable.
step() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf 'botdeck: %s\n' "$*" >&2; exit 1; }
