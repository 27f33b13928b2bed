#!/usr/bin/env bash
# Looks at an image of hotring whether it is what docs/kubernetes.md says: one static program below 20 MiB and nothing else, so no shell;
# a user by number; and it serves and ends without capabilities, over a root that cannot be written to.
#
#     deploy/check-image.sh hotring:0.1.0        an image of docker, podman or buildah, whichever is here
#     deploy/check-image.sh hotring.tar          what `docker save` wrote, or `buildah push IMAGE docker-archive:hotring.tar`
#
#     --with docker|podman|buildah               whose image it is
#     --max-mib N                                another bound for the size of the program
#
# docker and podman run the image themselves. Without them its root is run in namespaces by bubblewrap (bwrap), which needs no daemon.
# Ends with 0 if all holds, with 1 if something does not, and with 2 if that could not be found out.
set -uo pipefail

say() { printf '%s\n' "$*"; }
cannot() { say "cannot check: $*" >&2; exit 2; }

max_mib=20 tool='' image=''
while [ $# -gt 0 ]; do
    case $1 in
        --with) tool=${2:-}; shift ;;
        --max-mib) max_mib=${2:-}; shift ;;
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
        -*) cannot "there is no option $1" ;;
        *) image=$1 ;;
    esac
    shift
done
[ -n "$image" ] || cannot "which image? deploy/check-image.sh hotring:0.1.0"

has() { command -v "$1" >/dev/null 2>&1; }
if [ -f "$image" ]; then
    tool=archive
elif [ -z "$tool" ]; then
    if has docker && docker info >/dev/null 2>&1; then tool=docker
    elif has podman; then tool=podman
    elif has buildah; then tool=buildah
    else cannot "$image is no file, and there is neither docker (with its daemon), podman nor buildah"
    fi
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/hotring-image.XXXXXX") || exit 2
name=hotring-check-$$ pid=''
end() {
    [ -z "$pid" ] || kill -KILL "$pid"
    case $tool in docker | podman) "$tool" rm -f "$name" ;; esac
    rm -rf "$dir"
} >/dev/null 2>&1
trap end EXIT

failed=0
# holds WHAT COMMAND...: tells whether the command ends well, and remembers if it does not.
holds() {
    local what=$1
    shift
    if "$@"; then say "ok    $what"; else say "FAIL  $what"; failed=1; fi
}

case $tool in
    archive) cp "$image" "$dir/image.tar" ;;
    docker) docker save -o "$dir/image.tar" "$image" ;;
    podman) podman save --quiet --format docker-archive -o "$dir/image.tar" "$image" ;;
    buildah) buildah push --quiet "$image" "docker-archive:$dir/image.tar" ;;
    *) cannot "--with $tool: docker, podman or buildah" ;;
esac || cannot "$tool does not give out $image"

