#!/usr/bin/env bash
# Downloads COCO 2017 (about 20 GB) and lays it out as `data=coco data.root=ROOT` expects it:
#   ROOT/train2017  ROOT/val2017  ROOT/annotations
# An interrupted download goes on where it stopped. An archive is unpacked only after its size and
# SHA-256 were found right and nothing in it leads out of ROOT or is more than it may be; it is
# removed afterwards. A part that is there already is not fetched again.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: $0 ROOT" >&2
    exit 2
fi
for tool in curl sha256sum unzip zipinfo; do
    command -v "$tool" >/dev/null || { echo "$tool is needed and was not found" >&2; exit 2; }
done
root=$1
mkdir -p "$root"

# The bucket of images.cocodataset.org by its path: under its own name it has no valid certificate.
address=https://s3.amazonaws.com/images.cocodataset.org

fetch() { # path of the archive, its bytes, its SHA-256, the most bytes and files that are in it
    local archive=$root/${1##*/}
    local unpacked=$root/.${1##*/}.unpacked
    if [ -e "$unpacked" ]; then
        echo "$1: is there already"
        return
    fi
    if ! matches "$archive" "$2" "$3"; then
        curl --fail --location --proto '=https' --proto-redir '=https' --retry 5 \
            --max-filesize "$2" --continue-at - --output "$archive" "$address/$1"
    fi
    if ! matches "$archive" "$2" "$3"; then
        echo "$archive: it has not $2 bytes with the SHA-256 $3; remove the file and start again" >&2
        exit 3
    fi
    require_harmless "$archive" "$4" "$5"
    unzip -q -o "$archive" -d "$root"
    touch "$unpacked"
    rm "$archive"
}

matches() { # file, bytes, SHA-256
    [ -f "$1" ] && [ "$(wc -c <"$1")" -eq "$2" ] && sha256sum --check --status <<<"$3  $1"
}

require_harmless() { # file, most bytes, most files: as the archive's own list states them
    local files bytes rest
    read -r files _ bytes rest < <(zipinfo -t "$1")  # 5000 files, 815585330 bytes uncompressed, ...
    if [ "$bytes" -gt "$2" ] || [ "$files" -gt "$3" ]; then
        echo "$1: $files files of $bytes bytes; at most $3 of $2 are unpacked" >&2
        exit 3
    fi
    if zipinfo -1 "$1" | grep -qE '^/|(^|/)\.\.(/|$)|\\' || zipinfo "$1" | grep -q '^l'; then
        echo "$1: it holds a link, or a name that leads out of the folder" >&2
        exit 3
    fi
}

fetch annotations/annotations_trainval2017.zip 252907541 \
    113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268 2000000000 20
fetch zips/val2017.zip 815585330 \
    4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05 2000000000 6000
fetch zips/train2017.zip 19336861798 \
    69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929 40000000000 130000
echo "COCO 2017 is in $root"
