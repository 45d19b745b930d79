#!/usr/bin/env bash
# Proves that a refactoring changed no number: trains with the code of OLD_COMMIT and with that of
# the checkout, both for seconds, and compares what the runs leave. 0: all is equal, 1: something
# differs, which is named. Two minutes on two processors. Usage: scripts/equal_runs.sh OLD_COMMIT
set -euo pipefail
cd "$(dirname "$0")/.."
new=$(pwd -P)
commit=$(git rev-parse --verify --quiet "${1:-}^{commit}") || {
    echo "usage: $0 OLD_COMMIT, which git has to know" >&2
    exit 2
}
work=$(cd "$(mktemp -d)" && pwd -P)
old=$work/tree
trap 'git worktree remove --force "$old" 2>/dev/null || true; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$old" "$commit"

export OMP_NUM_THREADS=1 PATH="$new/.venv/bin:$PATH"
fixed=(experiment=smoke precision=float32 device=cpu)

train() { # SIDE NAME COMMAND..., in the tree of the side
    local out=$work/$1/$2
    shift 2
    mkdir -p "$out"
    "$@" "${fixed[@]}" output_dir="$out" >"$out.txt" 2>&1 && return
    tail -n 20 "$out.txt" >&2
    return 1
}

for side in old new; do
    cd "${!side}"
    export PYTHONPATH=$PWD
    python -c 'import detector, sys; sys.exit(detector.__file__ != sys.argv[1])' \
        "$PWD/detector/__init__.py" || { echo "$PWD: its code is not what runs" >&2; exit 1; }
    for loss in focal ssd yolo_v1 ghm; do
        train "$side" "$loss" python tools/train.py "loss=$loss"
    done
    # Not judged by its exit code: gloo may abort at the exit of a short program, after the work.
    # What was not written is found missing below.
    train "$side" focal_on_two scripts/launch.sh --standalone --nproc-per-node 2 \
        tools/train.py loss=focal || true
done
python "$new/scripts/equal_runs.py" "$work/old" "$work/new"
