#!/bin/sh
# start.sh PGPASS UID COMMAND...: run COMMAND with the database's password in POSTGRES_PASSWORD.
#
# The first start draws it and writes it to PGPASS, in libpq's format, for UID alone. So there is no
# default to guess, nothing to set before a first start, and nothing to read in a compose file, an
# address or `docker inspect`.
set -eu
pgpass=$1 uid=$2
shift 2
if [ ! -s "$pgpass" ]; then
    umask 077
    password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    printf '*:*:*:*:%s\n' "$password" > "$pgpass.new"
    chown "$uid" "$pgpass.new"
    # Whole or not at all, whenever this is killed.
    mv "$pgpass.new" "$pgpass"
fi
POSTGRES_PASSWORD=$(cut -d: -f5 "$pgpass")
export POSTGRES_PASSWORD
exec "$@"
