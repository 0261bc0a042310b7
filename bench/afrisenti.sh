#!/usr/bin/env bash
# The AfriSenti experiment of docs/gradsim.md, from the data to the page: about half an hour on two cores.
#
#   bash bench/afrisenti.sh DATA OUT [TYPOLOGY]
#
# DATA: the folder of AfriSenti, <language>/{train,dev,test}.tsv. TYPOLOGY: a JSON file for `gradsim report --typology`.
# Killed, it goes on where it was.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
[ $# -ge 2 ] || { sed -n '2,7p' "${BASH_SOURCE[0]}"; exit 2; }
data="$1" out="$2" typology="${3:-}"
gradsim="${GRADSIM:-$here/../.venv/bin/gradsim}"
mkdir -p "$out"
# in a fixed order, which decides roundings and the visits of GradVac
tasks=amh,arq,ary,hau,ibo,kin,por,swa,tso,twi,yor,pcm

"$gradsim" similarity --data "$data" --out "$out/measured" --steps 200 --batches 20 --measure-batch 128
# GradSim's objective: a task alone scores 1. Then without tasks alone; both share their models in one run.
for rule in self forbidden; do
  "$gradsim" group "$out/measured/similarity.safetensors" --groups 4 --alone "$rule" --out "$out/groups-$rule.json"
  "$gradsim" train --data "$data" --groups "$out/groups-$rule.json" --out "$out/train" --tasks "$tasks" --steps 200 --seeds 3 \
    --random 3 --test-examples 600 --families "$here/afrisenti_families.json"
  cp "$out/train/results.json" "$out/results-$rule.json"
  "$gradsim" report "$out/measured" "$out/groups-$rule.json" "$out/results-$rule.json" --out "$out/report-$rule" \
    --families "$here/afrisenti_families.json" ${typology:+--typology "$typology"}
done
