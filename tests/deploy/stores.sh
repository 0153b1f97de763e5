#!/bin/sh
# Start Redis, or PostgreSQL with the database, user and password of its variables, as the official images do.
set -eu
[ "${1:-}" != redis-server ] || exec "$@" --protected-mode no
data=/var/lib/postgresql/data
as="setpriv --reuid postgres --regid postgres --init-groups"
cd /usr/lib/postgresql/*/bin
if ! [ -e $data/PG_VERSION ]; then
    chown postgres $data
    printf %s "$POSTGRES_PASSWORD" >/run/password
    chmod 644 /run/password
    $as ./initdb --username "$POSTGRES_USER" --pwfile /run/password --auth-host scram-sha-256 $data
    echo "host all all all scram-sha-256" >>$data/pg_hba.conf
    echo "CREATE DATABASE $POSTGRES_USER" | $as ./postgres --single -D $data postgres
fi
exec $as ./postgres -D $data -c listen_addresses='*'
