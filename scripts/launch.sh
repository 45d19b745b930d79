#!/usr/bin/env bash
# torchrun whose workers find one another again after a restart: `scripts/launch.sh
# --nproc-per-node 2 --max-restarts 3 tools/train.py loss=focal`. Without the variable the new
# workers may read the addresses of the dead ones from the agent's store; the agent reads it, so a
# worker cannot set it for itself.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun "$@"
