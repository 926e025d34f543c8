#!/bin/sh
# Makes the secrets of docker-compose.yml: random passwords, one file each, in ./secrets.
#
#   sh deploy/secrets.sh            makes the missing ones only, also of single users of PostgreSQL and NATS,
#                                   and checks that the folders of .env exist
#   sh deploy/secrets.sh NAME...    replaces these: postgres, nats, admin, torrentino, catalog_server
#
# secrets/torrentino_api_key and secrets/catalog_server_password are made empty: put Torrentino's API key
# and the password of the bridge's account into them. docs/operations.md has the further steps after a
# replacement. PUID, PGID, SECRETS_DIR, NATS_SCHEME (nats or tls) and the folders come from the environment or
# from .env.
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
services='ingest ticketer poller fetcher_writer watchdog reaper bridge'
users="$services catalog operator"

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
    make_logins $services
}

make_logins() { # SERVICE...: a user of PostgreSQL each; `migrate` gives it its password and its rights
    for service; do
        echo "postgresql://$service:$(password)@postgres/pezzottify" | keep "database_url_$service"
    done
}

missing_logins() {
    for service in $services; do
        [ -e "$folder/database_url_$service" ] || echo "$service"
    done
}

variable_of() { echo "$1_PASSWORD" | tr '[:lower:]' '[:upper:]'; }

missing_users() { # those without a password, as after an upgrade that brings a new user
    for user in $users; do
        grep -qs "^$(variable_of "$user"):" "$folder/nats_passwords" || echo "$user"
    done
}

give_passwords() { # LINES USER...: writes these lines of nats_passwords, and new ones for the users
    lines=${1:+$1
}
    shift
    for user; do
        secret=$(password)
        lines="$lines$(variable_of "$user"): \"$secret\"
"
        echo "$scheme://$user:$secret@nats:4222" | keep "nats_url_$user"
    done
    printf '%s' "$lines" | keep nats_passwords
}

make_nats() { give_passwords '' $users; }

add_nats_users() { # USER...: the others keep their passwords
    give_passwords "$(cat "$folder/nats_passwords" 2>/dev/null || :)" "$@"
}

make_admin() { password | keep admin_key; }

make_torrentino() { : | keep torrentino_api_key; } # empty: no key

make_catalog_server() { : | keep catalog_server_password; } # empty: the bridge only publishes

mkdir -p "$folder"
check=
[ $# -gt 0 ] || {
    check=folders
    [ -e "$folder/database_url" ] || set -- postgres
    [ $# -gt 0 ] || make_logins $(missing_logins)
    missing=$(missing_users)
    [ -z "$missing" ] || add_nats_users $missing
    [ -e "$folder/admin_key" ] || set -- "$@" admin
    [ -e "$folder/torrentino_api_key" ] || set -- "$@" torrentino
    [ -e "$folder/catalog_server_password" ] || set -- "$@" catalog_server
}
for name; do
    case $name in
    postgres | nats | admin | torrentino | catalog_server) "make_$name" ;;
    *) echo "$name: there are postgres, nats, admin, torrentino and catalog_server" >&2 && exit 2 ;;
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

[ -n "$check" ] || exit 0
missing=
for name in INCOMING_DIR DOWNLOADS_DIR MEDIA_DIR CATALOG_DIR STORAGE_DIR; do
    path=$(setting $name '')
    case $path in
    */*) [ -d "$path" ] || missing="$missing$name: $path is no folder of this machine: make it, or correct .env
" ;; # a name without a slash is a volume
    esac
done
[ -z "$missing" ] || {
    printf %s "$missing" >&2
    exit 1
}
