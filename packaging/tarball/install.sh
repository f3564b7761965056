#!/bin/sh
# Installs the listend of this directory below /usr/local, with units, manual pages and completions. As root:
#
#   sh install.sh                    install, or replace another version
#   sh install.sh --uninstall        remove it again, except for the configuration
#
# With DESTDIR=/some/root it only places the files there, as for an image; anybody may do that.
#
# Starts nothing. A daemon that runs goes on as the new version, with its workers, sockets and clients.
set -eu
umask 022

prefix=/usr/local
root=${DESTDIR:-}
root=${root%/}
here=$(cd "$(dirname "$0")" && pwd)
# What an installation has placed, one path a line. It is also what removes it.
list=$prefix/share/listend/installed

say() {
    printf 'install.sh: %s\n' "$*"
}

refuse() {
    printf 'install.sh: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '  hint: %s\n' "$2" >&2
    exit 1
}

systemd_runs() {
    [ -z "$root" ] && [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1
}

# Removes a file, and the directories that are empty then, up to those that every system has.
remove() {
    rm -f "$root$1"
    folder=${1%/*}
    while :; do
        case $folder in
        "$prefix" | "$prefix/bin" | "$prefix/lib" | "$prefix/share" | "$prefix/share/man") return ;;
        esac
        rmdir "$root$folder" 2>/dev/null || return 0
        folder=${folder%/*}
    done
}

may_write() {
    if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
        refuse "only root can change $prefix" "sudo sh install.sh, or set DESTDIR"
    fi
    folder=$root$prefix
    while [ ! -d "$folder" ]; do
        folder=${folder%/*}
        [ -n "$folder" ] || folder=/
    done
    [ -w "$folder" ] || refuse "cannot write below $folder" "is it mounted read-only?"
}

# That the program runs on this machine.
runs_here() {
    machine=$(sed -n 's/^machine=//p' "$here/requires")
    glibc=$(sed -n 's/^glibc=//p' "$here/requires")
    if [ "$(uname -s)" != Linux ]; then
        refuse "this is $(uname -s), and listend needs Linux"
    fi
    if [ "$(uname -m)" != "$machine" ]; then
        refuse "this machine is $(uname -m), and the program is for $machine" \
            "take the tarball for $(uname -m), or build listend from its source"
    fi
    if said=$("$here/files$prefix/bin/listend" --version 2>&1); then
        return 0
    fi
    has=$(getconf GNU_LIBC_VERSION 2>/dev/null) || has='no glibc'
    refuse "the program does not run here: it needs glibc $glibc or later, this machine has $has${said:+ ($said)}" \
        'build listend from its source, which needs Rust and nothing else'
}

# That no package has installed one: its units and this program would not belong together.
is_alone() {
    for unit in /usr/lib/systemd/system/listend.service /lib/systemd/system/listend.service; do
        if [ -e "$root$unit" ]; then
            refuse "a package of this system has installed listend ($unit)" \
                'upgrade that package, or remove it first; the configuration stays'
        fi
    done
    if [ -e "$root$prefix/bin/listend" ] && [ ! -e "$root$list" ]; then
        refuse "$prefix/bin/listend is there, and this script has not installed it" \
            'make uninstall removes what make install has installed'
    fi
}

install_files() {
    before=
    [ ! -e "$root$list" ] || before=$(cat "$root$list")
    all=$(cd "$here/files" && find . -type f | sed 's/^\.//' | sort)
    mine="$prefix/share/listend/install.sh"
    for path in $all; do
        target=$root$path
        case $path in
        # An existing configuration is never replaced.
        /etc/*) [ ! -e "$target" ] || continue ;;
        esac
        mkdir -p "${target%/*}"
        # In one step: a program that runs cannot be written to, and must not be half there.
        cp -p "$here/files$path" "$target.new"
        mv -f "$target.new" "$target"
    done
    cp "$here/install.sh" "$root$mine"
    {
        printf '%s\n' "$all" | grep -v '^/etc/'
        printf '%s\n' "$mine" "$list"
    } >"$root$list.new"
    mv -f "$root$list.new" "$root$list"
    for path in $before; do
        grep -qxF "$path" "$root$list" || remove "$path"
    done
}

case ${1:-} in
'')
    [ -d "$here/files" ] || refuse 'there is nothing to install beside this script' 'run the one of the tarball'
    may_write
    [ -n "$root" ] || runs_here
    is_alone
    install_files
    if [ -n "$root" ]; then
        exit 0
    fi
    if command -v systemd-sysusers >/dev/null 2>&1; then
        systemd-sysusers "$prefix/lib/sysusers.d/listend.conf"
        systemd-tmpfiles --create "$prefix/lib/tmpfiles.d/listend.conf" || :
    elif ! getent passwd listend >/dev/null 2>&1; then
        say 'there is no user named listend; the shipped files need it: useradd --system --user-group listend'
    fi
    if systemd_runs; then
        systemctl daemon-reload
    fi
    [ -z "$before" ] || sh "$prefix/share/listend/upgrade-running"
    if ! systemd_runs; then
        say 'installed; systemd does not run here: scripts for OpenRC, runit and s6 are in the source'
    elif ! systemctl is-enabled --quiet listend.service; then
        say 'installed; start it with: systemctl enable --now listend'
    fi
    ;;
--uninstall)
    may_write
    [ -e "$root$list" ] || refuse "this script has not installed listend here: there is no $list"
    # The list is removed with what is on it.
    installed=$(cat "$root$list")
    if systemd_runs; then
        systemctl disable --now --quiet listend.service || :
        systemctl stop 'listend@*.service' || :
    fi
    for path in $installed; do
        remove "$path"
    done
    if systemd_runs; then
        systemctl daemon-reload
    fi
    say 'removed; /etc/listend and the user listend are left'
    ;;
*)
    refuse "unknown argument \`$1\`" 'sh install.sh [--uninstall]'
    ;;
esac
