#!/bin/sh
# Installs a site from a bundle of `hybrid site bundle`, or checks one. Run `sh install.sh --help`.
# POSIX shell. Everything is checked before anything is loaded; files come into place by rename; another run goes on where
# one was cut off, and changes nothing where all is done.
set -eu
umask 022
LC_ALL=C
export LC_ALL

READY_S=${HYBRID_READY_S:-180}

usage() {
  cat <<'TEXT'
Usage: sh install.sh BUNDLE --key PUBLIC_KEY FOLDER [--secrets FOLDER] [--set NAME=VALUE]...
       sh install.sh BUNDLE --key PUBLIC_KEY --verify

Installs the site in BUNDLE into FOLDER and starts it; with --verify only checks the bundle.

  --key PUBLIC_KEY   signing_key.pub.pem of who made the bundle, from a source that you trust
  --secrets FOLDER   files for the site's secrets/; what is not given is made, if it can be made here
  --set NAME=VALUE   a line of the site's .env for this box, kept for later bundles; repeat

Needs sh, tar, sha256sum, openssl 3, docker, and docker-compose or docker's compose plugin. No network, no Python.

Exit status: 0 done; 1 a command failed, in its own words; 2 wrong use; 3 this box lacks something; 4 installed, but not
ready; 5 the bundle is damaged, or not signed by that key.
TEXT
}

say() { echo "install: $*" >&2; }
stop() {
  status=$1
  shift
  say "$*"
  exit "$status"
}
megabytes() { echo "$((($1 + 999999) / 1000000)) MB"; }

# --- what the manifest says (deploy/site/manifest.py has its form)

of() { sed -n "s/^$1 //p" "$work/manifest"; }
# only the bytes under the signed digest are ever read, whatever else was put behind them
unpack() { head -c "$archive_bytes" "$bundle" | tar -x -f - "$@"; }

check_tools() {
  for tool in tar sha256sum openssl head wc sed awk df mktemp; do
    command -v "$tool" >/dev/null || stop 3 "$tool is not here; install it"
  done
}

verify() {
  for name in manifest manifest.sig; do
    # nothing vouches for it yet, so it may not fill the disk
    tar -xOf "$bundle" "$name" 2>/dev/null | head -c 16777216 >"$work/$name"
    [ -s "$work/$name" ] || stop 5 "$bundle: no $name in it; it was cut off or damaged: copy it again"
  done
  openssl pkey -pubin -in "$key" -noout 2>/dev/null || stop 2 "$key: no public key"
  openssl pkeyutl -verify -rawin -pubin -inkey "$key" -in "$work/manifest" -sigfile "$work/manifest.sig" >/dev/null 2>&1 ||
    stop 5 "$bundle: not signed by $key, or damaged; nothing was installed"
  [ "$(sed -n 1p "$work/manifest")" = "hybrid-bundle 1" ] || stop 5 "$bundle: of another form than this installer's; use the one in it"
  wanted=$(of archive)
  archive_bytes=${wanted#* }
  # behind those bytes: two headers, the manifest and its signature in whole blocks, and two empty blocks
  blocks=$((5 + ($(wc -c <"$work/manifest") + 511) / 512))
  [ "$(wc -c <"$bundle")" -eq $((archive_bytes + 512 * blocks)) ] ||
    stop 5 "$bundle: longer or shorter than it was made: copy it again; nothing was installed"
  say "checking $(megabytes "$archive_bytes") ..."
  [ "$(head -c "$archive_bytes" "$bundle" | sha256sum)" = "${wanted% *}  -" ] ||
    stop 5 "$bundle: damaged since it was signed: copy it again; nothing was installed"
  say "$(of site), version $(of version), made $(of created): signed, every byte as it was"
}

# --- what the box must have

find_engine() {
  command -v docker >/dev/null || stop 3 "docker is not here; install it"
  docker info >/dev/null 2>&1 || stop 3 "the container engine does not answer; start it, or run this as a user who may use it"
  if docker compose version >/dev/null 2>&1; then
    compose="docker compose"
  elif command -v docker-compose >/dev/null; then
    compose=docker-compose
  else
    stop 3 "no compose is here; install docker-compose, or docker's compose plugin"
  fi
}

missing_images() {
  of image | while read -r id name; do
    [ "$(docker image inspect -f '{{.Id}}' "$name" 2>/dev/null)" = "$id" ] || echo "$name"
  done
}

# $1: folder (it or one above it exists), $2: bytes
check_room() {
  folder=$1
  while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
  free=$(($(df -Pk "$folder" | awk 'NR == 2 {print $4}') * 1024))
  say "needs at most $(megabytes "$2") in $1; $(megabytes "$free") are free"
  [ "$free" -ge "$2" ] || stop 3 "$1: no room"
}

check_secrets() {
  lacking=
  for secret in $(of secret); do
    [ -s "$target/secrets/$secret" ] || [ -s "${given:-/nowhere}/$secret" ] && continue
    case $secret in
      keys.yaml | valkey_password | valkey_users | grafana_password) ;;
      *) lacking="$lacking $secret" ;;
    esac
  done
  [ -z "$lacking" ] || stop 3 "these secrets cannot be made here:$lacking; give their folder with --secrets"
}

