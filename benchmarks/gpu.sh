#!/usr/bin/env bash
# Everything that needs a GPU, in at most 12 minutes on one CUDA device: device tests, speed and memory, two recipes.
#
#   bash benchmarks/gpu.sh                      writes lightning_mi_runs/gpu/*.md and the measurements' CSV files
#   bash benchmarks/gpu.sh --device cpu --tiny  the same program on a CPU, to check that everything runs
#   bash benchmarks/gpu.sh --output DIR
#
# Each part has a time limit, so that a slow one does not cost the others; what did not finish is listed at the end.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

device=cuda output=lightning_mi_runs/gpu tiny=()
while (($#)); do
    case "$1" in
        --device) device="$2"; shift 2 ;;
        --output) output="$2"; shift 2 ;;
        --tiny) tiny=(--tiny); shift ;;
        *) echo "gpu.sh: unknown option $1" >&2; exit 2 ;;
    esac
done
mkdir -p "$output"
accelerator=gpu
[ "$device" = cpu ] && accelerator=cpu
failed=()

part() { # name, limit in seconds, command...
    local name="$1" limit="$2" start=$SECONDS
    shift 2
    echo "== $name: $*"
    timeout "$limit" "$@" >"$output/$name.txt" 2>&1 || failed+=("$name (exit status $?)")
    tail -n 3 "$output/$name.txt"
    printf '| %s | %s s |\n' "$name" "$((SECONDS - start))" >>"$output/parts.md"
}

printf '| part | time |\n|---|---|\n' >"$output/parts.md"
python - "$device" >"$output/machine.md" <<'PYTHON'
import platform
import sys

import lightning
import torch

name = torch.cuda.get_device_name() if sys.argv[1] == "cuda" else platform.processor() or platform.machine()
print(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, lightning {lightning.__version__}")
PYTHON
cat "$output/machine.md"

part tests 180 env LIGHTNING_MI_DEVICE="$device" pytest -q -n 0 tests/device
part speed 240 python benchmarks/run.py --device "$device" --output "$output/speed" "${tiny[@]}" \
    --only scoring overhead many chunks
part memory 120 python benchmarks/run.py --device "$device" --output "$output/memory" "${tiny[@]}" --only large candidates
short=(--trainer.accelerator "$accelerator" --trainer.devices 1 --trainer.default_root_dir "$output/recipes")
[ "${#tiny[@]}" -gt 0 ] && short+=(--trainer.fast_dev_run 2)
part gaussian 60 lightning-mi fit --config gaussian "${short[@]}"
part simclr 120 lightning-mi fit --config contrastive/simclr_digits --trainer.precision bf16-mixed "${short[@]}"

{
    echo "# GPU"
    echo
    cat "$output/machine.md"
    echo
    cat "$output/parts.md"
    for table in "$output"/speed/*.txt "$output"/memory/*.txt; do
        [ -f "$table" ] && printf '\n## %s\n\n%s\n' "$(basename "$table" .txt)" "$(cat "$table")"
    done
} >"$output/gpu.md"
echo "wrote $output/gpu.md"
if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
