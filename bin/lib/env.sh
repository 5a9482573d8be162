# Sourced by every script: where build outputs go and which compiler is used. Nothing here installs anything.
export BOTDECK_CACHE="${BOTDECK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/botdeck}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$BOTDECK_CACHE/target}"
export SQLX_OFFLINE="${SQLX_OFFLINE:-true}"
# The Debian way of getting the wasm target links a rustup toolchain "web" (bin/lib/install.sh); server and frontend share it.
if [ -z "${RUSTUP_TOOLCHAIN:-}" ] && rustup toolchain list 2>/dev/null | grep -q '^web'; then
  export RUSTUP_TOOLCHAIN=web
fi
if command -v wasm-ld-19 >/dev/null 2>&1 && [ "${RUSTUP_TOOLCHAIN:-}" = web ]; then
  export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19
fi
if command -v mold >/dev/null 2>&1 && [ "$(uname -sm)" = "Linux x86_64" ]; then
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-Clink-arg=-fuse-ld=mold"
fi
