#!/usr/bin/env bats
# shellcheck disable=SC2016  # the stand-ins' own variables
# The nodes' script on a file system of its own, with stand-ins for what would change this machine.

setup() {
    SCRIPT=$BATS_TEST_DIRNAME/../../../config/parallelcluster/bootstrap.sh
    export ROOT=$BATS_TEST_TMPDIR/root SHARED=$BATS_TEST_TMPDIR/shared
    export CALLS=$BATS_TEST_TMPDIR/calls S3=$BATS_TEST_TMPDIR/s3
    STUBS=$BATS_TEST_TMPDIR/stubs
    mkdir -p "$ROOT/etc/parallelcluster" "$SHARED" "$STUBS" "$S3"
    printf '127.0.0.1 localhost\n' >"$ROOT/etc/hosts"
    printf 'cfn_node_type=ComputeFleet\ncfn_head_node_private_ip=10.0.0.7\n' \
        >"$ROOT/etc/parallelcluster/cfnconfig"
    : >"$CALLS"
    local name
    for name in apt-get dpkg systemctl groupadd sysctl; do stub "$name" 'exit 0'; done
    stub hostname 'echo "10.0.0.9 172.17.0.1"'
    stub useradd 'exit 0'
    # Who there is: root, and bob with the number 2002 in the group 2002.
    stub getent '
        case "$1 $2" in
        "passwd bob") echo "bob:x:2002:2002::/home/bob:/bin/bash" ;;
        "passwd ada") echo "ada:x:2001:2001::/home/ada:/bin/bash" ;;
        "group labhub") echo "labhub:x:1500:ada,bob,gone" ;;
        *) exit 2 ;;
        esac'
    stub aws 'cp "${S3}/${4##*/}" "$5"'
    PATH=$STUBS:$PATH
}

stub() { # NAME BODY
    printf '#!/bin/bash\necho "%s $*" >>"$CALLS"\n%s\n' "$1" "$2" >"$STUBS/$1"
    chmod +x "$STUBS/$1"
}

refute() { if "$@"; then return 1; fi; } # bats lets a plain "! command" pass

release() { # a release in the bucket
    mkdir -p "$BATS_TEST_TMPDIR/clone"
    printf '#!/bin/sh\necho "labhub $*" >>"$CALLS"\n[ "$1" != backup ] || touch "$2"\n' \
        >"$BATS_TEST_TMPDIR/clone/labhub"
    chmod +x "$BATS_TEST_TMPDIR/clone/labhub"
    tar -czf "$S3/labhub.tar.gz" -C "$BATS_TEST_TMPDIR/clone" .
    printf 'target: slurm\n' >"$S3/lab.yaml"
}

@test "a role that is none, and a place that is none, are refused before anything is done" {
    for words in "" "portal" "portal https://x/y" "portal s3://b" "portal s3://b/x;id" "nonsense s3://b/x"; do
        # shellcheck disable=SC2086
        run "$SCRIPT" $words
        [ "$status" -eq 1 ]
        [[ $output == *"usage: bootstrap.sh portal|head|compute s3://BUCKET/FOLDER"* ]]
    done
    [ ! -s "$CALLS" ]
}

@test "portal: release, lab file, address, unit, and timers are in place" {
    release
    run "$SCRIPT" portal s3://bucket/labhub
    [ "$status" -eq 0 ]
    [ -x "$ROOT/opt/labhub/source/labhub" ]
    [ "$(cat "$ROOT/var/lib/labhub/lab.yaml")" = "target: slurm" ]
    [ "$(stat -c %a "$ROOT/var/lib/labhub/lab.yaml")" = 640 ]
    [ "$(cat "$SHARED/portal-address")" = 10.0.0.9 ]
    grep -qx "10.0.0.9 labhub-portal" "$ROOT/etc/hosts"
    grep -q "ExecStart=$ROOT/opt/labhub/source/labhub up" "$ROOT/etc/systemd/system/labhub.service"
    refute grep -rq LABHUB_ENVS "$ROOT/etc/systemd/system" "$ROOT/opt/labhub/bootstrap.sh"
    [ "$(readlink "$ROOT/var/lib/labhub/envs")" = "$SHARED/envs" ]
    grep -qx "Delegate=yes" "$ROOT/etc/systemd/system/labhub.service"
    grep -qx "apt-get download --quiet slirp4netns libslirp0" "$CALLS"
    grep -q "KillMode=process" "$ROOT/etc/systemd/system/labhub.service"
    grep -qx "systemctl start --no-block labhub.service" "$CALLS"
    grep -qx "systemctl enable --now labhub-backup.timer" "$CALLS"
    grep -q "apt-get .*install .* python3 python3-venv .* bubblewrap nftables iproute2$" "$CALLS"
}

@test "portal: systemd takes the units" {
    command -v systemd-analyze >/dev/null || skip "needs systemd-analyze"
    release
    "$SCRIPT" portal s3://bucket/labhub
    run systemd-analyze verify "$ROOT"/etc/systemd/system/labhub*
    [ "$status" -eq 0 ]
    [ -z "$output" ]
}

@test "portal: a second run keeps the administrator's lab file and takes the new release" {
    release
    "$SCRIPT" portal s3://bucket/labhub
    printf 'target: slurm\n# mine\n' >"$ROOT/var/lib/labhub/lab.yaml"
    touch "$ROOT/opt/labhub/source/old"
    run "$ROOT/opt/labhub/bootstrap.sh" portal s3://bucket/labhub
    [ "$status" -eq 0 ]
    grep -q "# mine" "$ROOT/var/lib/labhub/lab.yaml"
    [ ! -e "$ROOT/opt/labhub/source/old" ]
    [ "$(grep -c labhub-portal "$ROOT/etc/hosts")" -eq 1 ]
}

