#!/usr/bin/env bash
# Migrate, seed the demo album, serve it: `make run`. BIN is the folder of the programs, PORT the port.
# gunicorn takes this script's place, so whatever ends the one ends the other.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${BIN:?the folder with python, flask and gunicorn; make run sets it}"
export PORT=${PORT:-8000} HOST=127.0.0.1
export IMAGEAPI_INSTANCE=${IMAGEAPI_INSTANCE:-instance}
pictures=$IMAGEAPI_INSTANCE/demo

child=
stop() {
  if [ -n "$child" ]; then
    kill -TERM "$child" 2>/dev/null || true
    wait "$child" || true
  fi
  exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM
trap 'stop 129' HUP

# As `"$@"`, but in the background, so that a signal finds us listening.
step() {
  "$@" &
  child=$!
  wait "$child"
  child=
}

step "$BIN/python" demo/port.py

if [ -z "${IMAGEAPI_SECRET_KEYS:-}" ]; then
  (umask 077 && mkdir -p "$IMAGEAPI_INSTANCE")
  secret=$IMAGEAPI_INSTANCE/secret
  if [ ! -s "$secret" ]; then
    (umask 077 && "$BIN/python" -c 'import secrets; print(secrets.token_urlsafe(48))' >"$secret.new")
    mv "$secret.new" "$secret"
  fi
  IMAGEAPI_SECRET_KEYS=$(cat "$secret")
  export IMAGEAPI_SECRET_KEYS
fi

step "$BIN/flask" db upgrade
step "$BIN/python" demo/pictures.py "$pictures"
step "$BIN/flask" albums seed "$pictures" --album demo --owner demo
DEMO_TOKEN=$("$BIN/flask" token create --user demo)
export DEMO_TOKEN

("$BIN/python" demo/welcome.py $$ &)
unset DEMO_TOKEN
exec "$BIN/gunicorn" wsgi:app
