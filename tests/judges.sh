# What tests/peers/run and scripts/conformance share: programs that are missing are installed,
# servers are started on free ports and stopped, judges are run and counted. Sourced, not run.
#
# A judge is a program that prints one line per fact: `ok   WORDS` or `FAIL WORDS: WHY`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
cache=$target/judges
work=$(mktemp -d)
mkdir -p "$cache"

started=()
stop() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
    started=()
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

say() { printf '%s\n' "$*"; }
die() { say "$0: $*" >&2; exit 1; }

# --- programs ------------------------------------------------------------------------------------

need() { # need WHAT CHECK PACKAGE...
    local what=$1 check=$2
    shift 2
    if bash -c "$check" >/dev/null 2>&1; then return; fi
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "$what is missing; install: $*"
    say "$what is missing: installing $* with apt-get"
    apt-get update -q >"$work/apt.log" 2>&1 &&
        DEBIAN_FRONTEND=noninteractive apt-get install -qy "$@" >>"$work/apt.log" 2>&1 ||
        { tail -5 "$work/apt.log" >&2; die "apt-get could not install $*"; }
    bash -c "$check" >/dev/null 2>&1 || die "$what is still missing after apt-get install $*"
}

# Whether a package file was installed before; a run without changes needs no network.
installed() { cmp -s "$1" "$2/installed"; }

need_node() { # Node and, where NODE_PACKAGES says, Stripe's library for it
    need 'Node 20 or newer' 'node -e "if (parseInt(process.versions.node) < 20) process.exit(1)"' nodejs
    local peers=$root/tests/peers
    export NODE_PACKAGES=$cache/node
    if installed "$peers/package-lock.json" "$NODE_PACKAGES"; then return; fi
    need npm 'npm --version' npm
    say 'installing npm packages'
    mkdir -p "$NODE_PACKAGES"
    cp "$peers"/package.json "$peers"/package-lock.json "$NODE_PACKAGES"
    (cd "$NODE_PACKAGES" && npm ci --ignore-scripts --no-audit --no-fund) >"$work/npm.log" 2>&1 ||
        { tail -5 "$work/npm.log" >&2; die 'npm could not install its packages'; }
    cp "$peers/package-lock.json" "$NODE_PACKAGES/installed"
}

build() { # build: what the judges talk to
    say 'building the programs'
    (cd "$root" && cargo build --quiet --locked -p farebox-examples -p farebox)
    export AGENT=$target/debug/agent
}

# --- servers -------------------------------------------------------------------------------------

# Reads a line that a server prints when it is ready, for at most 20 seconds.
line() { # line LOG PREFIX
    local found
    for _ in $(seq 200); do
        found=$(sed -n "s|^ *\(export \)\?$2||p" "$1")
        if [ -n "$found" ]; then printf '%s' "$found"; return; fi
        sleep 0.1
    done
    cat "$1" "${1%.out}.err" >&2
    die "no line '$2' within 20 seconds"
}

start() { # start NAME COMMAND...
    local name=$1
    shift
    : >"$work/$name.out"
    "$@" >"$work/$name.out" 2>"$work/$name.err" &
    started+=($!)
}

stripe_of() { # stripe_of NAME: exports what the stand-in for Stripe printed
    STRIPE_API_BASE=$(line "$work/$1.out" STRIPE_API_BASE=)
    STRIPE_SECRET_KEY=$(line "$work/$1.out" STRIPE_SECRET_KEY=)
    STRIPE_PUBLISHABLE_KEY=$(line "$work/$1.out" STRIPE_PUBLISHABLE_KEY=)
    export STRIPE_API_BASE STRIPE_SECRET_KEY STRIPE_PUBLISHABLE_KEY
}

start_paid_api() { # start_paid_api NAME
    start "$1" env -C "$work" FAREBOX_LISTEN=127.0.0.1:0 FAREBOX_LEDGER=memory: FAREBOX_ADMISSION=unlimited "$target/debug/paid-api"
    PAID_API=$(line "$work/$1.out" 'listening on ')
    export PAID_API
}

# --- facts ---------------------------------------------------------------------------------------

passed=0
failed=0
rows=() # for the table: passed, failed, seconds, title

paint() { # indents the facts; green and red on a terminal only
    if [ -t 1 ]; then
        sed -u -e 's/^ok /\x1b[32mok\x1b[0m /' -e 's/^FAIL /\x1b[31mFAIL\x1b[0m /' -e 's/^/  /'
    else
        sed -u 's/^/  /'
    fi
}

judge() { # judge TITLE COMMAND...
    local title=$1 log=$work/facts code=0 ok bad since=${EPOCHREALTIME/./}
    shift
    printf '\n%s\n' "$title"
    timeout --foreground 180 "$@" 2>"$log.err" | tee "$log" | paint || code=$?
    ok=$(grep -c '^ok ' "$log") || true
    bad=$(grep -c '^FAIL ' "$log") || true
    # A judge that breaks off, or judges nothing, has not passed.
    if [ "$bad" = 0 ] && { [ "$code" != 0 ] || [ "$ok" = 0 ]; }; then
        say "FAIL it ended with status $code after $ok facts" | paint
        tail -20 "$log.err" | sed 's/^/  /'
        bad=1
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
    rows+=("$(printf '%6d %6d %6d.%d  %s' "$ok" "$bad" $((tenths = (${EPOCHREALTIME/./} - since) / 100000, tenths / 10)) $((tenths % 10)) "$title")")
}

verdict() { # verdict: the table, and whether everything passed
    printf '\n%6s %6s %8s\n' passed failed seconds
    printf '%s\n' "${rows[@]}"
    printf '%6d %6d\n' "$passed" "$failed"
    [ "$failed" = 0 ]
}
