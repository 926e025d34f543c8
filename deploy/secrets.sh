#!/bin/sh
# Makes the secrets of docker-compose.yml: random passwords, one file each, in ./secrets.
#
#   sh deploy/secrets.sh            makes the missing ones only
#   sh deploy/secrets.sh NAME...    replaces these: postgres, nats, admin, torrentino
#
# secrets/torrentino_api_key is made empty: put Torrentino's API key into it. docs/operations.md has
# the further steps after a replacement. PUID, PGID, SECRETS_DIR and NATS_SCHEME (nats or tls) come
# from the environment or from .env.
set -eu
cd "$(dirname "$0")/.."
umask 077

setting() { # NAME DEFAULT: from the environment, else from .env
    eval "value=\${$1:-}"
    [ -n "$value" ] || value=$(sed -n "s/^$1=//p" .env 2>/dev/null | tail -n 1 | tr -d "\"'\r")
    echo "${value:-$2}"
}
folder=$(setting SECRETS_DIR ./secrets)
owner=$(setting PUID 1000)
group=$(setting PGID 1000)
scheme=$(setting NATS_SCHEME nats)
users='ingest ticketer poller fetcher_writer watchdog reaper catalog operator'

password() { od -An -N 24 -tx1 /dev/urandom | tr -d ' \n'; }

keep() { # NAME: writes stdin into the file, in place, so that containers that mount it see it
    [ ! -e "$folder/$1" ] || chmod u+w "$folder/$1"
    cat >"$folder/$1"
    echo "made $folder/$1"
}

make_postgres() {
    secret=$(password)
    echo "$secret" | keep postgres_password
    echo "postgresql://pezzottify:$secret@postgres/pezzottify" | keep database_url
}

make_nats() {
    lines=
    for user in $users; do
        secret=$(password)
        lines="$lines$(echo "$user" | tr '[:lower:]' '[:upper:]')_PASSWORD: \"$secret\"
"
        echo "$scheme://$user:$secret@nats:4222" | keep "nats_url_$user"
    done
    printf '%s' "$lines" | keep nats_passwords
}

make_admin() { password | keep admin_key; }

make_torrentino() { : | keep torrentino_api_key; } # empty: no key

mkdir -p "$folder"
[ $# -gt 0 ] || {
    [ -e "$folder/database_url" ] || set -- postgres
    [ -e "$folder/nats_passwords" ] || set -- "$@" nats
    [ -e "$folder/admin_key" ] || set -- "$@" admin
    [ -e "$folder/torrentino_api_key" ] || set -- "$@" torrentino
}
for name; do
    case $name in
    postgres | nats | admin | torrentino) "make_$name" ;;
    *) echo "$name: there are postgres, nats, admin and torrentino" >&2 && exit 2 ;;
    esac
done

# Existing files too: PUID and PGID may have changed.
chmod 0440 "$folder"/*_* # every secret's name has a _
if [ "$(id -u)" = 0 ]; then
    chown "$owner:$group" "$folder" "$folder"/*_*
elif ! chgrp "$group" "$folder"/*_*; then
    echo "$folder: cannot give it to group $group, in which the containers run (PGID): set PGID to a" \
        "group of yours, or run this as root" >&2
    exit 1
fi
