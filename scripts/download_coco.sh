#!/usr/bin/env bash
# Downloads COCO 2017 (about 20 GB) and lays it out as `data=coco data.root=ROOT` expects it:
#   ROOT/train2017  ROOT/val2017  ROOT/annotations
# An interrupted download goes on where it stopped. An archive is unpacked only after its checksum
# was found right, and removed afterwards; a part that is there already is not fetched again.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: $0 ROOT" >&2
    exit 2
fi
for tool in curl md5sum unzip; do
    command -v "$tool" >/dev/null || { echo "$tool is needed and was not found" >&2; exit 2; }
done
root=$1
mkdir -p "$root"

# The bucket of images.cocodataset.org by its path: under its own name it has no valid certificate.
address=https://s3.amazonaws.com/images.cocodataset.org

fetch() { # path of the archive, its md5
    local archive=$root/${1##*/}
    local unpacked=$root/.${1##*/}.unpacked
    if [ -e "$unpacked" ]; then
        echo "$1: is there already"
        return
    fi
    if ! matches "$archive" "$2"; then
        curl --fail --location --proto '=https' --retry 5 --continue-at - \
            --output "$archive" "$address/$1"
    fi
    if ! matches "$archive" "$2"; then
        echo "$archive: the checksum is not $2; remove the file and start again" >&2
        exit 3
    fi
    unzip -q -o "$archive" -d "$root"
    touch "$unpacked"
    rm "$archive"
}

matches() { # file, md5
    [ -f "$1" ] && md5sum --check --status <<<"$2  $1"
}

fetch annotations/annotations_trainval2017.zip f4bbac642086de4f52a3fdda2de5fa2c
fetch zips/val2017.zip 442b8da7639aecaf257c1dceb8ba8c80
fetch zips/train2017.zip cced6f7f71b7629ddf16f17bbcfab6b2
echo "COCO 2017 is in $root"