load_images() {
  # the engine unpacks the whole archive before it keeps its layers
  root=$(docker info -f '{{.DockerRootDir}}')
  [ ! -d "$root" ] || check_room "$root" "$(($(of unpacked) * 2))"
  say "loading the images ..."
  unpack -O images.tar.gz | docker load -q >&2 || stop 3 "the engine did not take the images; free its disk, then run this again"
  of image | while read -r id name; do
    docker image inspect "$name" >/dev/null 2>&1 || stop 3 "$name ($id): not there after loading"
  done
}

# --- secrets: what is there stays; what was given is taken; the rest is made

put_secret() { # $1: name; its content comes on standard input
  mkdir -p "$target/secrets"
  chmod 700 "$target/secrets"
  cat >"$target/secrets/.new"
  # a container that it is mounted in runs as another user; the folder keeps others of this host out
  chmod 444 "$target/secrets/.new"
  mv -f "$target/secrets/.new" "$target/secrets/$1"
}
random() { openssl rand -base64 32 | tr '+/' '-_' | tr -d '=\n'; }
digest() { printf %s "$1" | sha256sum | cut -c 1-64; }

place_secrets() {
  for secret in $(of secret); do
    [ -s "$target/secrets/$secret" ] && continue
    changed=yes
    if [ -s "${given:-/nowhere}/$secret" ]; then
      put_secret "$secret" <"$given/$secret"
    else
      make_secret "$secret"
    fi
  done
}

make_secret() {
  case $1 in
    keys.yaml)
      api_key="hy-$(random)"
      # shown before its digest is kept, so that no cut can leave a key that nobody knows
      say "the API key of the first client, who is an operator; it is kept nowhere:"
      echo "$api_key"
      printf '"%s":\n  tenant: operator\n  operator: true\n' "$(digest "$api_key")" | put_secret keys.yaml
      ;;
    valkey_password | grafana_password) random | put_secret "$1" ;;
    valkey_users)
      [ -s "$target/secrets/valkey_password" ] || make_secret valkey_password
      password=$(cat "$target/secrets/valkey_password")
      echo "user default on #$(digest "$password") ~* &* +@all" | put_secret valkey_users
      ;;
  esac
}

# --- files

# a run that was cut off leaves these behind; they are made anew
stage() {
  staged=$target/.bundle/new
  rm -rf "$staged"
  mkdir -p "$staged"
  chmod 700 "$target/.bundle"
  # not every tar can exclude; a bundle's names have no spaces
  # shellcheck disable=SC2046
  unpack -o -C "$staged" $(of file | awk '$3 != "images.tar.gz" {print $3}') || stop 3 "$staged: cannot be written; see above, then run this again"
  set_answers "$staged/site/.env"
}

set_answers() {
  cat "$target/.bundle/answers" "$work/answers" >"$work/all" 2>/dev/null || : # none were kept yet
  : >"$work/kept"
  while IFS= read -r answer; do # the last one of a name counts, and stands once
    for file in "$1" "$work/kept"; do
      grep -v "^${answer%%=*}=" "$file" >"$work/rest" || :
      printf '%s\n' "$answer" >>"$work/rest"
      cat "$work/rest" >"$file"
    done
  done <"$work/all"
  cp "$work/kept" "$target/.bundle/answers.new"
  mv -f "$target/.bundle/answers.new" "$target/.bundle/answers"
}

