#!/usr/bin/env bash
# How the files beside it were made: by the code of one commit, which is now an old one. Two runs of
# 250 steps, kept as they were after 240, and what that code made of them: scores of the val split,
# boxes of an image, and the run gone on with to its end. `tests/training/test_old_checkpoint.py` asks
# newer code for the same. To be read, not run: made again by newer code they would prove nothing.
set -euo pipefail
commit=59cd591
cd "$(dirname "$0")"
here=$(pwd -P) root=$(git rev-parse --show-toplevel) work=$(mktemp -d)
tree=$work/tree
trap 'git -C "$root" worktree remove --force "$tree"; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$tree" "$commit"
cp -r "$root/tests/plugins" "$tree/tests"
cd "$work"
export PYTHONPATH=$tree OMP_NUM_THREADS=1
plugin="plugins=[tests.plugins.tiny_backbone]"

tool() { # NAME ARGUMENTS...
    "$root/.venv/bin/python" "$tree/tools/$1.py" "${@:2}"
}

data=(data.image_size=64 data.num_classes=2 data.min_size=16 data.max_size=32 data.distractors=0)
tool generate "${data[@]}" data.num_train=1 data.num_val=8 "splits=[val]" output_dir=images
cp images/val/000004.png "$here/image.png"

make() { # NAME OVERRIDES...
    local name=$1 out=$here/$1 last=checkpoints/last.pt
    tool train --config-dir "$here/configs" "$plugin" backbone=tiny "${data[@]}" \
        data.num_train=16 data.num_val=8 model.fpn.channels=8 model.head.channels=8 \
        model.head.num_convs=1 "model.anchors.scales=[1.0]" \
        model.postprocess.detections_per_image=10 batch_size=4 optim.lr=0.005 schedule.final=0.5 \
        steps=250 save_every=240 loader.num_workers=0 tensorboard=false precision=float32 \
        device=cpu "output_dir=$name" "${@:2}"
    rm -rf "$out"
    mkdir -p "$out/checkpoints" "$out/gave"
    cp "$name/config.yaml" "$out"
    cp "$name/checkpoints/step_000000240.pt" "$out/$last"

    # In float64 the last digits do not depend on the processor.
    local exact=(precision=float64 device=cpu "$plugin")
    tool evaluate "checkpoint=$out/$last" output_dir="$name-scores" "${exact[@]}"
    cp "$name-scores/metrics.json" "$name-scores/detections.json" "$out/gave"
    tool predict "checkpoint=$out/$last" "source=$here/image.png" output_dir="$name-boxes" \
        "${exact[@]}"
    cp "$name-boxes/predictions.json" "$out/gave"

    cp -r "$out" "$name-resumed"
    tool train --config-path "$work/$name-resumed" --config-name config resume=auto log_every=1 \
        output_dir="$name-resumed"
    cp "$name-resumed/log.jsonl" "$name-resumed/status.json" "$out/gave"
    tool predict "checkpoint=$name-resumed/$last" "source=$here/image.png" \
        output_dir="$name-end" "${exact[@]}"
    cp "$name-end/predictions.json" "$out/gave/predictions_at_the_end.json"
}

make focal loss=focal "ramps=[{option: loss.gamma, start: 0.5, end: 2.0}]" guided_scale=true \
    normalizer=ema_positives
make ghm loss=ghm ema.enabled=false