# --- What is written in it: https://github.com/opencontainers/image-spec/blob/main/config.md, and docker's manifest around it.
mkdir "$dir/image" "$dir/root"
tar -xf "$dir/image.tar" -C "$dir/image" || cannot "$image is no archive of an image"
[ -f "$dir/image/manifest.json" ] || cannot "$image is no archive of an image: it has no manifest.json"
manifest=$(tr -d ' \n\r\t' <"$dir/image/manifest.json")
settings=$(tr -d ' \n\r\t' <"$dir/image/$(printf %s "$manifest" | sed -n 's/.*"Config":"\([^"]*\)".*/\1/p')") || cannot "no settings in $image"
layers=$(printf %s "$manifest" | sed -n 's/.*"Layers":\[\([^]]*\)\].*/\1/p' | tr -d '"' | tr ',' ' ')

user=$(printf %s "$settings" | sed -n 's/.*"User":"\([^"]*\)".*/\1/p')
is_number() { [[ $user =~ ^[1-9][0-9]*:[1-9][0-9]*$ ]]; }
holds "user and group are numbers, and not root's: ${user:-root}" is_number
is_set() { [[ $settings == *"\"$1\":$2"* ]]; }
setting() { holds "$1: $2" is_set "$1" "$2"; }
setting Entrypoint '["/hotring"]'
setting Cmd '["-c","/etc/hotring/proxy.yaml"]'
setting StopSignal '"SIGTERM"'
setting 6380/tcp '{}'
setting 9380/tcp '{}'

# --- What is in it.
for layer in $layers; do
    tar -tvf "$dir/image/$layer" >>"$dir/listed" && tar -tf "$dir/image/$layer" >>"$dir/names" && tar -xf "$dir/image/$layer" -C "$dir/root" ||
        cannot "a layer of $image cannot be read"
done
files=$(sed -e 's,^\./,,' -e 's,/$,,' -e '/^$/d' "$dir/names" | sort -u | tr '\n' ' ')
holds "one file and nothing else, no shell: ${files% }" [ "$files" = "hotring " ]
holds "anybody may run it, and it gives no rights" grep -q '^-rwxr-xr-x .* \(\./\)\{0,1\}hotring$' "$dir/listed"
program=$dir/root/hotring
if [ -f "$program" ]; then
    size=$(($(wc -c <"$program")))
    holds "$((size / 1024)) KiB, less than $max_mib MiB" [ "$size" -lt $((max_mib * 1024 * 1024)) ]
    # A program that something else has to load names that in a program header, PT_INTERP (3): elf(5), 64 bits, little endian.
    number() { od -An -v -t "u$2" -j "$1" -N "$2" "$program" | tr -d ' \n'; }
    is_static() {
        [ "$(od -An -v -t x1 -N 6 "$program" | tr -d ' \n')" = 7f454c460201 ] || return 1
        local at step count
        at=$(number 32 8) step=$(number 54 2) count=$(number 56 2)
        while [ "$count" -gt 0 ]; do
            [ "$(number "$at" 4)" != 3 ] || return 1
            at=$((at + step)) count=$((count - 1))
        done
    }
    holds "the program is static" is_static
fi

# --- What it does, with nothing but its configuration and a directory for its socket, as a pod has it.
[ "$failed" -eq 0 ] || { say "not run, since it is not what it should be"; exit 1; }
mkdir "$dir/etc"
configure() {
    printf 'admin: %s\npools:\n  main: {listen: ["%s", /run/hotring/main.sock 0666], servers: embedded:3}\n' "$1" "$2" >"$dir/etc/proxy.yaml"
    chmod -R a+rX "$dir"
}
bare() { # without capabilities, /tmp, /proc or /dev; alone but for the network. Not as root even outside of the namespace.
    local as=()
    [ "$(id -u)" -ne 0 ] || as=(setpriv --reuid "${user%%:*}" --regid "${user##*:}" --clear-groups)
    "${as[@]+"${as[@]}"}" bwrap --ro-bind "$dir/root" / --ro-bind "$dir/etc" /etc/hotring --tmpfs /run/hotring --unshare-all --share-net \
        --uid "${user%%:*}" --gid "${user##*:}" --cap-drop ALL --clearenv --die-with-parent --as-pid-1 --chdir / "$@"
}
contained() {
    local only=()
    # podman would put directories that can be written to over /run, /tmp and more.
    [ "$tool" = docker ] || only=(--read-only-tmpfs=false)
    "$tool" run --read-only "${only[@]+"${only[@]}"}" --cap-drop ALL --security-opt no-new-privileges -v "$dir/etc:/etc/hotring:ro,Z" \
        --tmpfs /run/hotring:mode=1777 "$@"
}
case $tool in
    docker | podman)
        configure 0.0.0.0:9380 0.0.0.0:6380
        once() { contained --rm "$image" "$@"; }
        contained -d --name "$name" -p 127.0.0.1::6380 -p 127.0.0.1::9380 "$image" >"$dir/said" || cannot "$tool does not run $image"
        at() { "$tool" port "$name" "$1/tcp" | sed -n '1s/.*://p'; }
        runs() { [ "$("$tool" inspect -f '{{.State.Running}}' "$name")" = true ]; }
        stop() { "$tool" stop -t 20 "$name" >/dev/null && [ "$("$tool" inspect -f '{{.State.ExitCode}}' "$name")" = 0 ]; }
        ;;
    *)
        has bwrap || cannot "bubblewrap (bwrap) is needed to run what $tool has"
        configure 127.0.0.1:0 127.0.0.1:0
        # What a runtime mounts over is made by it.
        mkdir -p "$dir/root/etc/hotring" "$dir/root/run/hotring"
        once() { bare /hotring "$@"; }
        : >"$dir/said"
        # Its first process is the only one to be told.
        bare --info-fd 9 /hotring -c /etc/hotring/proxy.yaml >"$dir/said" 2>&1 9>"$dir/info" &
        pid=$!
        at() {
            case $1 in
                6380) sed -n 's/^  pool main .*127\.0\.0\.1:\([0-9]*\).*/\1/p' "$dir/said" ;;
                9380) sed -n 's/^  admin .*127\.0\.0\.1:\([0-9]*\).*/\1/p' "$dir/said" ;;
            esac
        }
        runs() { kill -0 "$pid" 2>/dev/null; }
        stop() {
            kill -TERM "$(sed -n 's/.*"child-pid": \([0-9]*\).*/\1/p' "$dir/info")" || return 1
            wait "$pid"
            local code=$?
            pid=''
            [ "$code" -eq 0 ]
        }
        ;;
esac

ask() { # PORT TEXT: the first line of the answer
    local line=''
    { exec 3<>"/dev/tcp/127.0.0.1/$1" && printf %b "$2" >&3 && IFS= read -r -t 10 line <&3; } 2>/dev/null
    exec 3>&- 3<&-
    printf %s "${line%$'\r'}"
}
says() { [ "$(ask "$(at "$1")" "$2")" = "$3" ]; }
page() { ask "$(at 9380)" "GET $1 HTTP/1.0\r\nHost: localhost\r\n\r\n" | grep -q '^HTTP/1.[01] 200 '; }
is_ready() {
    local tries=0
    until [ -n "$(at 9380)" ] && page /readyz; do
        runs && [ "$tries" -lt 300 ] || { cat "$dir/said"; return 1; }
        sleep 0.1
        tries=$((tries + 1))
    done
}
version=$(once --version)
holds "it says its version: $version" [ "${version%% *}" = hotring ]
if checked=$(once check -c /etc/hotring/proxy.yaml 2>&1); then checks=true; else checks=false; fi
holds "hotring check: $checked" "$checks"
holds "it starts, and /readyz is 200" is_ready
holds "/healthz is 200" page /healthz
holds "PING is answered" says 6380 'PING\r\n' +PONG
holds "SET is answered" says 6380 'SET greeting hello\r\n' +OK
holds "GET is answered" says 6380 'STRLEN greeting\r\n' :5
holds "SIGTERM ends it, with 0" stop
exit "$failed"