# models are listed before the site's files, which name them
place_files() {
  of file | while read -r _ _ path; do
    [ "$path" != images.tar.gz ] || continue
    place=$target/${path#site/}
    mkdir -p "$(dirname "$place")"
    mv -f "$staged/$path" "$place"
  done
  rm -rf "$staged"
}

# --- running

containers() { (cd "$target" && $compose ps -q); }
state() { docker inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}' "$1"; }
image_of() { docker inspect -f '{{.Config.Image}}' "$1"; }

start() {
  [ "$changed" = no ] || again=--force-recreate # compose does not see that a file which it mounts is another
  # compose may be two words, and no option is none
  # shellcheck disable=SC2086
  (cd "$target" && $compose up -d --remove-orphans ${again:-}) >&2 || stop 4 "compose could not start the site in $target"
}

is_ready() {
  all=$(containers)
  [ -n "$all" ] || return 1
  for container in $all; do
    case $(state "$container") in healthy | running) ;; *) return 1 ;; esac
    case $(image_of "$container") in
      *hybrid-router:*)
        docker exec "$container" python -m router.health_cli http://127.0.0.1:8080/health/ready >/dev/null 2>&1 || return 1
        ;;
    esac
  done
}

wait_until_ready() {
  waited_s=0
  until is_ready; do
    if [ "$waited_s" -ge "$READY_S" ]; then
      for container in $(containers); do
        say "$(docker inspect -f '{{.Name}}' "$container"): $(state "$container"): $(docker logs --tail 1 "$container" 2>&1)"
      done
      stop 4 "not ready after $READY_S s"
    fi
    sleep 1
    waited_s=$((waited_s + 1))
  done
}

# --- the whole

bundle='' key='' target='' given='' only_verify=no changed=no
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
: >"$work/answers"
while [ $# -gt 0 ]; do
  case $1 in
    --key | --secrets | --set) [ $# -ge 2 ] || stop 2 "$1 needs a value" ;;
  esac
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --verify) only_verify=yes ;;
    --key) key=$2 && shift ;;
    --secrets) given=$2 && shift ;;
    --set)
      case ${2%%=*} in '' | "$2" | *[!A-Z0-9_]*) stop 2 "--set $2: give NAME=VALUE" ;; esac
      printf '%s\n' "$2" >>"$work/answers"
      changed=yes
      shift
      ;;
    -*) stop 2 "$1: unknown; see --help" ;;
    *) if [ -z "$bundle" ]; then bundle=$1; elif [ -z "$target" ]; then target=$1; else stop 2 "$1: one too many; see --help"; fi ;;
  esac
  shift
done
if [ -z "$bundle" ] || [ -z "$key" ] || { [ -z "$target" ] && [ $only_verify = no ]; }; then
  usage >&2
  exit 2
fi
[ -r "$bundle" ] || stop 2 "$bundle: cannot be read"
[ -r "$key" ] || stop 2 "$key: cannot be read"
[ -z "$given" ] || [ -d "$given" ] || stop 2 "$given: no folder"

check_tools
verify
[ $only_verify = no ] || exit 0

case $target in /*) ;; *) target=$PWD/$target ;; esac
if [ -d "$target" ] && [ ! -d "$target/.bundle" ] && [ -n "$(ls -A "$target")" ]; then
  stop 2 "$target: is not empty, and no bundle was installed there; name another folder"
fi
check_secrets
find_engine
cmp -s "$work/manifest" "$target/.bundle/manifest" || changed=yes
[ $changed = no ] || check_room "$target" "$(of file | awk '$3 != "images.tar.gz" {sum += $2} END {print sum * 2}')"
if [ -n "$(missing_images)" ]; then
  load_images
else
  say "the images are here already"
fi
mkdir -p "$target/.bundle"
place_secrets
if [ $changed = yes ]; then
  stage
  place_files
fi
say "starting ..."
start
cp "$work/manifest" "$target/.bundle/manifest.new"
mv -f "$target/.bundle/manifest.new" "$target/.bundle/manifest"
wait_until_ready
address=$(sed -n 's/^ENDPOINT_ADDRESS=//p' "$target/.env")
port=$(sed -n 's/^ENDPOINT_PORT=//p' "$target/.env")
say "ready: http://${address:-127.0.0.1}:${port:-8080}/v1"