@test "portal: what cannot be fetched is named with what to do" {
    run "$SCRIPT" portal s3://bucket/labhub
    [ "$status" -eq 1 ]
    [[ $output == *"cannot fetch s3://bucket/labhub/labhub.tar.gz: upload it"* ]]
    refute grep -q systemctl "$CALLS"
}

@test "portal: an archive that is no release is refused, and the one in use stays" {
    release
    "$SCRIPT" portal s3://bucket/labhub
    tar -czf "$S3/labhub.tar.gz" -C "$S3" lab.yaml
    run "$SCRIPT" portal s3://bucket/labhub
    [ "$status" -eq 1 ]
    [[ $output == *"holds no ./labhub"* ]]
    [ -x "$ROOT/opt/labhub/source/labhub" ]
}

@test "compute: knows the portal and the people, and lets servers have their own network" {
    printf 'ada:2001:2001:/home/ada\nnew:2003:2003:/home/new\n' >"$BATS_TEST_TMPDIR/people"
    mkdir -p "$SHARED/accounts"
    mv "$BATS_TEST_TMPDIR/people" "$SHARED/accounts/people"
    echo 10.0.0.9 >"$SHARED/portal-address"
    run "$SCRIPT" compute s3://bucket/labhub
    [ "$status" -eq 0 ]
    grep -qx "10.0.0.9 labhub-portal" "$ROOT/etc/hosts"
    grep -q "useradd --uid 2003 --gid 2003 --home-dir /home/new --no-create-home" "$CALLS"
    refute grep -q "useradd --uid 2001" "$CALLS"
    grep -qx "systemctl enable --now labhub-people.timer" "$CALLS"
    refute grep -q "labhub.service" "$CALLS"
    refute grep -q "apt-get" "$CALLS" # a node is quick to start
    grep -qx "sysctl --quiet --load=$ROOT/etc/sysctl.d/60-labhub.conf" "$CALLS"
    [[ $output == *"no slirp4netns here: servers share the node's network"* ]]
}

@test "compute: what gives servers their own network comes from the shared disk" {
    mkdir -p "$SHARED/packages"
    touch "$SHARED/packages/slirp4netns_1_amd64.deb" "$SHARED/packages/libslirp0_1_amd64.deb"
    run "$SCRIPT" compute s3://bucket/labhub
    [ "$status" -eq 0 ]
    grep -q "dpkg --install .*libslirp0_1_amd64.deb .*slirp4netns_1_amd64.deb" "$CALLS"
    [[ $output != *"no slirp4netns"* ]]
    : >"$CALLS"
    mkdir -p "$ROOT/usr/bin"
    touch "$ROOT/usr/bin/slirp4netns"
    chmod +x "$ROOT/usr/bin/slirp4netns"
    run "$SCRIPT" compute s3://bucket/labhub
    refute grep -q dpkg "$CALLS"
}

@test "compute: before the portal has said its address, the head node's is taken" {
    run "$SCRIPT" compute s3://bucket/labhub
    [ "$status" -eq 0 ]
    grep -qx "10.0.0.7 labhub-portal" "$ROOT/etc/hosts"
}

@test "compute: an address that is none ends with an error" {
    printf 'cfn_head_node_private_ip=\n' >"$ROOT/etc/parallelcluster/cfnconfig"
    run "$SCRIPT" compute s3://bucket/labhub
    [ "$status" -eq 1 ]
    [[ $output == *"no address of the node labhub-portal"* ]]
}

@test "people: only accounts of people are made, whatever the file says" {
    mkdir -p "$SHARED/accounts"
    cat >"$SHARED/accounts/people" <<'PEOPLE'
root:0:0:/root
evil:0:0:/home/evil
low:999:999:/home/low
-o:2010:2010:/home/x
up:2011:2011:/home/../etc
$(id):2012:2012:/home/x
x y:2013:2013:/home/x
bob:2999:2999:/home/bob
good:2014:2014:/home/good
PEOPLE
    run "$SCRIPT" people
    [ "$status" -eq 1 ]
    [[ $output == *"bob has the number 2002 here, and 2999 on the portal"* ]]
    [ "$(grep -c '^useradd' "$CALLS")" -eq 1 ]
    grep -q "^useradd --uid 2014 .* good$" "$CALLS"
}

@test "people: the portal's node writes its members, without passwords, and only on a change" {
    release
    "$SCRIPT" portal s3://bucket/labhub
    run "$SCRIPT" people
    [ "$status" -eq 0 ]
    [ "$(cat "$SHARED/accounts/people")" = "$(printf 'ada:2001:2001:/home/ada\nbob:2002:2002:/home/bob')" ]
    [ "$(stat -c %a "$SHARED/accounts/people")" = 644 ]
    before=$(stat -c %i "$SHARED/accounts/people")
    "$SCRIPT" people
    [ "$(stat -c %i "$SHARED/accounts/people")" = "$before" ]
}

@test "backup and restore: a new disk gets the last backup, a used one does not" {
    release
    "$SCRIPT" portal s3://bucket/labhub
    "$SCRIPT" backup # nothing to save before the first start
    [ ! -e "$SHARED/backups" ]
    mkdir "$ROOT/var/lib/labhub/secrets"
    "$SCRIPT" backup
    [ -e "$SHARED/backups/last.tar.gz" ]
    [ "$(stat -c %a "$SHARED/backups")" = 700 ]
    "$SCRIPT" restore
    refute grep -q "labhub restore" "$CALLS"
    rmdir "$ROOT/var/lib/labhub/secrets"
    "$SCRIPT" restore
    grep -qx "labhub restore --yes $SHARED/backups/last.tar.gz" "$CALLS"
}
