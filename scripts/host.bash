# What the scripts share about the machine they run on: Debian packages and the container engine.
# Sourced, after `set -euo pipefail`. Says what it installs or starts before it does.
# shellcheck shell=bash disable=SC2034

# Administration tools are not on every user's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

sudo=()
if [[ $(id -u) != 0 ]]; then sudo=(sudo); fi

as_root() {
    command -v "${sudo[@]:-true}" >/dev/null || die "needs root for: $* (run as root, or install sudo)"
    "${sudo[@]}" "$@"
}

# need COMMAND=PACKAGE...: installs the packages whose command is missing.
need() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    if ((${#missing[@]})); then install_packages "${missing[@]}"; fi
}

install_packages() {
    command -v apt-get >/dev/null || die "needs these Debian packages, and there is no apt-get: $*"
    say "installing Debian packages: $*"
    local log
    log=$(mktemp -t apt.XXXXXX.log)
    if ! { as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } >"$log" 2>&1; then
        tail -n 10 "$log" >&2
        die "apt-get could not install them; its last lines are above"
    fi
    rm -f "$log"
}

# The engine's client, by `engine_up`: with sudo in front where the user may not use the socket.
engine=(docker)
engine_pid=

# Makes sure that an engine answers: installs one if there is none, starts it if it does not run.
engine_up() {
    need dockerd=docker.io iptables=iptables ps=procps
    need docker=docker-cli
    if engine_answers; then return 0; fi
    if [[ -d /run/systemd/system ]]; then
        say "starting the engine: systemctl start docker"
        as_root systemctl start docker
    else
        local log
        log=$(mktemp -t dockerd.XXXXXX.log)
        say "starting the engine: dockerd (no systemd here; its log is $log)"
        start_apart "$log" "${sudo[@]}" dockerd
        engine_pid=$!
    fi
    until_engine_answers "$engine_pid" "${log:-}"
}

# until_engine_answers PID LOG: PID is empty where it is not a process of ours.
until_engine_answers() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        if engine_answers; then return 0; fi
        if [[ -n $1 && ! -d /proc/$1 ]]; then
            tail -n 5 "$2" >&2
            die "dockerd ended; its last lines are above"
        fi
        sleep 0.2
    done
    die "the engine did not answer within 60 s"
}

engine_answers() {
    if docker info >/dev/null 2>&1; then
        engine=(docker)
    elif [[ $(id -u) != 0 ]] && command -v sudo >/dev/null && sudo docker info >/dev/null 2>&1; then
        engine=(sudo docker)
    else
        return 1
    fi
}

# start_apart LOG COMMAND...: in the background, as `$!`, and in a session of its own: Ctrl-C is for
# the script, which then stops what it started in order. Takes no lock (descriptor 9) along.
start_apart() {
    local log=$1
    shift
    setsid "$@" >"$log" 2>&1 </dev/null 9>&- &
}

# stop PID: SIGTERM, and SIGKILL after 40 s.
stop() {
    local tries
    for ((tries = 0; tries < 400; tries++)); do
        if [[ ! -d /proc/$1 || $(ps -o stat= -p "$1") == Z* ]]; then return 0; fi
        if ((tries == 0)); then kill "$1" 2>/dev/null || as_root kill "$1"; fi
        sleep 0.1
    done
    say "process $1 goes on after SIGTERM: killed"
    kill -9 "$1" 2>/dev/null || as_root kill -9 "$1"
}

# Stops the engine if `engine_up` started it as a process of its own.
engine_down() {
    if [[ -z $engine_pid ]]; then return 0; fi
    say "stopping the engine that was started here"
    stop "$engine_pid"
    engine_pid=
}
