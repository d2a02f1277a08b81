#!/bin/bash
# Run by AWS ParallelCluster on each of its nodes (OnNodeConfigured), as root, on Ubuntu 24.04:
# its Python is the same on all nodes, so environments in /shared run everywhere.
#
#     bootstrap.sh portal|head|compute s3://BUCKET/FOLDER
#
# portal: installs the portal (on the head node or a login node) and starts it.
# head: the head node of a cluster whose portal is on a login node.
# compute: what a node needs to run people's servers and jobs.
#
# It ends with an error only where the node is of no use without what failed: ParallelCluster then
# takes the node, or the whole new cluster, away. That the portal does not start is no such reason.
# Safe to run again. What it says is in /var/log/cfn-init-output.log or cloud-init-output.log.
set -euo pipefail

PORTAL_HOST=labhub-portal # the lab file's hub_host
SHARED=${SHARED:-/shared/labhub}
ROOT=${ROOT:-} # the tests' own root folder
INSTALL=$ROOT/opt/labhub
STATE=$ROOT/var/lib/labhub
UNITS=$ROOT/etc/systemd/system
PEOPLE=$SHARED/accounts/people
GROUP=labhub

say() { printf 'labhub: %s\n' "$*"; }
die() {
    printf 'labhub: %s\n' "$*" >&2
    exit 1
}

# -- the system ---------------------------------------------------------------------------

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    # Another apt may still run on a machine that has just started.
    apt-get -o DPkg::Lock::Timeout=300 update --quiet
    apt-get -o DPkg::Lock::Timeout=300 install --yes --quiet --no-install-recommends "$@"
}

# Write a line of /etc/hosts, in place of an older one of that name.
name_host() { # ADDRESS NAME
    local hosts=$ROOT/etc/hosts
    [[ $1 =~ ^[0-9]+(\.[0-9]+){3}$ ]] || die "no address of the node $2: ${1:-nothing}"
    sed -i "/[[:space:]]$2\$/d" "$hosts"
    printf '%s %s\n' "$1" "$2" >>"$hosts"
}

own_address() { hostname -I | cut -d' ' -f1; }

# ParallelCluster tells each node where the head node is.
head_address() {
    sed -n 's/^cfn_head_node_private_ip=//p' "$ROOT/etc/parallelcluster/cfnconfig"
}

# The portal's address is written where all nodes see it; the head node's, where there is none.
portal_address() {
    local file=$SHARED/portal-address
    if [[ -s $file ]]; then cat "$file"; else head_address; fi
}

fetch() { # S3-PLACE FILE
    say "fetching $1"
    aws s3 cp --only-show-errors "$1" "$2" ||
        die "cannot fetch $1: upload it, and look whether the node may read it (files: in the lab file)"
}

# What gives a server a network of its own. Nodes take it from the shared disk, which costs them a
# second; asking a mirror would cost each of them half a minute.
keep_network_packages() {
    mkdir -p "$SHARED/packages"
    (cd "$SHARED/packages" && apt-get download --quiet slirp4netns libslirp0) ||
        say "slirp4netns cannot be fetched: servers will share their nodes' network" >&2
}

install_network_packages() {
    [[ ! -x $ROOT/usr/bin/slirp4netns ]] || return 0
    local packages=("$SHARED"/packages/*.deb)
    if [[ ! -e ${packages[0]} ]] || ! dpkg --install --skip-same-version "${packages[@]}"; then
        say "no slirp4netns here: servers share the node's network (as with network: shared)" >&2
    fi
}

# -- people -------------------------------------------------------------------------------

# SLURM starts a job under its owner's account, so every node needs the accounts. A lab with a
# directory (DirectoryService) has them everywhere already; these lines then find them there.

# Write the people of the portal for the other nodes: name:uid:gid:home.
export_people() {
    local members name entry
    members=$(getent group "$GROUP" | cut -d: -f4)
    mkdir -p "${PEOPLE%/*}"
    : >"$PEOPLE.new"
    for name in ${members//,/ }; do
        entry=$(getent passwd "$name") || continue
        awk -F: -v OFS=: '{print $1, $3, $4, $6}' <<<"$entry" >>"$PEOPLE.new"
    done
    chmod 644 "$PEOPLE.new"
    if cmp -s "$PEOPLE.new" "$PEOPLE"; then rm "$PEOPLE.new"; else mv "$PEOPLE.new" "$PEOPLE"; fi
}

# Make the accounts that this node lacks. One that is otherwise here already is left alone.
import_people() {
    local name uid gid home there bad=0
    [[ -r $PEOPLE ]] || return 0
    while IFS=: read -r name uid gid home; do
        if ! [[ $name =~ ^[a-z][a-z0-9_-]{0,30}$ && $uid =~ ^[0-9]{4,9}$ && $gid =~ ^[0-9]{4,9}$ &&
            $home =~ ^/home/[a-z][a-z0-9_-]{0,30}$ ]]; then
            say "not an account of a person, left out: ${name:0:40}" >&2
            bad=1
            continue
        fi
        there=$(getent passwd "$name" | cut -d: -f3) || true
        if [[ -n $there ]]; then
            [[ $there == "$uid" ]] || {
                say "$name has the number $there here, and $uid on the portal: jobs would fail" >&2
                bad=1
            }
            continue
        fi
        getent group "$gid" >/dev/null || groupadd --gid "$gid" "$name"
        useradd --uid "$uid" --gid "$gid" --home-dir "$home" --no-create-home \
            --shell /bin/bash "$name" || bad=1
    done <"$PEOPLE"
    return "$bad"
}

# -- units --------------------------------------------------------------------------------

unit() { # NAME; the text comes by stdin
    mkdir -p "$UNITS"
    cat >"$UNITS/$1"
}

every() { # NAME SECONDS COMMAND: run it again and again
    unit "$1.service" <<UNIT
[Unit]
Description=Labhub: $1
[Service]
Type=oneshot
ExecStart=$3
UNIT
    unit "$1.timer" <<UNIT
[Unit]
Description=Labhub: $1
[Timer]
OnBootSec=5
OnUnitActiveSec=$2
AccuracySec=1
[Install]
WantedBy=timers.target
UNIT
    systemctl daemon-reload
    systemctl enable --now "$1.timer"
}

keep_self() {
    mkdir -p "$INSTALL"
    # Also where this very file is run again.
    [[ $(readlink -f "$0") == "$(readlink -f "$INSTALL/bootstrap.sh" || true)" ]] ||
        install -m 755 "$0" "$INSTALL/bootstrap.sh"
}

# -- roles --------------------------------------------------------------------------------

compute() {
    local address
    address=$(portal_address)
    name_host "$address" "$PORTAL_HOST"
    # Ubuntu keeps people from making namespaces of their own. Servers need them: in its network
    # namespace a server's ports are its owner's alone (network: in the lab file).
    mkdir -p "$ROOT/etc/sysctl.d"
    echo 'kernel.apparmor_restrict_unprivileged_userns = 0' >"$ROOT/etc/sysctl.d/60-labhub.conf"
    sysctl --quiet --load="$ROOT/etc/sysctl.d/60-labhub.conf" || say "no namespaces here" >&2
    install_network_packages
    keep_self
    import_people || true # one bad account must not cost the node
    every labhub-people 20 "$INSTALL/bootstrap.sh people"
}

head_only() {
    say "the portal is on a login node; nothing to install here"
    mkdir -p "$SHARED"
    chmod 755 "$SHARED"
    keep_self
    import_people || true
    every labhub-people 20 "$INSTALL/bootstrap.sh people"
}

portal() { # FILES
    local new=$INSTALL/new
    mkdir -p "$SHARED/envs" "$INSTALL" "$STATE"
    chmod 755 "$SHARED" "$SHARED/envs"
    chmod 711 "$STATE"
    # As `up` keeps it (slurm.environments in the lab file): no command needs to be told.
    [[ -e $STATE/envs || -L $STATE/envs ]] || ln -s "$SHARED/envs" "$STATE/envs"
    own_address >"$SHARED/portal-address"
    name_host "$(own_address)" "$PORTAL_HOST"
    install_packages python3 python3-venv tar gzip bubblewrap nftables iproute2
    keep_network_packages
    getent group "$GROUP" >/dev/null || groupadd "$GROUP"
    keep_self
    rm -rf "$new"
    mkdir -p "$new"
    fetch "$1/labhub.tar.gz" "$INSTALL/labhub.tar.gz"
    tar -xzf "$INSTALL/labhub.tar.gz" -C "$new" --no-same-owner
    [[ -x $new/labhub ]] || die "labhub.tar.gz holds no ./labhub: make it with git archive"
    rm -rf "$INSTALL/source"
    mv "$new" "$INSTALL/source"
    # A lab file that is there is the administrator's: a new boot does not undo it.
    if [[ ! -e $STATE/lab.yaml ]]; then
        fetch "$1/lab.yaml" "$STATE/lab.yaml"
        chmod 640 "$STATE/lab.yaml"
    fi
    units
}

# Environments take minutes: a unit makes them while ParallelCluster goes on.
units() {
    unit labhub.service <<UNIT
[Unit]
Description=Labhub, the lab portal
After=network-online.target remote-fs.target slurmctld.service
Wants=network-online.target
[Service]
Type=forking
PIDFile=$STATE/run/supervisord.pid
Environment=LABHUB_STATE=$STATE
Environment=PATH=/opt/slurm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStartPre=$INSTALL/bootstrap.sh restore
ExecStart=$INSTALL/source/labhub up
ExecReload=$INSTALL/source/labhub up
Restart=on-failure
RestartSec=60
# The first start makes the environments.
TimeoutStartSec=60min
TimeoutStopSec=2min
# User servers are jobs: they go on when the portal stops.
KillMode=process
# Members' apps get cgroups of their own.
Delegate=yes
UMask=0022
[Install]
WantedBy=multi-user.target
UNIT
    every labhub-people 20 "$INSTALL/bootstrap.sh people"
    every labhub-backup 3600 "$INSTALL/bootstrap.sh backup"
    systemctl enable labhub.service
    systemctl start --no-block labhub.service
    say "the portal is being made: systemctl status labhub, journalctl -u labhub"
}

# A login node may be replaced, and its disk with it: the last backup is on the shared disk.
backup() {
    local place=$SHARED/backups
    [[ -e $STATE/lab.yaml && -d $STATE/secrets ]] || return 0
    mkdir -p "$place"
    chmod 700 "$place"
    LABHUB_STATE=$STATE "$INSTALL/source/labhub" backup "$place/new.tar.gz"
    mv "$place/new.tar.gz" "$place/last.tar.gz"
}

restore() {
    local last=$SHARED/backups/last.tar.gz
    [[ -e $last && ! -d $STATE/secrets ]] || return 0
    say "putting the last backup back"
    LABHUB_STATE=$STATE "$INSTALL/source/labhub" restore --yes "$last"
}

people() {
    # The portal's node knows the people, the others learn them.
    if [[ -e $INSTALL/source/labhub ]]; then export_people; else import_people; fi
}

main() {
    local role=${1:-} files=${2:-}
    case $role in
    portal | head | compute)
        [[ $files =~ ^s3://[a-z0-9][a-z0-9.-]+(/[A-Za-z0-9_.-]+)+$ ]] ||
            die "usage: bootstrap.sh portal|head|compute s3://BUCKET/FOLDER"
        case $role in
        portal) portal "$files" ;;
        head) head_only ;;
        compute) compute ;;
        esac
        ;;
    people | backup | restore) "$role" ;;
    *) die "usage: bootstrap.sh portal|head|compute s3://BUCKET/FOLDER" ;;
    esac
}

# The tests read the functions without running anything.
[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"
